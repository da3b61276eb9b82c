package spool

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
)

// found is a segment as it was when the spool was opened.
type found struct {
	segment
	epoch  uint64
	before uint64 // the last sequence before it
	counts *counts
	reads  bool   // there is a whole header in it
	lost   uint64 // results in it, if there is none
}

// recover learns from the folder what earlier lives of the process have left.
func (s *Spool) recover() error {
	files, err := s.folder.list()
	if err != nil {
		return err
	}
	all := make([]*found, len(files))
	var behind *found // the next that can be read
	for i := len(files) - 1; i >= 0; i-- {
		content, err := os.ReadFile(s.folder.name(files[i].id, files[i].sent))
		if err != nil && !hopeless(err) {
			return fmt.Errorf("spool: %w; see to it, or move the file away and lose what is in it", err)
		}
		if err != nil {
			s.log.Error("a segment of the spool cannot be read", "segment", files[i].id, "reason", err)
		}
		all[i] = inspect(files[i], content, behind)
		if all[i].reads {
			behind = all[i]
		}
	}
	if n := len(files); n > 0 {
		// What can be read of the newest need not be on the disk yet.
		if err := syncPath(s.folder.name(files[n-1].id, files[n-1].sent)); err != nil {
			s.log.Error("the newest segment of the spool cannot be synced; a power cut may lose what is in it", "reason", err)
		}
	}
	s.adopt(all)
	// What the process before was writing when it died has had its sequence: a
	// lane of its own is for what this one writes. Only a process that dies very
	// often goes on with the last lane, far enough behind.
	if len(s.lanes) < maxLanes {
		s.begin()
	} else {
		s.fresh().last += 1<<32 + uint64(rand.Uint32())
	}
	s.sweep()
	return nil
}

// inspect reads what there is in a segment. What stands in the next segment as
// well was not durable when that was begun, and does not count.
func inspect(f file, content []byte, behind *found) *found {
	g := &found{segment: segment{id: f.id, sent: f.sent}}
	r, size := bytes.NewReader(content), int64(len(content))
	for from := int64(0); ; {
		h, at, err := nextHeader(r, from, size)
		if err != nil || g.reads && h.epoch != g.epoch ||
			behind != nil && (h.end() > behind.start || h.epoch == behind.epoch && h.sequence > behind.before) {
			break
		}
		if !g.reads {
			g.reads, g.epoch, g.start, g.before = true, h.epoch, h.number, h.sequence
			if h.kind == ofReport {
				g.before = h.sequence - 1
			}
		}
		if payload, err := readPayload(r, h, at, size); err == nil && h.kind == ofCounts {
			if c, err := parseCounts(payload); err == nil {
				g.counts = &c
			}
		}
		g.end, g.last = h.end(), h.sequence
		from = min(at+h.size(), size)
		g.size = from
	}
	if g.reads && behind != nil && behind.id == g.id+1 {
		g.end = behind.start // whatever can be read of it
	}
	g.left = g.end - g.start
	return g
}

// adopt takes the segments over that can be read, with what was counted.
func (s *Spool) adopt(all []*found) {
	gone := make(map[uint64]bool)
	marks := make(map[uint64]uint64)
	for i, g := range all {
		s.nextID = g.id + 1
		if !g.reads {
			s.lose(all, i)
			continue
		}
		if g.counts != nil {
			s.unwritten = g.counts.unwritten
			s.drops = g.counts.drops
			for _, id := range g.counts.gone {
				gone[id] = true
			}
			for _, m := range g.counts.marks {
				marks[m.epoch] = max(marks[m.epoch], m.sequence)
			}
		}
		s.end = max(s.end, g.end)
	}
	for _, g := range all {
		if g.lost > 0 {
			s.drop(Corrupt, g.lost)
		}
	}
	for i, g := range all {
		seg := &g.segment
		newest := i == len(all)-1
		if !g.reads || gone[g.id] && !newest {
			s.bytes += seg.size
			s.remove(seg)
			continue
		}
		l := s.laneOf(g.epoch)
		if l == nil {
			l = &lane{epoch: g.epoch}
			s.lanes = append(s.lanes, l)
		}
		seg.lane = l
		l.segments = append(l.segments, seg)
		l.last = max(l.last, seg.last)
		s.bytes += seg.size
		s.held += seg.left
	}
	for _, l := range s.lanes {
		s.place(l, marks[l.epoch])
	}
}

// lose counts what was in a segment of which nothing can be read, as far as its
// neighbours tell.
func (s *Spool) lose(all []*found, i int) {
	g, lost := all[i], uint64(0)
	if i > 0 && i+1 < len(all) && all[i-1].reads && all[i+1].reads && all[i-1].id == g.id-1 && all[i+1].id == g.id+1 {
		lost = all[i+1].start - all[i-1].end
	}
	s.log.Error("a segment of the spool is no such thing, and is removed", "segment", fmt.Sprintf("%016x", g.id), "results_lost", lost)
	g.lost = lost
}
