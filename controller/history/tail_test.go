package history

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/synmesh/synmesh/internal/convert"
	"github.com/synmesh/synmesh/probe"
	synmeshv1 "github.com/synmesh/synmesh/proto/synmesh/v1"
)

// late makes reports whose results are of any of some minutes before, in no order, and returns the results. A query
// is put in between now and then.
func late(t *testing.T, s *running, c *clock, reports, minutes int, ask func()) (all []probe.Result) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range reports {
		at := c.now().Add(-time.Duration(rnd.IntN(minutes)) * time.Minute)
		r := manySeries(rnd, at, uint64(i+1), 1+rnd.IntN(3))
		if _, err := s.Append(t.Context(), "agent-0000", r); err != nil {
			t.Fatal(err)
		}
		for res := range convert.Rows("agent-0000", r) {
			all = append(all, *res)
		}
		if rnd.IntN(10) == 0 {
			ask()
		}
	}
	return all
}

// Results of the intake that come late, and in any order, are summed up like others.
func TestTheTailTakesResultsInAnyOrder(t *testing.T) {
	c := newClock("2026-11-20T12:00:00Z")
	s := start(t, Config{Dir: t.TempDir(), now: c.now, noArchive: true})
	q := Query{From: c.now().Add(-2 * time.Hour), To: c.now().Add(time.Minute)}
	ask := func() {
		if _, err := s.Query(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	all := late(t, s, c, 400, 90, ask)
	for _, q.Step = range []time.Duration{0, time.Minute, 15 * time.Minute} {
		step := q.Step
		if step == 0 {
			step = q.To.Sub(q.From)
		}
		want, _ := expected(all, q, q.From, step)
		answers, err := s.Query(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		if got := summed(answers); !slices.Equal(want, got) {
			t.Errorf("%v:\n%s\nnot\n%s", q.Step, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	for _, m := range s.files[0].tail.sums.list {
		if m.runs >= 90 {
			t.Errorf("%s has %d runs", m.target, m.runs)
		}
	}
}

// A tail that would be too large is not kept, and answers are right all the same.
func TestATailThatIsTooLargeIsNotKept(t *testing.T) {
	const reports, each = 4, maxTail/tailSeriesBytes/3 + 1
	c := newClock("2026-11-20T12:00:00Z")
	s := start(t, Config{Dir: t.TempDir(), now: c.now, noArchive: true})
	for i := range reports {
		r := &synmeshv1.Report{Epoch: 1, Sequence: uint64(i + 1)}
		for n := range each {
			r.Blocks = append(r.Blocks, &synmeshv1.ResultBlock{
				Source: "runs/a", Target: fmt.Sprint(i, " ", n), Start: c.now().UnixNano(), TimeDeltas: []int64{0}, Outcomes: []synmeshv1.Outcome{synmeshv1.Outcome_OUTCOME_OPEN},
				Rtts: []int64{1e6}, LocalPorts: []uint32{1}, Latenesses: []int64{0}, HostDelays: []int64{0}, SynAckIndexes: []uint32{0}, Address: []byte{10, 0, 0, 1}, Stamp: 1,
			})
		}
		if _, err := s.Append(t.Context(), "agent-0000", r); err != nil {
			t.Fatal(err)
		}
		answers, err := s.Query(t.Context(), Query{From: c.now().Add(-time.Minute), To: c.now().Add(time.Minute),
			Group: func(Series) (Series, bool) { return Series{}, true }})
		if err != nil || len(answers) != 1 || answers[0].Steps[0].Timed != uint64((i+1)*each) {
			t.Fatalf("after report %d: %v, %v", i+1, summed(answers), err)
		}
		if large := i >= 2; s.files[0].tail.large != large || (s.files[0].tail.sums == nil) != large {
			t.Errorf("after report %d it is kept: %v", i+1, !s.files[0].tail.large)
		}
	}
}

// A minute has room for any number of results.
func TestAMinuteOfTheTailTakesMany(t *testing.T) {
	const results = 3*math.MaxUint16 + 7
	sums := &tailSums{}
	s := &tailSeries{most: minRuns}
	for range results {
		sums.addResult(s, int64(90*time.Second), probe.Open, time.Millisecond, true)
	}
	all := newSums()
	for run := range s.eachRun {
		if err := all.add(run, 0, 10); err != nil {
			t.Fatal(err)
		}
	}
	got := all.slot[1]
	s.open.AddTo(got)
	if len(all.slot) != 1 || got.Timed != results || got.Sum != results*time.Millisecond {
		t.Errorf("%d results in %d minutes, not %d in one", got.Timed, len(all.slot), results)
	}
}

// Who waits while another reads on may go.
func TestWhoWaitsForTheTailMayGo(t *testing.T) {
	s := start(t, Config{Dir: t.TempDir(), noArchive: true})
	add(t, s, "a", 1, 1)
	q := Query{From: time.Now().Add(-time.Hour), To: time.Now()}
	s.files[0].tail.turn <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Query(ctx, q); !errors.Is(err, context.Canceled) {
		t.Errorf("whoever went has got an answer: %v", err)
	}
	<-s.files[0].tail.turn
	if _, err := s.Query(t.Context(), q); err != nil {
		t.Error(err)
	}
}
