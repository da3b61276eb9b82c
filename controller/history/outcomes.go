package history

import (
	"context"
	"encoding/binary"
	"fmt"
	"iter"
	"math"
	"sync"
	"time"

	"github.com/synmesh/synmesh/internal/convert"
	"github.com/synmesh/synmesh/probe"
	synmeshv1 "github.com/synmesh/synmesh/proto/synmesh/v1"
)

// Outcomes are those of the results of one report.
type Outcomes struct {
	Cursor Cursor
	Agent  string
	// Results are in no order. There are none of a report that convert.CheckReport refuses.
	Results []Found
}

// Found is what a result comes down to.
type Found struct {
	Target  []byte
	Outcome probe.Outcome
	Timed   bool
	RTT     time.Duration // 0 unless it is timed
}

// Add adds the results of a report.
func (o *Outcomes) Add(r *synmeshv1.Report) {
	if convert.CheckReport(r) == nil {
		o.Results = appendFound(o.Results, r)
	}
}

// appendFound appends the results of a report that convert.CheckReport has passed.
func appendFound(list []Found, r *synmeshv1.Report) []Found {
	for i, b := range r.GetBlocks() {
		target := []byte(b.GetTarget())
		if len(b.GetNotes()) > 0 { // which may say that a result is not timed
			for row := range convert.Rows("", &synmeshv1.Report{Blocks: r.GetBlocks()[i : i+1]}) {
				list = append(list, Found{target, row.Outcome, row.Timed(), row.RTT})
			}
			continue
		}
		for row, o := range b.GetOutcomes() {
			list = append(list, found(target, probe.Outcome(o), b.GetRtts()[row]))
		}
	}
	return list
}

// found returns what a result without a note comes down to.
func found(target []byte, o probe.Outcome, rtt int64) Found {
	if !o.Answered() {
		return Found{Target: target, Outcome: o}
	}
	return Found{target, o, true, time.Duration(rtt)}
}

// ScanOutcomes is Scan for those who follow all that is stored, and need to know little of it: it
// costs a fraction, and so does not give way to the intake. It gives as many Outcomes as Scan gives entries, in the same order. The
// Results of each are valid until the next, or until there are no more.
func (s *Store) ScanOutcomes(ctx context.Context, after Cursor) iter.Seq2[Outcomes, error] {
	return func(yield func(Outcomes, error) bool) {
		if err := s.scanOutcomes(ctx, after, yield); err != nil {
			yield(Outcomes{}, fmt.Errorf("history: scan of outcomes: %w", err))
		}
	}
}

// outcomeReader reads outcomes page by page.
type outcomeReader struct {
	reader
	outcomeDecoder
}

// outcomeReaders are those that nobody uses, for their memory: whoever follows asks again and again.
var outcomeReaders = sync.Pool{New: func() any { return new(outcomeReader) }}

func (s *Store) scanOutcomes(ctx context.Context, after Cursor, yield func(Outcomes, error) bool) error {
	r := outcomeReaders.Get().(*outcomeReader)
	defer outcomeReaders.Put(r)
	r.next, r.end, r.window, r.page.limit = 0, math.MaxUint64, 0, 0
	return walk(ctx, s, &r.reader, after, func(p whereabouts) (iter.Seq[Outcomes], bool, error) { return s.outcomes(r, p) }, yield)
}

// outcomes reads the next ones of a place; more tells whether there are others.
func (s *Store) outcomes(r *outcomeReader, p whereabouts) (list iter.Seq[Outcomes], more bool, err error) {
	if p.archive != nil {
		entries, more, err := s.archivedEntries(&r.reader, p.archive, Filter{})
		return func(yield func(Outcomes) bool) {
			for e := range entries {
				o := Outcomes{Cursor: e.Cursor, Agent: e.Agent}
				o.Add(e.Report)
				if !yield(o) {
					return
				}
			}
		}, more, err
	}
	more, err = s.readPage(&r.reader, p.intake)
	return func(yield func(Outcomes) bool) {
		for _, row := range r.page.rows {
			o := Outcomes{Cursor: binary.BigEndian.AppendUint64(nil, row.at), Agent: row.agent}
			if r.decode(r.page.buf[row.start:row.end]) {
				o.Results = r.found
			} else if report, ok := s.unmarshal(p.intake, &r.page, row); ok {
				o.Add(report)
			} else {
				continue
			}
			if !yield(o) {
				return
			}
		}
	}, more, err
}

// outcomeDecoder takes from encoded reports what Found has, without making messages of what is usual.
type outcomeDecoder struct {
	found   []Found // of the last report
	checker convert.Checker
	decoder decoder
	alone   synmeshv1.Report // the block that is decoded
}

const (
	// maxFound is room for how many results is kept.
	maxFound = 1 << 16
	// maxShaped is how long a block may be, in bytes, for which it is worth looking for a shape.
	maxShaped = 255
)

// decode fills found; ok is false if the report is encoded as no agent of today does it, tells of
// the ends of runs, or is not right.
func (d *outcomeDecoder) decode(data []byte) (ok bool) {
	if d.found = d.found[:0]; cap(d.found) > maxFound {
		d.found = nil
	}
	_ = d.checker.Check(nil) // it forgets what is in the bytes of the last report
	for len(data) > 0 {
		var f field
		if data, ok = f.next(data); !ok {
			return false
		}
		switch f.key {
		case 1<<3 | fixed64, 2<<3 | varint, 5<<3 | varint, 6<<3 | varint:
		case 3<<3 | bytesType:
			if !d.block(f.bytes) {
				return false
			}
		default:
			return false
		}
	}
	return true
}

func (d *outcomeDecoder) block(data []byte) (ok bool) {
	if len(data) > maxShaped {
		return d.blockSlowly(data)
	}
	s := d.checker.Shape(data)
	if s == nil {
		return d.blockSlowly(data)
	}
	target, rtts := s.Field(data, targetField), s.Field(data, rttsField)
	for _, o := range s.Field(data, outcomesField) { // what has a shape has no notes
		rtt, n := uvarint(rtts)
		rtts = rtts[n:]
		d.found = append(d.found, found(target, probe.Outcome(o), int64(rtt)))
	}
	return true
}

// blockSlowly does it with a block that is long, or has notes.
func (d *outcomeDecoder) blockSlowly(data []byte) bool {
	d.decoder.begin()
	b, ok := d.decoder.nextBlock(data)
	d.alone.Blocks = append(d.alone.Blocks[:0], b)
	if !ok || convert.CheckReport(&d.alone) != nil {
		return false
	}
	d.found = appendFound(d.found, &d.alone)
	return true
}
