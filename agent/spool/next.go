package spool

import (
	"context"
	"os"
	"time"
)

// maxOld is how many old reports may be under way. The controller stores an
// agent's reports one after the other, in about a millisecond each.
const maxOld = 64

// Next waits for what is to be sent next, and returns it as an encoded
// SessionRequest: a report, a resume or a preview. It returns ctx's error when that ends. What is new and what is old take turns,
// but of what is old only so much is under way that what is new does not wait
// long behind it. There is a preview only if all that is new and on disk has been sent: it takes
// no report's place, and never comes after its own. One goroutine at a time may call it.
func (s *Spool) Next(ctx context.Context) ([]byte, error) {
	for {
		s.mu.Lock()
		changed := s.changed
		var old, fresh *lane
		var again time.Time // never
		if s.begun {
			if m := s.resumed(); m != nil {
				s.mu.Unlock()
				return m, nil
			}
			old, fresh = s.unsent()
		}
		var early *preview
		if s.previews && fresh == nil {
			if early = s.unseen(); early == nil && s.urgent {
				again = s.due
			}
		}
		s.mu.Unlock()
		if early != nil {
			if blocks, err := early.encoded(); err == nil { // or the writer tells
				return previewMessage(early.number, blocks), nil
			}
			continue
		}
		first, second := fresh, old
		if !s.turn {
			first, second = old, fresh
		}
		for _, l := range []*lane{first, second} {
			if l == nil {
				continue
			}
			m, err := s.launch(l, l == old)
			if err != nil {
				changed, again = nil, time.Now().Add(retryEvery) // whatever changes before
			}
			if m != nil {
				s.turn = l == old
				return m, nil
			}
		}
		if err := wait(ctx, changed, again); err != nil {
			return nil, err
		}
	}
}

// resumed returns the word that a controller waits for, if a rejected report
// counts as dropped for good. The lock is held.
func (s *Spool) resumed() []byte {
	for _, l := range s.lanes {
		if l.resume && l.hold <= s.persisted {
			l.resume = false
			return resumeMessage(l.epoch)
		}
	}
	return nil
}

// unsent returns the oldest lane but the last that has something to be sent,
// and the last if it has; nil for none. The lock is held.
func (s *Spool) unsent() (old, fresh *lane) {
	for i, l := range s.lanes {
		switch {
		case l.hold > s.persisted || !s.ahead(l):
		case i == len(s.lanes)-1:
			fresh = l
		case old == nil:
			old = l
		}
	}
	return old, fresh
}

// ahead tells whether there is something of a lane that has not been read. The lock is held.
func (s *Spool) ahead(l *lane) bool {
	if n := len(l.segments); n > 0 {
		p := s.at(l)
		return p.segment != l.segments[n-1] || p.at < p.segment.size
	}
	return false
}

// at returns where reading goes on in a lane that has segments. The lock is held.
func (s *Spool) at(l *lane) position {
	p := l.next
	switch {
	case p.segment == nil:
		p = position{segment: l.segments[0], number: l.segments[0].start}
	case p.segment.gone: // and what it had is counted
		for _, g := range l.segments {
			if g.id > p.segment.id {
				return position{segment: g, number: g.start}
			}
		}
		newest := l.segments[len(l.segments)-1]
		return position{segment: newest, at: newest.size, number: newest.end}
	}
	return p
}

// launch returns the next report of a lane as under way, in its message, or nil if
// there is none or the credit does not reach. The error is errLater.
func (s *Spool) launch(l *lane, old bool) ([]byte, error) {
	s.mu.Lock()
	for {
		if !s.ahead(l) {
			s.mu.Unlock()
			return nil, nil
		}
		p := s.at(l)
		if p.segment.gone {
			l.next = p
			continue
		}
		g, size := p.segment, p.segment.size
		final := g != l.segments[len(l.segments)-1] || l != s.fresh() && !l.writing
		end := g.end
		sent, placed := l.sent, l.placed
		g.flying++ // keeps it
		s.mu.Unlock()
		f, m, after, err := s.read(g, p, size, end, sent)
		s.mu.Lock()
		g.flying--
		switch {
		case err != nil:
			s.mu.Unlock()
			return nil, err
		case l.placed != placed: // a report before it was rejected
			s.mu.Unlock()
			return nil, nil
		case m != nil && !s.affords(f.size, old):
			s.mu.Unlock()
			return nil, nil
		case m != nil:
			s.fly(l, f, after)
			return m, nil
		case final:
			// Nothing comes behind it: what is missing is known.
			after.number = end
			l.next = after
			s.advance(l, g)
			l.flights = append(l.flights, f)
			g.flying++
			if l.flights[0].sequence == 0 {
				s.land(l, 0, 0)
			}
			s.sweep()
			s.notify() // another lane may be next
		default:
			// What comes behind will tell how much is missing.
			s.settle(g, f.passed)
			l.next = position{g, size, p.number + f.passed}
		}
	}
}

// advance goes on to the segment behind one that has been read. The lock is held.
func (s *Spool) advance(l *lane, read *segment) {
	for _, g := range l.segments {
		if g.id > read.id {
			l.next = position{segment: g, number: g.start}
			return
		}
	}
}

// affords tells whether so many bytes more may be under way. One report may always. The lock is held.
func (s *Spool) affords(size int64, old bool) bool {
	if s.flying == 0 {
		return true
	}
	if !old {
		return s.flying+size <= s.credit
	}
	flights := 0
	for _, l := range s.lanes[:len(s.lanes)-1] {
		flights += len(l.flights)
	}
	return flights < maxOld && s.flying+size <= s.credit/2
}

// fly takes in that a report is sent, and gives the lock free. That something
// of the segment has been sent is durable before it is.
func (s *Spool) fly(l *lane, f flight, after position) {
	l.flights = append(l.flights, f)
	l.next, l.sent = after, f.sequence
	f.segment.flying++
	s.flying += f.size
	first := !f.segment.sent
	f.segment.sent = true
	s.mu.Unlock()
	if !first {
		return
	}
	err := os.Rename(s.folder.name(f.segment.id, false), s.folder.name(f.segment.id, true))
	if err == nil {
		err = s.folder.sync()
	}
	if err != nil {
		s.log.Warn("a segment of the spool cannot be marked as sent", "reason", err)
	}
}
