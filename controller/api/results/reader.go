package results

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/synmesh/synmesh/controller/history"
	"github.com/synmesh/synmesh/internal/convert"
	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

const (
	// maxPart is what the results of one message of a stream take, in bytes: it is what a reader
	// that is not read holds.
	maxPart = 256 << 10
	// stride is how much of the history is read before the reader says how far it has come.
	stride = time.Hour
	// sayWithin is how long a stream is silent while the history is read.
	sayWithin = 5 * time.Second
)

// reader gives what is stored, in messages of bounded size, to whoever takes them. It
// holds one message, and one page of the history.
type reader struct {
	history History
	wanted  *selection
	filter  history.Filter
	send    func(results []*synmeshv1.Result, from, to mark) error

	given mark // to the one who takes
	done  mark // of which the results are given or held
	held  []*synmeshv1.Result
	bytes int
	said  time.Time // when something was given
}

func (r *reader) begin(at mark, wanted *selection) {
	r.given, r.done, r.said = at, at, time.Now()
	r.choose(wanted)
}

func (r *reader) choose(wanted *selection) { r.wanted, r.filter = wanted, wanted.filter() }

// say gives what is held, maybe nothing, and how far that is.
func (r *reader) say() error {
	held := r.held
	r.held, r.bytes = nil, 0
	return r.give(held, r.done)
}

func (r *reader) give(results []*synmeshv1.Result, to mark) error {
	from := r.given
	r.given, r.said = to, time.Now()
	return r.send(results, from, to)
}

// readTo goes on to an entry, and gives all results up to there.
func (r *reader) readTo(ctx context.Context, last history.Cursor) error {
	if r.done.rows != allRows {
		if err := r.split(ctx, "", r.done); err != nil {
			return err
		}
	}
	for r.done.entry.Compare(last) < 0 {
		upTo := history.CursorAt(r.done.entry.Stored().Add(stride))
		if upTo.Compare(last) > 0 {
			upTo = last
		}
		for e, err := range r.history.ScanSeries(ctx, r.filter, time.Time{}, upTo.Stored().Add(1), r.done.entry) {
			if err != nil {
				return failed(ctx, err)
			}
			if err := r.take(ctx, &e); err != nil {
				return err
			}
		}
		r.done = mark{upTo, allRows}
		if len(r.held) == 0 && time.Since(r.said) > sayWithin {
			if err := r.say(); err != nil {
				return err
			}
		}
	}
	if len(r.held) > 0 {
		return r.say()
	}
	return nil
}

// take takes an entry in whole, or, if it is larger than a message may be, in parts.
func (r *reader) take(ctx context.Context, e *history.Entry) error {
	before := len(r.held)
	for row := range convert.Rows(e.Agent, e.Report) {
		if !r.wanted.wantsPort(row.LocalPort) {
			continue
		}
		for full := r.hold(row); full; full = r.bytes > maxPart {
			if before == 0 {
				r.held, r.bytes = nil, 0
				return r.split(ctx, e.Agent, mark{e.Cursor, 0})
			}
			if err := r.give(r.held[:before:before], r.done); err != nil {
				return err
			}
			r.held, before = append([]*synmeshv1.Result(nil), r.held[before:]...), 0
			r.bytes = sizeOf(r.held)
		}
	}
	r.done = mark{e.Cursor, allRows}
	if time.Since(r.said) > sayWithin {
		return r.say()
	}
	return nil
}

// hold takes a result, and tells whether there is enough for a message.
func (r *reader) hold(row *probe.Result) (full bool) {
	m := convert.FromResult(row)
	r.held = append(r.held, m)
	r.bytes += sizeOf(r.held[len(r.held)-1:])
	return r.bytes > maxPart
}

func sizeOf(results []*synmeshv1.Result) (n int) {
	for _, m := range results {
		n += proto.Size(m) + 4 // and the field's number and length
	}
	return n
}

// split gives an entry from a row on, and may do so in several messages. It reads all of the entry's blocks, so
// that rows are counted alike whatever is wanted of them. The agent may be empty.
func (r *reader) split(ctx context.Context, agent string, from mark) error {
	at := from.entry.Stored()
	for e, err := range r.history.ScanSeries(ctx, history.Filter{Agent: agent}, at, at.Add(1), nil) {
		if err != nil {
			return failed(ctx, err)
		}
		n := 0
		for row := range convert.Rows(e.Agent, e.Report) {
			if n++; n <= from.rows || !r.wanted.wants(row) || !r.hold(row) {
				continue
			}
			r.done = mark{from.entry, n}
			if err := r.say(); err != nil {
				return err
			}
		}
	}
	r.done = mark{from.entry, allRows}
	return nil
}
