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
	"github.com/synmesh/synmesh/internal/convert"
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

// failsToScanOutcomes sees that there is that error, and nothing else.
func (r *running) failsToScanOutcomes(t *testing.T, ctx context.Context, after history.Cursor, want error) {
	t.Helper()
	n := 0
	for o, err := range r.ScanOutcomes(ctx, after) {
		if n++; !errors.Is(err, want) || o.Agent != "" || n > 1 {
			t.Errorf("ScanOutcomes after %x, number %d: %v, %v", []byte(after), n, o, err)
		}
	}
	if n == 0 {
		t.Errorf("ScanOutcomes after %x ends without an error", []byte(after))
	}
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

func testQuery(t *testing.T, s Subject) {
	r := s.startFor(t)
	began := r.now()
	for i := range uint64(40) {
		timeout := r.result("m", "y", 0, 0)
		timeout.Outcome = probe.Timeout
		r.add(t, "a", reportOf(1, i+1, r.result("m", "x", 0, time.Duration(1000+i)), timeout))
		r.add(t, "b", reportOf(1, i+1, r.result("m", "x", 30*time.Minute, 5000), r.result("n", "x", 0, 1)))
		r.clock.add(5 * time.Minute)
		if i%16 == 15 {
			r.settle(t)
		}
	}
	counts := func(q history.Query) map[string]string {
		t.Helper()
		answers, err := r.Query(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		got := make(map[string]string)
		for _, a := range answers {
			text := ""
			for _, s := range a.Steps {
				if s == nil {
					text += " -"
				} else {
					text += fmt.Sprintf(" %d/%d", s.Counts[probe.Open], s.Counts[probe.Timeout])
				}
			}
			got[fmt.Sprintf("%s %s %s %d", a.Source, a.Agent, a.Target, a.LocalPort)] = text[1:]
		}
		return got
	}
	for what, tt := range map[string]struct {
		q    history.Query
		want map[string]string
	}{
		"all": {history.Query{From: began.Add(-time.Hour), To: began.Add(4 * time.Hour)},
			map[string]string{"m a x 0": "40/0", "m a y 0": "0/40", "m b x 0": "40/0", "n b x 0": "40/0"}},
		"by the hour": {history.Query{Source: "m", From: began.Add(-time.Hour), To: began.Add(4 * time.Hour), Step: time.Hour},
			map[string]string{"m a x 0": "- 12/0 12/0 12/0 4/0", "m a y 0": "- 0/12 0/12 0/12 0/4", "m b x 0": "6/0 12/0 12/0 10/0 -"}},
		"of some": {history.Query{Agents: []string{"a", "c"}, Targets: []string{"x"}, From: began, To: began.Add(time.Hour), Step: 25 * time.Minute},
			map[string]string{"m a x 0": "5/0 5/0 2/0"}},
		"whole minutes": {history.Query{Agents: []string{"a"}, Targets: []string{"x"}, From: began.Add(30 * time.Second), To: began.Add(10*time.Minute + time.Second)},
			map[string]string{"m a x 0": "3/0"}},
		"by the second": {history.Query{Agents: []string{"a"}, Targets: []string{"x"}, From: began.Add(time.Second), To: began.Add(10*time.Minute + time.Second), Step: 599 * time.Second},
			map[string]string{"m a x 0": "1/0 1/0"}},
		"flows": {history.Query{Source: "n", From: began, To: began.Add(time.Hour), Flows: true},
			map[string]string{"n b x 61000": "12/0"}},
		"a flow": {history.Query{Source: "m", LocalPort: 61000, Targets: []string{"y"}, From: began, To: began.Add(30 * time.Minute)},
			map[string]string{"m a y 0": "0/6"}},
		"another flow": {history.Query{Source: "m", LocalPort: 61001, From: began, To: began.Add(time.Hour)}, map[string]string{}},
		"groups": {history.Query{From: began, To: began.Add(time.Hour), Group: func(s history.Series) (history.Series, bool) {
			return history.Series{Source: "all", Target: s.Target}, s.Agent != "b" || s.Source == "n"
		}}, map[string]string{"all  x 0": "24/0", "all  y 0": "0/12"}},
		"nothing": {history.Query{Source: "nobody", From: began, To: began.Add(time.Hour)}, map[string]string{}},
	} {
		if d := cmp.Diff(tt.want, counts(tt.q)); d != "" {
			t.Errorf("%s: %s", what, d)
		}
	}
	answers, err := r.Query(t.Context(), history.Query{Agents: []string{"a"}, Targets: []string{"x"}, From: began, To: began.Add(time.Hour)})
	if err != nil || len(answers) != 1 {
		t.Fatal(answers, err)
	}
	if s := answers[0].Steps[0]; s.Timed != 12 || s.Min != 1000 || s.Max != 1011 || s.Sum != 12*1000+66 {
		t.Errorf("%+v", s)
	}
}

func testInvalidQueries(t *testing.T, s Subject) {
	r := s.startFor(t)
	now := r.now()
	for what, q := range map[string]history.Query{
		"no time":             {},
		"an empty time":       {From: now, To: now},
		"from behind to":      {From: now.Add(time.Second), To: now},
		"a negative step":     {From: now, To: now.Add(time.Hour), Step: -time.Minute},
		"too many steps":      {From: now, To: now.Add(100_001 * time.Minute), Step: time.Minute},
		"too many of seconds": {From: now, To: now.Add(100_001 * time.Second), Step: time.Second},
	} {
		if a, err := r.Query(t.Context(), q); !errors.Is(err, history.ErrInvalid) {
			t.Errorf("%s: %v, %v", what, a, err)
		}
	}
	if _, err := r.Query(t.Context(), history.Query{From: now, To: now.Add(100_000 * time.Minute), Step: time.Minute}); err != nil {
		t.Errorf("as many steps as there may be: %v", err)
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

func testTooLarge(t *testing.T, s Subject) {
	r := s.startFor(t)
	var results []probe.Result
	for i := range 300 {
		results = append(results, r.result("m", fmt.Sprint("t", i), 0, 1))
	}
	for i := range uint64(2) {
		r.add(t, "a", reportOf(1, i+1, results...))
	}
	q := history.Query{From: r.now().Add(-900 * time.Minute), To: r.now().Add(90_000 * time.Minute), Step: time.Minute}
	if a, err := r.Query(t.Context(), q); !errors.Is(err, history.ErrTooLarge) {
		t.Errorf("%d answers, %v", len(a), err)
	}
}

func testChanges(t *testing.T, s Subject) {
	r := s.startFor(t)
	begin := r.Latest()
	if begin.Compare(history.CursorAt(r.now())) > 0 {
		t.Errorf("the latest of none is %v", begin)
	}
	changed := r.Changed()
	r.add(t, "a", reportOf(1, 1))
	<-changed
	changed = r.Changed()
	if stored, err := r.Append(t.Context(), "a", reportOf(1, 1)); stored || err != nil {
		t.Errorf("a report twice: %v, %v", stored, err)
	}
	select {
	case <-changed:
		t.Error("nothing was stored, and something has changed")
	default:
	}
	if last := r.all(t)[0].Cursor; last.Compare(r.Latest()) != 0 {
		t.Errorf("the latest is %v, and not %v", r.Latest(), last)
	}
	r.settle(t)
	if !r.Whole(history.CursorAt(r.now().Add(-time.Minute)), r.Latest()) {
		t.Error("something of the last minute is missing")
	}
	if r.Whole(nil, r.Latest()) || r.Whole(history.CursorAt(r.now()), nil) {
		t.Error("nobody knows of all times")
	}
	e, err := history.Encode(reportOf(1, 2, r.result("m", "t", 0, 1)))
	if err != nil {
		t.Fatal(err)
	}
	if stored, err := r.AppendEncoded(t.Context(), "a", e); !stored || err != nil {
		t.Errorf("an encoded report: %v, %v", stored, err)
	}
	clear(e.Bytes) // they are not needed any more
	if list := r.all(t); len(list) != 2 || list[1].Report.GetBlocks()[0].GetTarget() != "t" {
		t.Errorf("%v", list)
	}
}

// What comes in no order, or is not as the agents encode it, has its outcomes all the same.
func testOutcomes(t *testing.T, s Subject) {
	r := s.startFor(t)
	late := r.result("m", "t", 0, 0)
	late.Attempts, late.Retry, late.SynAck = 2, &probe.Retry{}, &probe.SynAck{Window: 1}
	failed := r.result("m", "nobody", 0, 0)
	failed.Outcome, failed.Err = probe.Error, "no such host"
	var many []probe.Result
	for i := range 500 {
		many = append(many, r.result("runs/1", "münchen:443", 0, time.Duration(i)<<(i%30)))
	}
	wrong := reportOf(1, 5, many...)
	wrong.Blocks[0].Rtts = wrong.Blocks[0].Rtts[1:]
	ended := reportOf(1, 6, r.result("runs/1", "t", 0, 7))
	ended.RunEnds = []*synmeshv1.RunEnd{{Run: "runs/1"}}
	for i, report := range []*synmeshv1.Report{
		reportOf(1, 1), reportOf(1, 2, r.result("m", "t", 0, 1), late, failed, r.result("m", "t", 0, 2)), reportOf(1, 3, many...),
		reportOf(1, 4, r.result("n", "u", 0, 1), r.result("m", "t", 0, 1<<62)), wrong, ended,
	} {
		r.add(t, "a", report)
		r.clock.add(10 * time.Minute)
		if i == 3 {
			r.settle(t)
		}
	}
	var counts []int
	for o, err := range r.ScanOutcomes(t.Context(), nil) {
		if err != nil {
			t.Fatal(err)
		}
		counts = append(counts, len(o.Results))
	}
	if want := []int{0, 4, 500, 2, 0, 1}; !slices.Equal(counts, want) {
		t.Errorf("there are %d results, not %d", counts, want)
	}
	r.sameOutcomes(t, nil)
	for range r.ScanOutcomes(t.Context(), nil) {
		break // and nothing is held
	}
}

// sameOutcomes sees that there are the outcomes of what is scanned.
func (r *running) sameOutcomes(t tester, after history.Cursor) {
	t.Helper()
	var want, got []string
	for e, err := range r.Scan(t.Context(), time.Time{}, time.Time{}, after) {
		if err != nil {
			t.Fatalf("Scan: %v", err)
		}
		o := history.Outcomes{Cursor: e.Cursor, Agent: e.Agent}
		if convert.CheckReport(e.Report) == nil {
			for row := range convert.Rows(e.Agent, e.Report) {
				o.Results = append(o.Results, history.Found{Target: []byte(row.Target), Outcome: row.Outcome, Timed: row.Timed(), RTT: row.RTT})
			}
		}
		want = append(want, outcomesText(&o))
	}
	for o, err := range r.ScanOutcomes(t.Context(), after) {
		if err != nil {
			t.Fatalf("ScanOutcomes: %v", err)
		}
		got = append(got, outcomesText(&o))
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatalf("after %v: %s", after, d)
	}
}

// outcomesText is the same for the same results in whatever order.
func outcomesText(o *history.Outcomes) string {
	var list []string
	for _, f := range o.Results {
		list = append(list, fmt.Sprintf("%s %s %v %d", f.Target, f.Outcome, f.Timed, f.RTT))
	}
	slices.Sort(list)
	return fmt.Sprintf("%v %s %q", o.Cursor, o.Agent, list)
}
