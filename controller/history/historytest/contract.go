package historytest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/synmesh/synmesh/controller/history"
	"github.com/synmesh/synmesh/probe"
	synmeshv1 "github.com/synmesh/synmesh/proto/synmesh/v1"
)

func testLife(t *testing.T, s Subject) {
	r, err := s.start(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	r.add(t, "a", reportOf(1, 1))
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if stored, err := r.Append(t.Context(), "a", reportOf(1, 2)); stored || !errors.Is(err, history.ErrClosed) {
		t.Errorf("Append when Run has returned: %v, %v", stored, err)
	}
	if got := idsOf(r.all(t)); !slices.Equal(got, []string{"a/1/1"}) {
		t.Errorf("when Run has returned, there is %v", got)
	}
	if err := r.Run(t.Context()); err == nil {
		t.Error("Run is called twice")
	}
	for range 2 {
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	r.refuses(t, history.ErrClosed)
	if err := r.Run(t.Context()); err == nil {
		t.Error("Run is called after Close")
	}
}

// refuses sees that every call ends with an error.
func (r *running) refuses(t *testing.T, want error) {
	t.Helper()
	if stored, err := r.Append(t.Context(), "a", reportOf(1, 1000)); stored || !errors.Is(err, want) {
		t.Errorf("Append: %v, %v", stored, err)
	}
	if _, err := r.Sequence("a", 1); !errors.Is(err, want) {
		t.Errorf("Sequence: %v", err)
	}
	if _, err := r.Query(t.Context(), history.Query{From: r.now(), To: r.now().Add(time.Hour)}); !errors.Is(err, want) {
		t.Errorf("Query: %v", err)
	}
	n := 0
	for e, err := range r.Scan(t.Context(), time.Time{}, time.Time{}, nil) {
		if n++; !errors.Is(err, want) || e.Report != nil || n > 1 {
			t.Errorf("Scan, entry %d: %v, %v", n, e, err)
		}
	}
	if n == 0 {
		t.Error("Scan ends without an error")
	}
	r.failsToScanOutcomes(t, t.Context(), nil, want)
}

func testAppend(t *testing.T, s Subject) {
	r := s.startFor(t)
	for i, tt := range []struct {
		agent           string
		epoch, sequence uint64
		stored          bool
		mark            uint64
	}{
		{"a", 1, 1, true, 1},
		{"a", 1, 1, false, 1},
		{"a", 1, 2, true, 2},
		{"a", 1, 9, true, 9}, // sequences may be left out
		{"a", 1, 5, false, 9},
		{"b", 1, 5, true, 5},
		{"a", 2, 3, true, 3},
		{"a", 0, 1, true, 1},
		{"a", 1, 10, true, 10},
		{"a", 1, 1<<64 - 1, true, 1<<64 - 1},
		{"a", 1, 1<<64 - 1, false, 1<<64 - 1},
		{strings.Repeat("x", 255), 1 << 63, 1, true, 1},
	} {
		stored, err := r.Append(t.Context(), tt.agent, reportOf(tt.epoch, tt.sequence, r.result("m", "t", 0, 1)))
		if stored != tt.stored || err != nil {
			t.Errorf("report %d: stored %v, %v", i, stored, err)
		}
		if mark, err := r.Sequence(tt.agent, tt.epoch); mark != tt.mark || err != nil {
			t.Errorf("after report %d: mark %d, %v", i, mark, err)
		}
		if i%3 == 2 {
			r.clock.add(100 * time.Minute)
			r.settle(t)
		}
	}
	want := []string{"a/1/1", "a/1/2", "a/1/9", "b/1/5", "a/2/3", "a/0/1", "a/1/10", "a/1/18446744073709551615", strings.Repeat("x", 255) + "/9223372036854775808/1"}
	if d := cmp.Diff(want, idsOf(r.all(t))); d != "" {
		t.Error(d)
	}
	if n, err := r.Sequence("nobody", 1); n != 0 || err != nil {
		t.Errorf("mark of nobody: %d, %v", n, err)
	}
	if st := r.Stats(); st.Reports != 9 || st.Results != 9 || st.Duplicates != 3 || st.FailedCommits+st.CorruptRecords+st.DamagedFiles != 0 {
		t.Errorf("%+v", st)
	}
}

func testInvalid(t *testing.T, s Subject) {
	r := s.startFor(t)
	large := reportOf(1, 1, r.result("m", "t", 0, 1))
	large.Blocks[0].Target = strings.Repeat("t", 4<<20)
	for what, tt := range map[string]struct {
		agent  string
		report *synmeshv1.Report
	}{
		"no report":         {"a", nil},
		"no sequence":       {"a", reportOf(1, 0)},
		"no agent":          {"", reportOf(1, 1)},
		"an agent too long": {strings.Repeat("a", 256), reportOf(1, 1)},
		"too large":         {"a", large},
	} {
		if stored, err := r.Append(t.Context(), tt.agent, tt.report); stored || !errors.Is(err, history.ErrInvalid) {
			t.Errorf("%s: stored %v, %v", what, stored, err)
		}
	}
	if list := r.all(t); len(list) != 0 {
		t.Errorf("%v is stored", idsOf(list))
	}
}

func testScan(t *testing.T, s Subject) {
	r := s.startFor(t)
	for i := range uint64(30) {
		r.add(t, "a", reportOf(1, i+1, r.result("m", fmt.Sprint("t", i%4), 0, time.Duration(i))))
		if i%3 != 0 { // of some, the clock stands
			r.clock.add(7 * time.Minute)
		}
		if i%10 == 9 {
			r.settle(t)
		}
	}
	list := r.all(t)
	if len(list) != 30 {
		t.Fatalf("%d entries, not 30", len(list))
	}
	for i, e := range list {
		if e.Report.GetSequence() != uint64(i+1) {
			t.Fatalf("entry %d is %s", i, idOf(e.Agent, e.Report))
		}
		if i > 0 && (!e.Stored.After(list[i-1].Stored) || e.Cursor.Compare(list[i-1].Cursor) <= 0) {
			t.Errorf("entry %d is stored at %v, the one before at %v", i, e.Stored, list[i-1].Stored)
		}
		if c, err := history.ParseCursor(e.Cursor.String()); err != nil || c.Compare(e.Cursor) != 0 {
			t.Errorf("cursor %v as text: %v, %v", e.Cursor, c, err)
		}
		if e.Stored.Location() != time.UTC {
			t.Errorf("entry %d has a time in %v", i, e.Stored.Location())
		}
		if got := idsOf(gather(t, r.Scan(t.Context(), time.Time{}, time.Time{}, e.Cursor))); !slices.Equal(got, idsOf(list[i+1:])) {
			t.Errorf("after entry %d come %v", i, got)
		}
		for j := i; j < len(list); j += 7 {
			if got := idsOf(gather(t, r.Scan(t.Context(), e.Stored, list[j].Stored, nil))); !slices.Equal(got, idsOf(list[i:j])) {
				t.Errorf("from entry %d to %d come %v", i, j, got)
			}
		}
	}
	for range r.Scan(t.Context(), time.Time{}, time.Time{}, nil) {
		break // and nothing is held
	}
}

// A report is its owner's, before and after.
func testOwnReports(t *testing.T, s Subject) {
	r := s.startFor(t)
	mine := reportOf(1, 1, r.result("m", "t", 0, 1))
	r.add(t, "a", mine)
	mine.Blocks[0].Target = "changed"
	first := r.all(t)[0]
	first.Report.Blocks[0].Target = "changed, too"
	first.Cursor[0]++
	if again := r.all(t)[0]; again.Report.GetBlocks()[0].GetTarget() != "t" || again.Cursor.Compare(first.Cursor) == 0 {
		t.Errorf("now it is %v", again)
	}
}

func testInvalidCursors(t *testing.T, s Subject) {
	r := s.startFor(t)
	r.add(t, "a", reportOf(1, 1))
	for _, c := range []history.Cursor{{}, {1}, make(history.Cursor, 100)} {
		for e, err := range r.Scan(t.Context(), time.Time{}, time.Time{}, c) {
			if !errors.Is(err, history.ErrInvalid) {
				t.Errorf("cursor %x: %v, %v", []byte(c), e, err)
			}
		}
		r.failsToScanOutcomes(t, t.Context(), c, history.ErrInvalid)
	}
}

func testContexts(t *testing.T, s Subject) {
	r := s.startFor(t)
	r.add(t, "a", reportOf(1, 1, r.result("m", "t", 0, 1)))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Append(ctx, "a", reportOf(1, 2)); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("Append: %v", err)
	}
	for e, err := range r.Scan(ctx, time.Time{}, time.Time{}, nil) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Scan: %v, %v", e, err)
		}
	}
	r.failsToScanOutcomes(t, ctx, nil, context.Canceled)
	if _, err := r.Query(ctx, history.Query{From: r.now().Add(-time.Hour), To: r.now()}); !errors.Is(err, context.Canceled) {
		t.Errorf("Query: %v", err)
	}
}

