package apitest

import (
	"context"
	"iter"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/synmesh/synmesh/controller/history"
	"github.com/synmesh/synmesh/controller/history/memory"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// History keeps reports in memory, by the rules of history.Store. Its fields
// are for before it is used.
type History struct {
	// BeforeAppend is called with every report; its error is Append's. It may block.
	BeforeAppend func(*synmeshv1.Report) error
	// SequenceError and ScanError are what these methods return.
	SequenceError, ScanError error

	mu        sync.Mutex
	entries   []history.Entry
	marks     map[stream]uint64
	changed   chan struct{} // nil: nobody waits
	forgotten history.Cursor
}

type stream struct {
	agent string
	epoch uint64
}

// Append is history.Store's.
func (h *History) Append(_ context.Context, agent string, r *synmeshv1.Report) (bool, error) {
	if h.BeforeAppend != nil {
		if err := h.BeforeAppend(r); err != nil {
			return false, err
		}
	}
	return h.Put(time.Now(), agent, r), nil
}

// AppendEncoded is history.Store's.
func (h *History) AppendEncoded(ctx context.Context, agent string, r history.Encoded) (bool, error) {
	m := &synmeshv1.Report{}
	if err := proto.Unmarshal(r.Bytes, m); err != nil {
		return false, err
	}
	return h.Append(ctx, agent, m)
}

// Put stores a report at a time, or one nanosecond behind the one before.
func (h *History) Put(at time.Time, agent string, r *synmeshv1.Report) (stored bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	id := stream{agent, r.GetEpoch()}
	if h.marks[id] >= r.GetSequence() {
		return false
	}
	if h.marks == nil {
		h.marks = make(map[stream]uint64)
	}
	h.marks[id] = r.GetSequence()
	if n := len(h.entries); n > 0 && !at.After(h.entries[n-1].Stored) {
		at = h.entries[n-1].Stored.Add(time.Nanosecond)
	}
	h.entries = append(h.entries, history.Entry{
		Cursor: history.CursorAt(at), Stored: at.UTC(), Agent: agent, Report: proto.CloneOf(r),
	})
	if h.changed != nil {
		close(h.changed)
		h.changed = nil
	}
	return true
}

// Forget drops the n oldest entries, as retention does.
func (h *History) Forget(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.forgotten = h.entries[n-1].Cursor
	h.entries = h.entries[n:]
}

// Entries returns what is stored.
func (h *History) Entries() []history.Entry {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]history.Entry(nil), h.entries...)
}

// Sequence is history.Store's.
func (h *History) Sequence(agent string, epoch uint64) (uint64, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.marks[stream{agent, epoch}], h.SequenceError
}

// ScanSeries is history.Store's.
func (h *History) ScanSeries(ctx context.Context, f history.Filter, from, to time.Time, after history.Cursor) iter.Seq2[history.Entry, error] {
	return func(yield func(history.Entry, error) bool) {
		for _, e := range h.Entries() {
			if e.Stored.Before(from) || (!to.IsZero() && !e.Stored.Before(to)) || e.Cursor.Compare(after) <= 0 || !f.Wants(e.Agent) {
				continue
			}
			e.Report = proto.CloneOf(e.Report)
			e.Report.Blocks = slices.DeleteFunc(e.Report.GetBlocks(), func(b *synmeshv1.ResultBlock) bool {
				return !f.WantsSeries(history.Series{Source: b.GetSource(), Agent: e.Agent, Target: b.GetTarget()})
			})
			if ctx.Err() != nil || !yield(e, nil) {
				return
			}
		}
		if h.ScanError != nil {
			yield(history.Entry{}, h.ScanError)
		}
	}
}

// Query is history.Store's.
func (h *History) Query(ctx context.Context, q history.Query) ([]history.Answer, error) {
	if h.ScanError != nil {
		return nil, h.ScanError
	}
	all, err := memory.New(memory.Config{})
	if err != nil {
		return nil, err
	}
	for _, e := range h.Entries() {
		if _, err := all.Append(ctx, e.Agent, e.Report); err != nil {
			return nil, err
		}
	}
	return all.Query(ctx, q)
}

// Changed is history.Store's.
func (h *History) Changed() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.changed == nil {
		h.changed = make(chan struct{})
	}
	return h.changed
}

// Latest is history.Store's.
func (h *History) Latest() history.Cursor {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.entries) == 0 {
		return history.CursorAt(time.Unix(0, 0))
	}
	return h.entries[len(h.entries)-1].Cursor
}

// Whole is history.Store's; it knows of what Forget has dropped.
func (h *History) Whole(after, _ history.Cursor) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return after.Compare(h.forgotten) >= 0
}
