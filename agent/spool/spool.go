// Package spool keeps an agent's results, as numbered reports, until the
// controller has acknowledged them. It is bounded: when it is full it drops
// the oldest report that is not under way, and counts what was in it. So every
// result that was produced is acknowledged, held or dropped, and only one of these.
//
// This spool is in memory, and an agent that dies loses what was not acknowledged.
package spool

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/synmesh/synmesh/internal/convert"
	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// RunPrefix starts the source of every run; its results are in a hurry, and keep
// what those of measurements leave out.
const RunPrefix = "runs/"

const (
	maxResults = 500_000                // held at once
	maxReport  = 960 << 10              // bytes of one report; the controller takes messages of 1 MiB
	hurry      = 5 * time.Millisecond   // for which results of runs are gathered
	leisure    = 500 * time.Millisecond // for which others are
)

// Spool is safe for concurrent use.
type Spool struct {
	epoch uint64
	limit int // of held

	mu       sync.Mutex
	open     convert.Blocks // results that are in no report yet
	weight   int            // the bytes that they and the ends will be, at most
	ends     []*synmeshv1.RunEnd
	due      time.Time // when the open results are to be reported; zero if there are none
	reports  []entry   // not acknowledged, in order
	unsent   int       // index into reports; those before it are under way
	sequence uint64    // of the last report
	held     int       // results in open and reports
	dropped  uint64
	changed  chan struct{} // closed at the next change
}

type entry struct {
	report  *synmeshv1.Report
	results int
}

// New returns an empty Spool. The epoch tells this life of it from any other.
func New(epoch uint64) *Spool {
	return &Spool{
		epoch:   epoch,
		limit:   maxResults,
		open:    convert.Blocks{KeepSeq: func(source string) bool { return strings.HasPrefix(source, RunPrefix) }},
		changed: make(chan struct{}),
	}
}

// Epoch returns what New was given.
func (s *Spool) Epoch() uint64 { return s.epoch }

// Add takes in a result, which the caller may use again.
func (s *Spool) Add(r *probe.Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.makeRoom() {
		s.dropped++
		return
	}
	wait := leisure
	if strings.HasPrefix(r.Source, RunPrefix) {
		wait = hurry
	}
	s.load(resultWeight + len(r.Source) + len(r.Target) + len(r.Err))
	s.open.Add(r)
	s.held++
	s.hasten(wait)
}

// EndRun takes in that a run is over. It is reported after the run's results.
func (s *Spool) EndRun(end *synmeshv1.RunEnd) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.load(endSize(end))
	s.ends = append(s.ends, end)
	s.hasten(0)
}

// Next waits for a report that has not been sent, and returns it. It returns
// ctx's error when that ends. One goroutine at a time may call it.
func (s *Spool) Next(ctx context.Context) (*synmeshv1.Report, error) {
	for {
		s.mu.Lock()
		if !s.due.IsZero() && !time.Now().Before(s.due) {
			s.seal()
		}
		if s.unsent < len(s.reports) {
			r := s.reports[s.unsent].report
			s.unsent++
			s.mu.Unlock()
			return r, nil
		}
		changed, due := s.changed, s.due
		s.mu.Unlock()
		if err := wait(ctx, changed, due); err != nil {
			return nil, err
		}
	}
}

// wait returns when changed is closed or the time has come.
func wait(ctx context.Context, changed <-chan struct{}, due time.Time) error {
	var alarm <-chan time.Time
	if !due.IsZero() {
		t := time.NewTimer(time.Until(due))
		defer t.Stop()
		alarm = t.C
	}
	select {
	case <-changed:
	case <-alarm:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// Rewind is called for a new session, with the sequence that the controller
// has stored: Next goes on with the report after it.
func (s *Spool) Rewind(stored uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(stored)
	s.unsent = 0
	s.notify()
}

// Acknowledge forgets the reports up to the sequence.
func (s *Spool) Acknowledge(sequence uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(sequence)
}

// Counts returns how many results are held, and how many have been dropped
// since the epoch began.
func (s *Spool) Counts() (held int, dropped uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held, s.dropped
}

// The rest is called with the lock held.

// What a result and a run's end take in a report, at most, beside their
// strings: a result may have a block of its own, and every column's widest value.
const (
	resultWeight = 280
	endWeight    = 32
)

func endSize(e *synmeshv1.RunEnd) int { return endWeight + len(e.GetRun()) + len(e.GetError()) }

// load makes sure that so many bytes more have room in the report that is open.
func (s *Spool) load(bytes int) {
	if s.weight+bytes > maxReport {
		s.seal()
	}
	s.weight += bytes
}

// seal makes a report of what is open.
func (s *Spool) seal() {
	s.sequence++
	s.reports = append(s.reports, entry{
		results: s.open.Len(),
		report:  &synmeshv1.Report{Epoch: s.epoch, Sequence: s.sequence, Blocks: s.open.Take(), RunEnds: s.ends},
	})
	s.ends, s.weight, s.due = nil, 0, time.Time{}
	s.notify()
}

// hasten has the open results reported within that time.
func (s *Spool) hasten(within time.Duration) {
	if due := time.Now().Add(within); s.due.IsZero() || due.Before(s.due) {
		s.due = due
		s.notify()
	}
}

func (s *Spool) notify() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *Spool) forget(upTo uint64) {
	n := 0
	for n < len(s.reports) && s.reports[n].report.GetSequence() <= upTo {
		s.held -= s.reports[n].results
		n++
	}
	s.remove(n)
}

// makeRoom drops what is oldest if the spool is full, and tells whether there
// is room now. What is under way stays: the controller may have stored it.
// Ends of runs are not dropped: somebody waits for each.
func (s *Spool) makeRoom() bool {
	if s.held < s.limit {
		return true
	}
	lost := s.open.Len()
	oldest := slices.IndexFunc(s.reports[s.unsent:], func(e entry) bool { return e.results > 0 })
	switch {
	case oldest >= 0:
		oldest += s.unsent
		lost = s.reports[oldest].results
		saved := s.reports[oldest].report.GetRunEnds()
		for _, e := range saved {
			s.weight += endSize(e)
		}
		s.ends = append(saved, s.ends...)
		s.reports = slices.Delete(s.reports, oldest, oldest+1)
	case lost > 0:
		s.open.Take()
	default:
		return false
	}
	s.held -= lost
	s.dropped += uint64(lost)
	return true
}

func (s *Spool) remove(n int) {
	clear(s.reports[:n])
	s.reports = s.reports[n:]
	s.unsent = max(0, s.unsent-n)
}