func testFilters(t *testing.T, s Subject) {
	r := s.startFor(t)
	for i := range uint64(6) {
		agent, epoch := []string{"a", "b", "ab"}[i%3], i/3
		r.add(t, agent, reportOf(epoch, i+1, r.result("m1", "x", 0, 1), r.result("m2", "x", 0, 2), r.result("m1", "yy", 0, 3)))
		r.clock.add(10 * time.Minute)
		if i == 3 {
			r.settle(t)
		}
	}
	r.add(t, "a", reportOf(9, 1)) // without a block
	series := func(e history.Entry) (names []string) {
		for _, b := range e.Report.GetBlocks() {
			names = append(names, b.GetSource()+" "+b.GetTarget())
		}
		return names
	}
	for _, tt := range []struct {
		f      history.Filter
		ids    string
		series []string
	}{
		{history.Filter{}, "a/0/1 b/0/2 ab/0/3 a/1/4 b/1/5 ab/1/6 a/9/1", []string{"m1 x", "m1 yy", "m2 x"}},
		{history.Filter{Agent: "a"}, "a/0/1 a/1/4 a/9/1", []string{"m1 x", "m1 yy", "m2 x"}},
		{history.Filter{Source: "m1"}, "a/0/1 b/0/2 ab/0/3 a/1/4 b/1/5 ab/1/6 a/9/1", []string{"m1 x", "m1 yy"}},
		{history.Filter{Agent: "b", Target: "x"}, "b/0/2 b/1/5", []string{"m1 x", "m2 x"}},
		{history.Filter{Agent: "ab", Source: "m1", Target: "yy"}, "ab/0/3 ab/1/6", []string{"m1 yy"}},
		{history.Filter{Agent: "ab", Source: "m2", Target: "yy"}, "ab/0/3 ab/1/6", nil},
		{history.Filter{Agent: "nobody"}, "", nil},
		{history.Filter{Agents: history.NewNames(func(n string) bool { return len(n) == 1 }), Targets: history.NewNames(func(n string) bool { return n == "yy" })},
			"a/0/1 b/0/2 a/1/4 b/1/5 a/9/1", []string{"m1 yy"}},
	} {
		list := gather(t, r.ScanSeries(t.Context(), tt.f, time.Time{}, time.Time{}, nil))
		if got := strings.Join(idsOf(list), " "); got != tt.ids {
			t.Errorf("%+v: %s", tt.f, got)
		}
		for _, e := range list {
			if e.Report.GetEpoch() == 9 {
				continue
			}
			if d := cmp.Diff(tt.series, series(e)); d != "" {
				t.Errorf("%+v, %s: %s", tt.f, idOf(e.Agent, e.Report), d)
			}
		}
	}
	end := &synmeshv1.RunEnd{Run: "runs/1"}
	r.add(t, "c", &synmeshv1.Report{Epoch: 1, Sequence: 1, Produced: 12, RunEnds: []*synmeshv1.RunEnd{end}})
	r.settle(t)
	got := gather(t, r.ScanSeries(t.Context(), history.Filter{Agent: "c", Source: "m"}, time.Time{}, time.Time{}, nil))
	if len(got) != 1 || got[0].Report.GetProduced() != 12 || cmp.Diff([]*synmeshv1.RunEnd{end}, got[0].Report.GetRunEnds(), protocmp.Transform()) != "" {
		t.Errorf("what a report says beside its blocks: %v", got)
	}
}

