// Package memory is a history that is gone with the process. It means the same
// as history.Store, whose words it uses, and knows nothing of its files; package
// historytest holds both to that. It serves tests, and who wants no history.
//
// Call New, then Run in a goroutine of its own. In one thing it differs: where a
// Store that is full refuses reports, it forgets the oldest, for there is no more
// room to wait for.
package memory

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/synmesh/synmesh/controller/history"
	synmeshv1 "github.com/synmesh/synmesh/proto/synmesh/v1"
)

const (
	usualRetention = 7 * 24 * time.Hour
	usualSize      = 64 << 20
	// tidyEvery is how often it is looked for what is older than the retention.
	tidyEvery = 10 * time.Minute
	// overhead is what a report takes beside its bytes, about.
	overhead = 256
	// maxAgent and maxReport are the longest name and the largest report, in bytes.
	maxAgent, maxReport = 255, 4 << 20
)

// Config says how much is kept. Its zero value will do.
type Config struct {
	// Retention is how long results are kept. 0: 7 days.
	Retention time.Duration
	// MaxSize is how many bytes of reports are kept; then the oldest are forgotten. 0: 64 MiB.
	MaxSize int64
	// Now tells the time. nil: time.Now.
	Now func() time.Time
}

// History is a history in memory. Its methods may be called concurrently.
type History struct {
	cfg Config

	mu      sync.Mutex
	entries []entry // oldest first; only ever appended to and cut at the front, so that readers go on without the lock
	marks   map[stream]mark
	size    int64
	last    uint64 // the latest stored time given
	// forgotten is that of the latest entry that was.
	forgotten uint64
	closed    bool // it takes no more calls
	ended     bool // or no more reports
	running   bool
	ran       bool
	changed   chan struct{}
	stats     history.Stats
	dropped   uint64
}

// entry is a report stored. Nobody changes what is in it.
type entry struct {
	at     uint64
	agent  string
	report *synmeshv1.Report
	size   int64
}

// stream is one epoch of an agent.
type stream struct {
	agent string
	epoch uint64
}

// mark is the highest sequence stored of a stream, and when that was.
type mark struct{ sequence, at uint64 }

// New makes a history of nothing.
func New(cfg Config) (*History, error) {
	if cfg.Retention < 0 {
		return nil, fmt.Errorf("history: retention of %v: it cannot be negative", cfg.Retention)
	}
	if cfg.MaxSize < 0 {
		return nil, fmt.Errorf("history: a limit of %d bytes: it cannot be negative", cfg.MaxSize)
	}
	cfg.Retention, cfg.MaxSize = cmp.Or(cfg.Retention, usualRetention), cmp.Or(cfg.MaxSize, usualSize)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &History{cfg: cfg, marks: make(map[stream]mark), changed: make(chan struct{})}, nil
}

// Run forgets what is older than the retention until the context ends. From then on Append
// refuses reports.
func (h *History) Run(ctx context.Context) error {
	if err := h.begin(); err != nil {
		return err
	}
	tick := time.NewTicker(tidyEvery)
	defer tick.Stop()
	for {
		h.expire()
		select {
		case <-tick.C:
		case <-ctx.Done():
			h.mu.Lock()
			defer h.mu.Unlock()
			h.ended, h.running = true, false
			return nil
		}
	}
}

func (h *History) begin() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ran || h.closed {
		return errors.New("history: Run called twice or after Close")
	}
	h.ran, h.running = true, true
	return nil
}

// Close ends all. Call it when Run has returned.
func (h *History) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.running {
		return errors.New("history: Close called before Run has returned")
	}
	h.closed, h.ended, h.entries = true, true, nil
	return nil
}

// Append is history.Store's.
func (h *History) Append(ctx context.Context, agent string, r *synmeshv1.Report) (stored bool, err error) {
	e, err := history.Encode(r)
	if err != nil {
		return false, err
	}
	return h.AppendEncoded(ctx, agent, e)
}

