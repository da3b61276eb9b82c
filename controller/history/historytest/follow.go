package historytest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/synmesh/synmesh/controller/history"
	"github.com/synmesh/synmesh/internal/convert"
	"github.com/synmesh/synmesh/probe"
	synmeshv1 "github.com/synmesh/synmesh/proto/synmesh/v1"
)

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