// Whoever goes on from the last cursor misses nothing and sees nothing twice.
func testManyAtOnce(t *testing.T, s Subject) {
	r := s.startFor(t)
	const agents, each = 8, 40
	var wg sync.WaitGroup
	for a := range agents {
		wg.Go(func() {
			for i := range uint64(each) {
				if stored, err := r.Append(t.Context(), fmt.Sprint("agent-", a), reportOf(1, i+1, r.result("m", "t", 0, 1))); !stored || err != nil {
					t.Errorf("stored %v, %v", stored, err)
				}
			}
		})
	}
	seen, after := map[string]uint64{}, history.Cursor(nil)
	for n := 0; n < agents*each && !t.Failed(); {
		for e, err := range r.Scan(t.Context(), time.Time{}, time.Time{}, after) {
			if err != nil {
				t.Fatal(err)
			}
			if seen[e.Agent]++; e.Report.GetSequence() != seen[e.Agent] {
				t.Fatalf("%s comes where %d should", idOf(e.Agent, e.Report), seen[e.Agent])
			}
			after = e.Cursor
			n++
		}
	}
	wg.Wait()
	answers, err := r.Query(t.Context(), history.Query{From: r.now().Add(-time.Hour), To: r.now().Add(time.Hour)})
	if err != nil || len(answers) != agents {
		t.Fatal(len(answers), err)
	}
	for _, a := range answers {
		if n := a.Steps[0].Counts[probe.Open]; n != each {
			t.Errorf("%s: %d results, not %d", a.Agent, n, each)
		}
	}
}

func testClockGoesBack(t *testing.T, s Subject) {
	r := s.startFor(t)
	r.add(t, "a", reportOf(1, 1))
	r.clock.add(-time.Hour)
	r.add(t, "a", reportOf(1, 2))
	list := r.all(t)
	if len(list) != 2 || list[0].Report.GetSequence() != 1 || !list[1].Stored.After(list[0].Stored) {
		t.Errorf("%v", list)
	}
}