// AppendEncoded is history.Store's; what is no report is refused.
func (h *History) AppendEncoded(ctx context.Context, agent string, r history.Encoded) (stored bool, err error) {
	switch {
	case r.Sequence == 0:
		return false, fmt.Errorf("history: %w report of %q: it has no sequence", history.ErrInvalid, agent)
	case agent == "" || len(agent) > maxAgent:
		return false, fmt.Errorf("history: %w name of an agent: %d bytes, not 1 to %d", history.ErrInvalid, len(agent), maxAgent)
	case len(r.Bytes) > maxReport:
		return false, fmt.Errorf("history: %w report %d of %s: %d bytes, over %d", history.ErrInvalid, r.Sequence, agent, len(r.Bytes), maxReport)
	}
	if err := ctx.Err(); err != nil {
		return false, fmt.Errorf("history: report %d of %s is not stored: %w", r.Sequence, agent, err)
	}
	e := entry{agent: agent, report: &synmeshv1.Report{}, size: int64(len(r.Bytes) + len(agent) + overhead)}
	if err := proto.Unmarshal(r.Bytes, e.report); err != nil {
		return false, fmt.Errorf("history: %w report %d of %s: %w", history.ErrInvalid, r.Sequence, agent, err)
	}
	e.report.Blocks = inOrder(e.report.GetBlocks())
	h.mu.Lock()
	defer h.mu.Unlock()
	id := stream{agent, r.Epoch}
	switch {
	case h.ended:
		return false, fmt.Errorf("history: report %d of %s is not stored: %w", r.Sequence, agent, history.ErrClosed)
	case r.Sequence <= h.marks[id].sequence:
		h.stats.Duplicates++
		return false, nil
	}
	h.stats.Results += r.Results
	h.put(id, r.Sequence, e)
	return true, nil
}

func (h *History) put(id stream, sequence uint64, e entry) {
	h.last = max(nanoseconds(h.cfg.Now()), h.last+1)
	e.at = h.last
	h.entries = append(h.entries, e)
	h.marks[id] = mark{sequence, e.at}
	h.size += e.size
	h.stats.Reports++
	h.stats.Commits++
	n := 0
	for size := h.size; size > h.cfg.MaxSize && n < len(h.entries); n++ {
		size -= h.entries[n].size
	}
	h.drop(n)
	close(h.changed)
	h.changed = make(chan struct{})
}

// drop forgets the n oldest entries.
func (h *History) drop(n int) {
	for _, e := range h.entries[:n] {
		h.size -= e.size
	}
	h.dropped += uint64(n)
	if n > 0 {
		h.forgotten = h.entries[n-1].at
	}
	h.entries = h.entries[n:]
}

// expire forgets reports and marks that are older than the retention.
func (h *History) expire() {
	now := nanoseconds(h.cfg.Now())
	oldest := now - min(now, uint64(h.cfg.Retention))
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for n < len(h.entries) && h.entries[n].at < oldest {
		n++
	}
	h.drop(n)
	maps.DeleteFunc(h.marks, func(_ stream, m mark) bool { return m.at < oldest })
}

// Sequence is history.Store's.
func (h *History) Sequence(agent string, epoch uint64) (uint64, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return 0, fmt.Errorf("history: sequence of %s: %w", agent, history.ErrClosed)
	}
	return h.marks[stream{agent, epoch}].sequence, nil
}

// Changed is history.Store's.
func (h *History) Changed() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.changed
}

// Latest is history.Store's.
func (h *History) Latest() history.Cursor {
	h.mu.Lock()
	defer h.mu.Unlock()
	return cursorOf(h.last)
}

// Whole is history.Store's.
func (h *History) Whole(after, to history.Cursor) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(after) == cursorSize && len(to) == cursorSize && after.Compare(cursorOf(h.forgotten)) >= 0
}

// Stats is history.Store's; each report is a commit.
func (h *History) Stats() history.Stats {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.stats
}

// Dropped returns how many reports were forgotten, being too old or too many.
func (h *History) Dropped() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.dropped
}

// now returns what is stored; the caller only reads it.
func (h *History) now() ([]entry, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, history.ErrClosed
	}
	return h.entries, nil
}

const cursorSize = 8

func cursorOf(at uint64) history.Cursor { return binary.BigEndian.AppendUint64(nil, at) }

// nanoseconds returns a time as it is stored; one that cannot be becomes the nearest that can.
func nanoseconds(t time.Time) uint64 {
	switch {
	case t.Before(time.Unix(0, 0)):
		return 0
	case t.After(time.Unix(0, math.MaxInt64)):
		return math.MaxInt64
	}
	return uint64(t.UnixNano())
}
