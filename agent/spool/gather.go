package spool

import (
	"context"
	"time"

	"github.com/synmesh/synmesh/internal/convert"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// gathering is what of a Spool is in memory alone. Its lock is the Spool's.
type gathering struct {
	open    convert.Blocks // results that are in no parcel yet
	weight  int            // the bytes that they and the ends will be, at most
	ends    []*synmeshv1.RunEnd
	due     time.Time // when the open results are to be written; zero if there are none
	urgent  bool      // some of them are a run's
	queue   []parcel  // to be written
	writing []parcel  // being written
	numbers uint64    // of previews
	queued  int       // their bytes, at most
	waiting int       // results in the queue, and in what is being written
	failing bool      // the disk takes nothing
}

// parcel is a report before it has a number: it gets one with its place on disk.
type parcel struct {
	blocks  []*synmeshv1.ResultBlock
	ends    []*synmeshv1.RunEnd
	results int
	weight  int
	preview *preview // of its results of runs; nil: there is none
}

// What a result and a run's end take in a report, at most, beside their
// strings: a result may have a block of its own, and every column's widest value.
const (
	resultWeight = 280
	endWeight    = 32
)

func endSize(e *synmeshv1.RunEnd) int { return endWeight + len(e.GetRun()) + len(e.GetError()) }

// take waits for something to write, and returns it: parcels, or none if only
// the counts have changed or ctx has ended.
func (s *Spool) take(ctx context.Context) []parcel {
	for {
		s.mu.Lock()
		if !s.due.IsZero() && !time.Now().Before(s.due) {
			s.seal()
		}
		if len(s.queue) > 0 || s.counted != s.persisted {
			batch := s.pick()
			s.mu.Unlock()
			return batch
		}
		s.mu.Unlock()
		select {
		case <-s.todo:
		case <-s.alarm.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// takeAll is take for the end: it does not wait.
func (s *Spool) takeAll() []parcel {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open.Len() > 0 || len(s.ends) > 0 {
		s.seal()
	}
	return s.pick()
}

// giveBack returns what could not be written to the head of the queue.
func (s *Spool) giveBack(batch []parcel) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range batch {
		s.queued += p.weight
	}
	s.writing, s.queue = nil, append(batch, s.queue...)
	s.trim()
}

// The rest is called with the lock held.

// load makes sure that so many bytes more have room in the report that is open.
func (s *Spool) load(bytes int) {
	if s.weight+bytes > s.cfg.MaxReport && s.weight > 0 {
		s.seal()
	}
	s.weight += bytes
}

// hasten has the open results written within that time.
func (s *Spool) hasten(within time.Duration) {
	if due := time.Now().Add(within); s.due.IsZero() || due.Before(s.due) {
		s.due = due
		s.alarm.Reset(within)
	}
}

// seal puts what is open into the queue.
func (s *Spool) seal() {
	p := parcel{results: s.open.Len(), blocks: s.open.Take(), ends: s.ends, weight: s.weight}
	if s.urgent && p.weight <= maxPreview {
		s.foresee(&p)
	}
	s.ends, s.weight, s.due, s.urgent = nil, 0, time.Time{}, false
	s.queue = append(s.queue, p)
	s.queued += p.weight
	s.waiting += p.results
	s.trim()
	s.prompt()
}

// trim drops the oldest results of a queue that is too long. Ends of runs stay:
// somebody waits for each.
func (s *Spool) trim() {
	var ends []*synmeshv1.RunEnd
	for len(s.queue) > 1 && s.queued > maxQueue {
		p := s.queue[0]
		s.queue = s.queue[1:]
		s.queued -= p.weight
		s.waiting -= p.results
		reason := Full
		if s.failing {
			reason = Disk
		}
		s.unwritten += uint64(p.results)
		s.drop(reason, uint64(p.results))
		ends = append(ends, p.ends...)
	}
	if len(ends) == 0 {
		return
	}
	keep := s.parcels(ends)
	for _, p := range keep {
		s.queued += p.weight
	}
	s.queue = append(keep, s.queue...)
}

// parcels puts ends into parcels, none of which is larger than a report may be.
func (s *Spool) parcels(ends []*synmeshv1.RunEnd) (all []parcel) {
	for _, e := range ends {
		size := endSize(e)
		if n := len(all); n == 0 || all[n-1].weight+size > s.cfg.MaxReport {
			all = append(all, parcel{})
		}
		p := &all[len(all)-1]
		p.ends, p.weight = append(p.ends, e), p.weight+size
	}
	return all
}

// pick takes the oldest parcels out of the queue, as many as are written at once.
func (s *Spool) pick() []parcel {
	n, bytes := 0, 0
	for n < len(s.queue) && (n == 0 || bytes+s.queue[n].weight <= maxBatch) {
		bytes += s.queue[n].weight
		n++
	}
	batch := s.queue[:n:n]
	if s.queue = s.queue[n:]; len(s.queue) == 0 {
		s.queue = nil // lets go of what was written
	}
	s.queued -= bytes
	s.writing = batch
	return batch
}
