package rollup

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/synmesh/synmesh/probe"
)

var same = cmp.Options{cmp.AllowUnexported(Summary{}, sketch[uint64]{}), cmpopts.EquateEmpty()}

func lognormal(rnd *rand.Rand) time.Duration {
	return time.Duration(1e6 * math.Exp(0.3*rnd.NormFloat64()))
}

// minutes returns the summaries of as many slots of results.
func minutes(n, each int) []Slot {
	rnd := rand.New(rand.NewPCG(3, 4))
	slots := make([]Slot, n)
	for i := range slots {
		slots[i].At = 29_000_000 + int64(i)
		for range each {
			slots[i].Add(probe.Open, lognormal(rnd), true)
		}
	}
	return slots
}

func decoded(t rapid.TB, data []byte) (list []Slot) {
	t.Helper()
	err := Decode(data, math.MinInt64, math.MaxInt64, nil, func(s *Slot) bool {
		list = append(list, Slot{s.At, *s.Clone()})
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// Any results, in any parts, merged and encoded, are those of all together, and
// quantiles are near those of probe.Summary.
func TestSummariesMergeExactlyAndAreNearTheTruth(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var whole Summary
		var exact probe.Summary
		parts := make([]Slot, rapid.IntRange(1, 5).Draw(t, "parts"))
		for i := range parts {
			parts[i].At = int64(i*i) - 3
		}
		for range rapid.IntRange(0, 200).Draw(t, "results") {
			r := probe.Result{
				Outcome: rapid.SampledFrom(probe.Outcomes()).Draw(t, "outcome"),
				RTT:     time.Duration(1) << rapid.IntRange(0, 55).Draw(t, "size") * time.Duration(rapid.IntRange(1, 99).Draw(t, "more")),
			}
			if rapid.IntRange(0, 9).Draw(t, "retried") == 0 {
				r.Retry = &probe.Retry{}
			}
			exact.Add(&r)
			whole.Add(r.Outcome, r.RTT, r.Timed())
			rapid.SampledFrom([]*Slot{&parts[0], &parts[len(parts)-1]}).Draw(t, "part").Add(r.Outcome, r.RTT, r.Timed())
		}
		got := decoded(t, Append(nil, parts))
		if d := cmp.Diff(parts, got, same); d != "" {
			t.Fatal(d)
		}
		var merged Summary
		for i := range got {
			merged.Merge(&got[i].Summary)
		}
		if d := cmp.Diff(whole, merged, same); d != "" {
			t.Fatal(d)
		}
		for _, q := range []float64{0, 0.01, 0.5, 0.9, 0.99, 1} {
			want, have := exact.Quantile(q), merged.Quantile(q)
			if diff := (have - want).Abs(); float64(diff) > accuracy*float64(want)+1 {
				t.Errorf("q %v: %v, and it is %v", q, have, want)
			}
		}
		for _, o := range probe.Outcomes() {
			if int(merged.Counts[o]) != exact.Count(o) {
				t.Errorf("%v: %d, not %d", o, merged.Counts[o], exact.Count(o))
			}
		}
		if a, b := merged.Loss(), exact.Loss(); a != b && !(math.IsNaN(a) && math.IsNaN(b)) {
			t.Errorf("loss %v, not %v", a, b)
		}
	})
}

// A few results come to the same as in a summary, and there is room for 65,535.
func TestFewAreSummedUpLikeOthers(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	var few Few
	for range 2 {
		want, got := Summary{}, Summary{}
		want.Add(probe.Open, time.Second, true)
		got.Add(probe.Open, time.Second, true)
		for i := range math.MaxUint16 {
			outcome, rtt, timed := probe.Outcomes()[rnd.IntN(len(probe.Outcomes()))], lognormal(rnd), rnd.IntN(3) > 0
			if i > math.MaxUint16/2 { // so that more than half are in one bin
				outcome, rtt, timed = probe.Open, time.Millisecond, true
			}
			want.Add(outcome, rtt, timed)
			if !few.Add(outcome, rtt, timed) {
				t.Fatalf("there is room for %d only", i)
			}
		}
		if few.Add(probe.Open, 1, true) || few.Empty() {
			t.Error("there is room for more than 65,535")
		}
		few.AddTo(&got)
		if d := cmp.Diff(want, got, same); d != "" {
			t.Error(d)
		}
		few.Reset()
		if !few.Empty() {
			t.Error("after Reset there is something")
		}
	}
}

func TestDecodeGivesWhatIsAskedFor(t *testing.T) {
	slots := minutes(10, 3)
	data := Append(nil, slots)
	var got []int64
	if err := Decode(data, slots[2].At, slots[5].At, nil, func(s *Slot) bool {
		got = append(got, s.At-slots[0].At)
		return len(got) < 2
	}); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]int64{2, 3}, got); d != "" {
		t.Error(d)
	}
	for n := range data {
		if err := Decode(data[:n], 0, math.MaxInt64, nil, func(*Slot) bool { return true }); !errors.Is(err, ErrMalformed) {
			t.Fatalf("cut to %d of %d bytes: %v", n, len(data), err)
		}
	}
}

