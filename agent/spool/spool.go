// Package spool keeps an agent's results, as numbered reports, until the
// controller has acknowledged them. Call Open, then Run.
//
// Reports are kept in a folder, and are on the disk for good before they are
// sent, 250 ms after the result unless the disk or the host is slow: so an agent may be killed at any
// time, and a sequence that the controller knows is never used for anything
// else. What had been produced less than that before is lost with the process,
// and was never numbered or counted as produced.
//
// Who asked for a run need not wait for the disk: of its results a Preview is sent while they
// are on their way there. It counts for nothing else.
//
// The spool is bounded. When it is full it drops what is oldest and may not be
// under way. Whatever it drops it counts, by reason; so every result is
// acknowledged, held or dropped, and only one of these, over all lives of the process.
//
// Reports are numbered in lanes, each with an epoch of its own. Only the last
// takes what is new. A process begins one, and so does a session that finds
// much that is not stored: then what is new does not wait behind what is old,
// although either is acknowledged in its order.
package spool

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
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

func ofRuns(source string) bool { return strings.HasPrefix(source, RunPrefix) }

const (
	defaultLimit = 1 << 30
	maxReport    = 960 << 10 // bytes of one report; the controller takes messages of 1 MiB
	maxQueue     = 64 << 20  // bytes of reports that wait for the disk, at most
	maxBatch     = 8 << 20   // of those that are written at once
	maxTail      = 256 << 10 // of what was written last, and is kept at hand
	maxPreview   = 256 << 10 // of a report of which there is a preview
	hurry        = 5 * time.Millisecond
	leisure      = 200 * time.Millisecond
	retryEvery   = time.Second // when the disk takes nothing
)

// Config says where the spool is. Dir must be given.
type Config struct {
	// Dir is a folder of the spool's own. It is made if it is not there.
	Dir string
	// Limit bounds the bytes on disk; 0 is 1 GiB.
	Limit int64
	// Gather is how long the results of measurements wait for others to share a
	// report with; 0 is 200 ms. Those of runs wait for 5 ms.
	Gather time.Duration
	// MaxReport bounds the bytes of one report, as far as they can be told before
	// it is made; 0 is 960 KiB, of the 1 MiB that the controller takes.
	MaxReport int
	Logger    *slog.Logger // nil discards
}

// Spool is safe for concurrent use.
type Spool struct {
	cfg    Config
	log    *slog.Logger
	folder *folder

	mu      sync.Mutex
	changed chan struct{} // closed at the next change of what may be sent
	todo    chan struct{} // holds one if the writer has to look
	alarm   *time.Timer   // goes off when the open results are due

	gathering
	store
	sending
}

// Status is what has become of all results that were ever taken in.
type Status struct {
	// Produced is how many those are. Each is stored at the controller, held or dropped.
	Produced uint64
	Held     uint64
	Pending  uint64 // of Held, those that are not on disk yet
	Dropped  Drops
}

// Open opens a spool, or makes one. What cannot be read is counted and passed
// over. The error says why the folder cannot be used.
func Open(cfg Config) (*Spool, error) {
	if cfg.Dir == "" {
		return nil, fmt.Errorf("spool: no folder is given")
	}
	cfg.Limit = cmp.Or(cfg.Limit, defaultLimit)
	cfg.Gather = cmp.Or(cfg.Gather, leisure)
	cfg.MaxReport = cmp.Or(cfg.MaxReport, maxReport)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	f, err := openFolder(cfg.Dir)
	if err != nil {
		return nil, err
	}
	s := &Spool{
		cfg: cfg, log: cfg.Logger.With("spool", cfg.Dir), folder: f, changed: make(chan struct{}), todo: make(chan struct{}, 1), alarm: time.NewTimer(0),
		gathering: gathering{open: convert.Blocks{KeepSeq: ofRuns}},
		store:     store{segmentSize: min(max(cfg.Limit/64, 4<<10), 8<<20)},
	}
	if err := s.recover(); err != nil {
		_ = f.close() // the first error is the one that counts
		return nil, err
	}
	return s, nil
}

// Add takes in a result, which the caller may use again.
func (s *Spool) Add(r *probe.Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	wait := s.cfg.Gather
	s.load(resultWeight + len(r.Source) + len(r.Target) + len(r.Err))
	s.open.Add(r)
	if ofRuns(r.Source) {
		wait = min(wait, hurry)
		if !s.urgent {
			s.urgent = true
			s.notify()
		}
	}
	s.hasten(wait)
}

// EndRun takes in that a run is over. It is reported after the run's results.
func (s *Spool) EndRun(end *synmeshv1.RunEnd) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.load(endSize(end))
	s.ends = append(s.ends, end)
	s.hasten(0)
	if s.urgent {
		s.notify()
	}
}

// Status returns the counts of this moment.
func (s *Spool) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	pending := uint64(s.waiting + s.open.Len())
	return Status{Produced: s.end + s.unwritten + pending, Held: s.held + pending, Pending: pending, Dropped: s.drops}
}

// Run writes what is taken in until ctx ends; then it writes what there is, and
// closes the spool. Nothing may be added any more by then.
func (s *Spool) Run(ctx context.Context) error {
	failing := false
	for ctx.Err() == nil {
		batch := s.take(ctx)
		err := s.write(batch)
		s.failed(err, &failing)
		if err != nil {
			s.giveBack(batch)
			pause(ctx, retryEvery)
		}
	}
	for batch := s.takeAll(); len(batch) > 0 || s.dirty(); batch = s.takeAll() {
		if err := s.write(batch); err != nil {
			s.failed(err, &failing)
			break // the process ends, and they with it
		}
	}
	return s.Close()
}

// failed tells once that the disk takes nothing, and once that it does again.
func (s *Spool) failed(err error, before *bool) {
	switch {
	case err != nil && !*before:
		s.log.Error("results cannot be written to disk; they wait in memory as far as there is room", "reason", err)
	case err == nil && *before:
		s.log.Info("results are written to disk again")
	}
	*before = err != nil
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failing = err != nil
}

// Close gives the folder free. It is for a Spool that has not run: Run closes it.
func (s *Spool) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.closeActive()
	if e := s.folder.close(); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("spool: close: %w", err)
	}
	return nil
}

// prompt wakes the writer.
func (s *Spool) prompt() {
	select {
	case s.todo <- struct{}{}:
	default:
	}
}

// notify wakes all who wait for something to send, or for its end. The lock is held.
func (s *Spool) notify() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// wait returns when changed is closed or the time has come, if there is one.
func wait(ctx context.Context, changed <-chan struct{}, due time.Time) error {
	select {
	case <-changed:
		return nil
	default:
	}
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

func pause(ctx context.Context, d time.Duration) {
	_ = wait(ctx, nil, time.Now().Add(d)) // the caller looks at ctx
}
