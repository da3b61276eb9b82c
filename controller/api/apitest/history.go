package apitest

import (
	"context"
	"encoding/binary"
	"iter"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/synmesh/synmesh/controller/history"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// History keeps reports in memory, by the rules of history.Store. Its fields
// are for before it is used.
type History struct {
	// BeforeAppend is called with every report; its error is Append's. It may block.
	BeforeAppend func(*synmeshv1.Report) error
	// SequenceError and ScanError are what these methods return.
	SequenceError, ScanError error

	mu      sync.Mutex
	entries []history.Entry
	marks   map[stream]uint64
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
		Cursor: binary.BigEndian.AppendUint64(nil, uint64(at.UnixNano())), Stored: at.UTC(), Agent: agent, Report: proto.CloneOf(r),
	})
	return true
}

// Forget drops the n oldest entries, as retention does.
func (h *History) Forget(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
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

// Scan is history.Store's.
func (h *History) Scan(ctx context.Context, from, to time.Time, after history.Cursor) iter.Seq2[history.Entry, error] {
	return func(yield func(history.Entry, error) bool) {
		for _, e := range h.Entries() {
			if e.Stored.Before(from) || (!to.IsZero() && !e.Stored.Before(to)) || e.Cursor.Compare(after) <= 0 {
				continue
			}
			if ctx.Err() != nil || !yield(e, nil) {
				return
			}
		}
		if h.ScanError != nil {
			yield(history.Entry{}, h.ScanError)
		}
	}
}