func TestDecodeGivesTheTotalWhereThatWillDo(t *testing.T) {
	slots := minutes(10, 20)
	data := Append(nil, slots)
	var want Summary
	for i := range slots {
		want.Merge(&slots[i].Summary)
	}
	for what, c := range map[string]struct {
		from, to int64
		together bool
		calls    int
	}{
		"all":               {slots[0].At, slots[9].At + 1, true, 1},
		"all, told apart":   {slots[0].At, slots[9].At + 1, false, 10},
		"without the first": {slots[1].At, slots[9].At + 1, true, 9},
		"without the last":  {slots[0].At, slots[9].At, true, 9},
	} {
		calls := 0
		var sum Summary
		err := Decode(data, c.from, c.to, func(first, last int64) bool {
			if first != slots[0].At || last != slots[9].At {
				t.Errorf("%s: from %d to %d", what, first, last)
			}
			return c.together
		}, func(s *Slot) bool {
			calls++
			sum.Merge(&s.Summary)
			return true
		})
		if err != nil || calls != c.calls {
			t.Errorf("%s: %d calls, not %d; %v", what, calls, c.calls, err)
		}
		if d := cmp.Diff(want, sum, same); c.calls != 9 && d != "" {
			t.Errorf("%s: %s", what, d)
		}
	}
}

func TestSummariesAreSmall(t *testing.T) {
	for _, c := range []struct{ each, limit int }{{60, 38}, {3600, 130}} {
		data := Append(nil, minutes(60, c.each))
		t.Logf("of %d results: %d bytes", c.each, len(data)/60)
		if len(data)/60 > c.limit {
			t.Errorf("summaries of %d results take %d bytes each, more than %d", c.each, len(data)/60, c.limit)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte{})
	f.Add(Append(nil, nil))
	f.Add(Append(nil, minutes(3, 60)))
	odd := []Slot{{At: -5}, {At: 7}}
	odd[0].Add(probe.Timeout, 0, false)
	odd[0].Add(probe.Closed, time.Hour, true)
	odd[1].Add(probe.Open, 0, false)
	odd[1].Add(probe.Open, 1, true)
	f.Add(Append(nil, odd))
	f.Fuzz(func(t *testing.T, data []byte) {
		var list []Slot
		err := Decode(data, math.MinInt64, math.MaxInt64, nil, func(s *Slot) bool {
			list = append(list, Slot{s.At, *s.Clone()})
			return true
		})
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Error(err)
			}
			return
		}
		if d := cmp.Diff(list, decoded(t, Append(nil, list)), same); d != "" {
			t.Error(d)
		}
	})
}

func BenchmarkAdd(b *testing.B) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var rtts [1024]time.Duration
	for i := range rtts {
		rtts[i] = lognormal(rnd)
	}
	var s Summary
	for i := 0; b.Loop(); i++ {
		s.Add(probe.Open, rtts[i%1024], true)
	}
}

// BenchmarkMerge decodes and merges the 60 summaries of an hour. One operation is a summary.
func BenchmarkMerge(b *testing.B) {
	data := Append(nil, minutes(60, 60))
	var sum Summary
	b.ReportAllocs()
	for n := 0; n < b.N; n += 60 {
		if err := Decode(data, 0, math.MaxInt64, nil, func(s *Slot) bool { sum.Merge(&s.Summary); return true }); err != nil {
			b.Fatal(err)
		}
	}
}
