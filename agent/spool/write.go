package spool

import (
	"errors"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// store is what of a Spool is on disk. Its lock is the Spool's, but for what
// the writer alone uses.
type store struct {
	segmentSize int64 // from which on another segment is begun
	lanes       []*lane
	bytes       int64  // of all segments
	end         uint64 // number of the next result that is written
	held        uint64 // results on disk that are neither stored nor dropped
	unwritten   uint64 // results that were dropped before they had a number
	drops       Drops
	counted     uint64 // counts up with every change of the counts...
	persisted   uint64 // ...and follows when they are on disk
	nextID      uint64
	gone        []*segment // to be removed as soon as the counts say so
	tail        tail       // what was written last, if it is not much

	active *os.File // the writer's; that of the newest segment, if it takes more
}

// write makes parcels durable as reports, and the counts if they have changed.
// If it returns an error, nothing has happened.
func (s *Spool) write(batch []parcel) error {
	s.mu.Lock()
	if len(batch) == 0 && s.counted == s.persisted {
		s.mu.Unlock()
		return nil
	}
	l := s.fresh()
	l.writing = true
	w := written{lane: l, last: l.last, end: s.end}
	unwritten, previews := s.unwritten, s.previews
	s.mu.Unlock()

	for i, p := range batch {
		if err := w.encode(p, unwritten); err != nil {
			s.refuse(batch, i, err)
		}
	}
	if previews && slices.ContainsFunc(batch, func(p parcel) bool { return p.preview != nil }) {
		cede()
	}
	var err error
	if s.makeRoom(&w, batch) {
		err = s.commit(&w)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l.writing = false
	s.writing = nil
	if err == nil {
		for _, p := range batch {
			s.open.GiveBack(p.blocks)
		}
		s.sweep()
		s.notify()
	}
	return err
}

// cede lets those who send a preview go first. probe-agent has one core, and a system call
// that waits, as for the disk, keeps it until the runtime's monitor takes it away. That is Next, then
// what writes to the connection, and once more, since that cedes as well before it writes.
func cede() {
	for range 3 {
		runtime.Gosched()
	}
}

// written is a batch on its way to disk.
type written struct {
	lane    *lane
	reports []byte
	last    uint64 // sequence
	end     uint64 // number after the last result
	results uint64
}

// encode numbers a parcel.
func (w *written) encode(p parcel, unwritten uint64) error {
	h := header{kind: ofReport, epoch: w.lane.epoch, sequence: w.last + 1, number: w.end, results: uint32(p.results)}
	r := &synmeshv1.Report{Epoch: h.epoch, Sequence: h.sequence, Blocks: p.blocks, RunEnds: p.ends, Produced: h.end() + unwritten}
	var runs []byte
	if p.preview != nil {
		var err error
		if runs, err = p.preview.encoded(); err != nil {
			return err
		}
		r.Preview, r.Blocks = p.preview.number, p.blocks[p.preview.blocks:]
	}
	payload, err := proto.Marshal(r)
	if err != nil {
		return err
	}
	payload = append(payload, runs...)
	w.reports = appendRecord(w.reports, h, payload)
	w.last, w.end, w.results = h.sequence, h.end(), w.results+uint64(p.results)
	return nil
}

// refuse drops a parcel of a batch that no message can be made of: the controller could
// not take it either.
func (s *Spool) refuse(batch []parcel, i int, why error) {
	p := batch[i]
	s.log.Error("a report cannot be encoded, and is dropped", "results", p.results, "reason", why)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unwritten += uint64(p.results)
	s.waiting -= p.results
	s.drop(Rejected, uint64(p.results))
	batch[i] = parcel{}
}

// makeRoom drops the oldest segments until there is room for the batch. If that
// cannot be, it drops the batch but for the ends of runs, and returns false.
func (s *Spool) makeRoom(w *written, batch []parcel) bool {
	if len(batch) == 0 {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	newest := s.newest()
	need := s.bytes + int64(len(w.reports)) - s.cfg.Limit
	for _, g := range s.gone {
		need -= g.size
	}
	for need > 0 {
		g := s.oldest(newest)
		if g == nil {
			s.unwritten += w.results
			s.waiting -= int(w.results)
			s.drop(Full, w.results)
			if w.results > 0 {
				s.keepEnds(batch)
			}
			return false
		}
		s.drop(Full, g.left)
		s.settle(g, g.left)
		g.gone = true
		s.gone = append(s.gone, g)
		need -= g.size
	}
	return true
}

// keepEnds has the ends of runs tried again without the results. The lock is held.
func (s *Spool) keepEnds(batch []parcel) {
	for _, p := range batch {
		for _, e := range p.ends {
			s.load(endSize(e))
			s.ends = append(s.ends, e)
		}
	}
	if len(s.ends) > 0 {
		s.hasten(0)
	}
}

// oldest returns the oldest segment that may be dropped: nothing of it is under
// way, nor may have been when an earlier process died.
func (s *Spool) oldest(newest *segment) *segment {
	for _, l := range s.lanes {
		for _, g := range l.segments {
			if g != newest && !g.gone && g.flying == 0 && (s.begun || !g.sent) {
				return g
			}
		}
	}
	return nil
}

// commit writes the batch behind the counts, if these have changed, and makes
// it durable.
func (s *Spool) commit(w *written) error {
	s.mu.Lock()
	g := s.newest()
	another := s.active == nil || g.lane != w.lane || g.size >= s.segmentSize
	gone, counted := len(s.gone), s.counted
	var content []byte
	if another || counted != s.persisted || gone > 0 {
		h := header{kind: ofCounts, epoch: w.lane.epoch, sequence: w.lane.last, number: s.end}
		content = appendRecord(nil, h, s.counts().append(nil))
	}
	content = append(content, w.reports...)
	id := s.nextID
	s.mu.Unlock()

	if another {
		f, err := s.folder.create(id, content)
		if err != nil {
			return s.abandon(err)
		}
		if err := s.closeActive(); err != nil {
			s.log.Warn("a segment of the spool was not closed well", "reason", err)
		}
		s.active = f
	} else if _, err := s.active.WriteAt(content, g.size); err != nil {
		return s.abandon(errors.Join(err, s.active.Truncate(g.size)))
	} else if err := syncData(s.active); err != nil {
		return s.abandon(errors.Join(err, s.active.Truncate(g.size)))
	}

	s.mu.Lock()
	if another {
		g = &segment{id: id, lane: w.lane, start: s.end, end: s.end, last: w.lane.last}
		w.lane.segments = append(w.lane.segments, g)
		s.nextID++
	}
	s.tail = tail{}
	if len(content) <= maxTail {
		s.tail = tail{g, g.size, content}
	}
	g.size += int64(len(content))
	g.end, g.last, g.left = w.end, w.last, g.left+w.results
	w.lane.last, s.end = w.last, w.end
	s.bytes += int64(len(content))
	s.held += w.results
	s.waiting -= int(w.results)
	s.writing = nil // before Next sees that the reports are there
	s.persisted = counted
	dropped := s.gone[:gone:gone]
	s.mu.Unlock()
	s.removeGone(dropped)
	return nil
}

// abandon gives a segment up after an error: what is in it behind what was
// durable before is unknown. The next write begins another.
func (s *Spool) abandon(err error) error {
	_ = s.closeActive() // there is an error already
	return err
}

func (s *Spool) closeActive() (err error) {
	if s.active != nil {
		err = s.active.Close()
		s.active = nil
	}
	return err
}

// removeGone removes segments that were dropped, for good before the counts say
// anything else. Whoever adds results does not wait for it.
func (s *Spool) removeGone(dropped []*segment) {
	if len(dropped) == 0 {
		return
	}
	for _, g := range dropped {
		s.removeFile(g)
	}
	if err := s.folder.sync(); err != nil {
		s.log.Warn("the spool's folder cannot be synced", "reason", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range dropped {
		s.bytes -= g.size
	}
	s.gone = s.gone[len(dropped):]
}

// counts is what is to be known for ever, as of now. The lock is held.
func (s *Spool) counts() *counts {
	c := &counts{unwritten: s.unwritten, drops: s.drops}
	for _, l := range s.lanes {
		if len(l.segments) > 0 {
			c.marks = append(c.marks, mark{l.epoch, l.mark})
		}
	}
	for _, g := range s.gone {
		c.gone = append(c.gone, g.id)
	}
	return c
}

func (s *Spool) dirty() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counted != s.persisted
}

// begin adds a lane, which takes what is new from now on.
func (s *Spool) begin() {
	s.lanes = append(s.lanes, &lane{epoch: rand.Uint64()})
}
