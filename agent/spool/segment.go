package spool

import (
	"errors"
	"fmt"
	"slices"
)

// segment is a file of reports of one lane. The counts are its first record.
type segment struct {
	id     uint64
	lane   *lane
	size   int64  // bytes that are durable
	start  uint64 // number of its first result
	end    uint64 // number after its last
	last   uint64 // sequence of its last report, or of the one before it
	left   uint64 // results in it that are neither stored nor dropped
	sent   bool   // something in it has been sent, perhaps in an earlier life
	flying int    // its reports that are under way
	gone   bool   // what was in it has been dropped
}

// lane is the reports of one epoch.
type lane struct {
	epoch    uint64
	mark     uint64     // the sequence up to which all is stored or dropped
	last     uint64     // that of the last report on disk
	segments []*segment // oldest first
	writing  bool       // more is on its way to disk
	hold     uint64     // nothing is sent or removed until the counts of that moment are on disk

	// In a session:
	next    position
	placed  int    // how often next was set to something that was read before
	sent    uint64 // the sequence of the last report that was sent
	flights []flight
	resume  bool // a report was rejected, and the controller waits for a word
}

// position is where in a lane reading goes on.
type position struct {
	segment *segment // nil: at the first there will be
	at      int64
	number  uint64 // of the next result
}

// place has a lane read from behind the sequence, or behind its mark if that is
// higher, and settles what stands before it.
func (s *Spool) place(l *lane, sequence uint64) {
	l.mark = max(l.mark, sequence)
	l.sent = l.mark
	l.next = position{}
	l.placed++
	for _, g := range l.segments {
		if g.gone || g.last <= l.mark {
			s.settle(g, g.left)
			continue
		}
		at, number := s.find(g, l.mark)
		s.settle(g, g.left-min(g.left, g.end-number))
		l.next = position{g, at, number}
		return
	}
	if n := len(l.segments); n > 0 {
		g := l.segments[n-1]
		l.next = position{g, g.size, g.end}
	}
}

// settle counts so many results of a segment as no longer held.
func (s *Spool) settle(g *segment, results uint64) {
	results = min(results, g.left)
	g.left -= results
	s.held -= results
}

// drop counts results.
func (s *Spool) drop(r Reason, results uint64) {
	s.drops[r] += results
	s.counted++
	s.prompt()
}

// sweep removes the segments that are done with, but never the newest, which
// has the counts; and the lanes that have none left, but never the last.
func (s *Spool) sweep() {
	newest := s.newest()
	for _, l := range s.lanes {
		if l.hold > s.persisted {
			continue // the file is all that tells of what was dropped
		}
		l.segments = slices.DeleteFunc(l.segments, func(g *segment) bool {
			done := g.gone || g.left == 0 && l.mark >= g.last && g.flying == 0
			if !done || g == newest {
				return false
			}
			if !g.gone {
				s.remove(g)
				g.gone = true
			}
			return true
		})
	}
	last := s.fresh()
	s.lanes = slices.DeleteFunc(s.lanes, func(l *lane) bool {
		return l != last && len(l.segments) == 0 && !l.writing && len(l.flights) == 0 && !l.resume
	})
}

// remove removes a segment with all that was in it.
func (s *Spool) remove(g *segment) {
	s.bytes -= g.size
	s.removeFile(g)
}

// removeFile removes a segment's file. What cannot be removed is only in the way
// until the next start.
func (s *Spool) removeFile(g *segment) {
	err := errors.Join(removeIfThere(s.folder.name(g.id, false)), removeIfThere(s.folder.name(g.id, true)))
	if err != nil {
		s.log.Warn("a segment of the spool cannot be removed", "reason", err)
	}
}

// newest returns the segment that was begun last, or nil.
func (s *Spool) newest() (newest *segment) {
	for _, l := range s.lanes {
		if n := len(l.segments); n > 0 && (newest == nil || l.segments[n-1].id > newest.id) {
			newest = l.segments[n-1]
		}
	}
	return newest
}

// fresh returns the lane that takes what is new.
func (s *Spool) fresh() *lane { return s.lanes[len(s.lanes)-1] }

func (s *Spool) laneOf(epoch uint64) *lane {
	for _, l := range s.lanes {
		if l.epoch == epoch {
			return l
		}
	}
	return nil
}

func (g *segment) String() string { return fmt.Sprintf("%016x", g.id) }
