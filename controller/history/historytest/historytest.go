// Package historytest holds implementations of the history to what their users
// count on: the same tests for all of them. Call Test.
package historytest

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"testing"
	"time"

	"github.com/synmesh/synmesh/controller/history"
	"github.com/synmesh/synmesh/internal/convert"
	"github.com/synmesh/synmesh/probe"
	synmeshv1 "github.com/synmesh/synmesh/proto/synmesh/v1"
)

// History is all that anybody asks of a history.
type History interface {
	Run(ctx context.Context) error
	Close() error
	Append(ctx context.Context, agent string, r *synmeshv1.Report) (stored bool, err error)
	AppendEncoded(ctx context.Context, agent string, r history.Encoded) (stored bool, err error)
	Sequence(agent string, epoch uint64) (uint64, error)
	Scan(ctx context.Context, from, to time.Time, after history.Cursor) iter.Seq2[history.Entry, error]
	ScanSeries(ctx context.Context, f history.Filter, from, to time.Time, after history.Cursor) iter.Seq2[history.Entry, error]
	ScanOutcomes(ctx context.Context, after history.Cursor) iter.Seq2[history.Outcomes, error]
	Query(ctx context.Context, q history.Query) ([]history.Answer, error)
	Changed() <-chan struct{}
	Latest() history.Cursor
	Whole(after, to history.Cursor) bool
	Stats() history.Stats
}

// Subject makes histories to be tested.
type Subject struct {
	// Open opens an empty history in a folder of its own that goes by this clock, and is not run yet.
	Open func(dir string, now func() time.Time) (History, error)
	// Settle is called now and then while the history is run, and may have it arrange what it has in
	// another way, as it would do in time. nil: there is nothing to be arranged.
	Settle func(History) error
}

// Test runs all tests.
func Test(t *testing.T, s Subject) {
	for name, test := range map[string]func(*testing.T, Subject){
		"life":                testLife,
		"append":              testAppend,
		"invalid":             testInvalid,
		"scan":                testScan,
		"own reports":         testOwnReports,
		"invalid cursors":     testInvalidCursors,
		"contexts":            testContexts,
		"filters":             testFilters,
		"outcomes":            testOutcomes,
		"query":               testQuery,
		"invalid queries":     testInvalidQueries,
		"answers too large":   testTooLarge,
		"changes":             testChanges,
		"many at once":        testManyAtOnce,
		"a list and a map":    testModel,
		"the clock goes back": testClockGoesBack,
	} {
		t.Run(name, func(t *testing.T) { test(t, s) })
	}
}

// clock is a wall clock under the test's control.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// tester is what *testing.T and *rapid.T have in common.
type tester interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Context() context.Context
}

// running is a history and its Run.
type running struct {
	History
	*clock
	settleWith func(History) error
	stop       func() error // once; ends Run
}

// start opens a history, and runs it until stop is called.
func (s Subject) start(dir string) (*running, error) {
	c := newClock()
	h, err := s.Open(dir, c.now)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	return &running{h, c, s.Settle, sync.OnceValue(func() error {
		cancel()
		return <-ended
	})}, nil
}

// startFor is start until the test ends.
func (s Subject) startFor(t *testing.T) *running {
	t.Helper()
	r, err := s.start(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(r.stop(), r.Close()); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *running) settle(t tester) {
	t.Helper()
	if r.settleWith == nil {
		return
	}
	if err := r.settleWith(r.History); err != nil {
		t.Fatalf("settle: %v", err)
	}
}

// result makes a result of a target, as old as told.
func (r *running) result(source, target string, age time.Duration, rtt time.Duration) probe.Result {
	return probe.Result{Time: r.now().Add(-age), Source: source, Target: target, LocalPort: 61000, Outcome: probe.Open, RTT: rtt, Attempts: 1, Stamp: probe.StampKernel}
}

// reportOf makes a report of results.
func reportOf(epoch, sequence uint64, results ...probe.Result) *synmeshv1.Report {
	var b convert.Blocks
	for i := range results {
		b.Add(&results[i])
	}
	return &synmeshv1.Report{Epoch: epoch, Sequence: sequence, Produced: uint64(len(results)), Blocks: b.Take()}
}

// add appends a report that has not been stored yet.
func (r *running) add(t tester, agent string, report *synmeshv1.Report) {
	t.Helper()
	if stored, err := r.Append(t.Context(), agent, report); err != nil || !stored {
		t.Fatalf("Append of %s: stored %v, %v", idOf(agent, report), stored, err)
	}
}

func idOf(agent string, r *synmeshv1.Report) string {
	return fmt.Sprintf("%s/%d/%d", agent, r.GetEpoch(), r.GetSequence())
}

// gather returns what a scan gives.
func gather(t tester, entries iter.Seq2[history.Entry, error]) (list []history.Entry) {
	t.Helper()
	for e, err := range entries {
		if err != nil {
			t.Fatalf("Scan: %v", err)
		}
		list = append(list, e)
	}
	return list
}

func idsOf(list []history.Entry) (ids []string) {
	for _, e := range list {
		ids = append(ids, idOf(e.Agent, e.Report))
	}
	return ids
}

func (r *running) all(t tester) []history.Entry {
	t.Helper()
	return gather(t, r.Scan(t.Context(), time.Time{}, time.Time{}, nil))
}
