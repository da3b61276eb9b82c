package spool

import (
	"context"
	"time"
)

const (
	// rollAt is how many bytes a lane may hold when a session begins without
	// another taking what is new.
	rollAt = 1 << 20
	// maxLanes bounds what a hello lists. It takes as many deaths of the process
	// without a controller to get there.
	maxLanes = 1000
)

// sending is what a Spool knows of its session. Its lock is the Spool's.
type sending struct {
	begun  bool  // a controller has told in this life of the process what it has
	credit int64 // bytes that may be under way
	flying int64 // bytes that are
	turn   bool  // whose it was last, if both are there: what is old's

	previews bool // the controller takes them
}

// flight is a report that is under way, or, with the sequence 0, what is known
// to be lost behind the one before.
type flight struct {
	segment  *segment
	sequence uint64
	size     int64
	results  uint64
	passed   uint64 // results right before it that the controller had already
	lost     Drops  // found unreadable right before it
}

// Epochs returns the epoch of what is new, and those of what is older, oldest first.
func (s *Spool) Epochs() (fresh uint64, older []uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.lanes[:len(s.lanes)-1] {
		older = append(older, l.epoch)
	}
	return s.fresh().epoch, older
}

// Begin is called for a new session, with the sequence that the controller has
// stored of each epoch, the bytes that may be under way, and whether it takes previews: Next
// goes on behind what is stored.
func (s *Spool) Begin(stored map[uint64]uint64, credit int64, previews bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begun, s.credit, s.previews = true, credit, previews
	for _, l := range s.lanes {
		upTo := max(l.mark, stored[l.epoch])
		s.land(l, upTo, 0)
		s.giveUp(l)
		l.resume = false
		s.place(l, upTo)
	}
	held := int64(0)
	for _, g := range s.fresh().segments {
		if g.last > s.fresh().mark {
			held += g.size
		}
	}
	// A mark above our last comes of a folder that was set back to what it had
	// been: those sequences are taken.
	if held > min(rollAt, s.cfg.Limit/4) && len(s.lanes) < maxLanes || s.fresh().mark > s.fresh().last {
		s.begin()
	}
	s.sweep()
	s.notify()
}

// Landed waits until nothing is under way. It returns ctx's error when that ends.
func (s *Spool) Landed(ctx context.Context) error {
	for {
		s.mu.Lock()
		changed, flying := s.changed, s.flying
		s.mu.Unlock()
		if flying == 0 {
			return nil
		}
		if err := wait(ctx, changed, time.Time{}); err != nil {
			return err
		}
	}
}

// SetCredit changes how many bytes may be under way.
func (s *Spool) SetCredit(bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.credit = bytes
	s.notify()
}

// Acknowledge forgets the reports of an epoch up to the sequence.
func (s *Spool) Acknowledge(epoch, sequence uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.laneOf(epoch); l != nil {
		s.land(l, sequence, 0)
		s.sweep()
		s.notify()
	}
}

// Reject drops a report that the controller will never store. Those behind it
// are sent again, behind a Resume.
func (s *Spool) Reject(epoch, sequence uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.laneOf(epoch)
	if l == nil {
		return
	}
	s.land(l, sequence, sequence)
	s.giveUp(l)
	s.place(l, l.mark)
	l.resume = true
	s.sweep()
	s.notify()
}

// land takes in that the flights of a lane up to a sequence have ended, one of
// them perhaps in vain. The lock is held.
func (s *Spool) land(l *lane, upTo, rejected uint64) {
	for len(l.flights) > 0 && l.flights[0].sequence <= upTo {
		f := l.flights[0]
		l.flights = l.flights[1:]
		for reason, n := range f.lost {
			if n > 0 {
				s.drop(Reason(reason), n)
				l.hold = s.counted
			}
		}
		if f.sequence != 0 {
			l.mark = f.sequence
			s.flying -= f.size
		} else {
			l.mark = max(l.mark, f.segment.last) // nothing more of it will come
		}
		if f.sequence != 0 && f.sequence == rejected {
			s.drop(Rejected, f.results)
			l.hold = s.counted
		}
		s.settle(f.segment, f.results+f.passed+f.lost.Sum())
		f.segment.flying--
	}
}

// giveUp forgets the flights of a lane that were for nothing: what they had is
// read again. The lock is held.
func (s *Spool) giveUp(l *lane) {
	for _, f := range l.flights {
		f.segment.flying--
		s.flying -= f.size
	}
	l.flights = nil
}
