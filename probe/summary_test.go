package probe

import (
	"fmt"
	"math"
	"math/big"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func summaryOf(rs ...Result) *Summary {
	var s Summary
	for i := range rs {
		s.Add(&rs[i])
	}
	return &s
}

func open(rtt time.Duration) Result { return Result{Outcome: Open, RTT: rtt} }

func TestAnEmptySummaryClaimsNothing(t *testing.T) {
	var s Summary
	if s.Sent() != 0 || s.Answered() != 0 || s.Count(Open) != 0 {
		t.Errorf("%d sent, %d answered, %d open, want none", s.Sent(), s.Answered(), s.Count(Open))
	}
	if !math.IsNaN(s.Loss()) {
		t.Errorf("Loss() = %v, want NaN", s.Loss())
	}
	if s.Jitter() != 0 || s.Quantile(0) != 0 || s.Quantile(0.5) != 0 || s.Quantile(1) != 0 {
		t.Errorf("jitter %v, quantiles %v %v %v, want 0", s.Jitter(), s.Quantile(0), s.Quantile(0.5), s.Quantile(1))
	}
}

func TestOneRoundTripIsEveryQuantile(t *testing.T) {
	s := summaryOf(open(7))
	for _, q := range []float64{0, 0.001, 0.5, 0.999, 1} {
		if got := s.Quantile(q); got != 7 {
			t.Errorf("Quantile(%v) = %v, want 7ns", q, got)
		}
	}
}

func TestLossIsWhatTheTargetDidNotAnswer(t *testing.T) {
	times := func(n int, o Outcome) []Result { return slices.Repeat([]Result{{Outcome: o}}, n) }
	for _, tt := range []struct {
		name    string
		results []Result
		want    float64
	}{
		{"an open port answers", times(3, Open), 0},
		{"a closed port answers", times(3, Closed), 0},
		{"an ICMP error is no answer of the target", append(times(1, Unreachable), times(3, Open)...), 0.25},
		{"a timeout is a loss", append(times(1, Timeout), times(1, Closed)...), 0.5},
		{"what failed here is left out", append(times(5, Error), append(times(1, Timeout), times(1, Open)...)...), 0.5},
		{"everything may be lost", times(4, Timeout), 1},
		{"1 in 100 is exactly 1 %", append(times(1, Timeout), times(99, Open)...), 0.01},
		{"nothing is left if all failed here", times(2, Error), math.NaN()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := summaryOf(tt.results...).Loss()
			if got != tt.want && !(math.IsNaN(got) && math.IsNaN(tt.want)) {
				t.Errorf("Loss() = %v, want %v", got, tt.want)
			}
		})
	}
}

func TestJitterComparesNeighboursOfOneFlow(t *testing.T) {
	at := func(agent, target string, port uint16, rtt time.Duration) Result {
		return Result{Agent: agent, Target: target, LocalPort: port, Outcome: Open, RTT: rtt}
	}
	for _, tt := range []struct {
		name    string
		results []Result
		want    time.Duration
	}{
		{"one probe has no neighbour", []Result{open(5)}, 0},
		{"a rise counts as much as a fall", []Result{open(10), open(14), open(10)}, 4},
		{"the mean is rounded down", []Result{open(10), open(11), open(13)}, 1},
		{"a refusal is a round trip as well", []Result{open(10), {Outcome: Closed, RTT: 16}}, 6},
		{"probes without an answer are left out", []Result{open(10), {Outcome: Timeout}, {Outcome: Error}, open(12)}, 2},
		{"two source ports are two flows", []Result{at("a", "t", 1, 10), at("a", "t", 2, 1000), at("a", "t", 1, 12), at("a", "t", 2, 1004)}, 3},
		{"two targets are two flows", []Result{at("a", "t", 1, 10), at("a", "u", 1, 1000), at("a", "t", 1, 12)}, 2},
		{"two agents are two flows", []Result{at("a", "t", 1, 10), at("b", "t", 1, 1000), at("a", "t", 1, 12)}, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := summaryOf(tt.results...).Jitter(); got != tt.want {
				t.Errorf("Jitter() = %v, want %v", got, tt.want)
			}
		})
	}
}

func TestResultsMayComeAfterAQuantileWasAskedFor(t *testing.T) {
	s := summaryOf(open(30), open(10))
	if got := s.Quantile(0); got != 10 {
		t.Errorf("Quantile(0) = %v, want 10ns", got)
	}
	next := open(5)
	s.Add(&next)
	if got := s.Quantile(0); got != 5 {
		t.Errorf("Quantile(0) = %v, want 5ns", got)
	}
	if got := s.Jitter(); got != 12 { // 20 and 5, whatever the order that quantiles need
		t.Errorf("Jitter() = %v, want 12ns", got)
	}
}

// nearestRank counts, with whole numbers only, how many round trips each one is
// not exceeded by.
func nearestRank(rtts []time.Duration, thousandths int) time.Duration {
	best := slices.Max(rtts)
	for _, candidate := range rtts {
		n := 0
		for _, rtt := range rtts {
			if rtt <= candidate {
				n++
			}
		}
		if n*1000 >= thousandths*len(rtts) {
			best = min(best, candidate)
		}
	}
	return best
}

func TestASummaryAgreesWithCountingByHand(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		results := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Result {
			r := Result{
				Agent:     rapid.SampledFrom([]string{"a", "b"}).Draw(t, "agent"),
				LocalPort: rapid.Uint16Range(1, 2).Draw(t, "port"),
				Outcome:   rapid.SampledFrom(Outcomes()).Draw(t, "outcome"),
			}
			if r.Outcome.Answered() {
				r.RTT = time.Duration(rapid.Int64Range(0, 50).Draw(t, "rtt"))
			}
			return r
		}), 0, 120).Draw(t, "results")
		s := summaryOf(results...)

		var rtts []time.Duration
		counts := make(map[Outcome]int)
		flows := make(map[string][]time.Duration)
		for _, r := range results {
			counts[r.Outcome]++
			if r.Outcome.Answered() {
				rtts = append(rtts, r.RTT)
				f := fmt.Sprint(r.Agent, r.LocalPort)
				flows[f] = append(flows[f], r.RTT)
			}
		}
		for _, o := range Outcomes() {
			if s.Count(o) != counts[o] {
				t.Fatalf("Count(%v) = %d, want %d", o, s.Count(o), counts[o])
			}
		}
		if s.Sent() != len(results) || s.Answered() != len(rtts) {
			t.Fatalf("%d sent and %d answered, want %d and %d", s.Sent(), s.Answered(), len(results), len(rtts))
		}
		if valid := len(results) - counts[Error]; valid > 0 {
			want, _ := big.NewRat(int64(counts[Unreachable]+counts[Timeout]), int64(valid)).Float64()
			if s.Loss() != want {
				t.Fatalf("Loss() = %v, want %v", s.Loss(), want)
			}
		}
		var sum time.Duration
		pairs := 0
		for _, f := range flows {
			for i := 1; i < len(f); i++ {
				sum += max(f[i]-f[i-1], f[i-1]-f[i])
				pairs++
			}
		}
		if want := sum / time.Duration(max(pairs, 1)); s.Jitter() != want {
			t.Fatalf("Jitter() = %v, want %v", s.Jitter(), want)
		}
		if len(rtts) == 0 {
			return
		}
		if s.Quantile(0) != slices.Min(rtts) {
			t.Fatalf("Quantile(0) = %v, want %v", s.Quantile(0), slices.Min(rtts))
		}
		thousandths := rapid.IntRange(1, 1000).Draw(t, "thousandths")
		if got, want := s.Quantile(float64(thousandths)/1000), nearestRank(rtts, thousandths); got != want {
			t.Fatalf("Quantile(%d/1000) of %v = %v, want %v", thousandths, rtts, got, want)
		}
	})
}

// The ranks are those that decimal fractions have, however these are rounded in
// binary: 0.07 * 100 is a little above 7.
func TestQuantilesOfAHundredAreItsMembers(t *testing.T) {
	var s Summary
	for i := 100; i > 0; i-- {
		r := open(time.Duration(i))
		s.Add(&r)
	}
	for i := 1; i <= 100; i++ {
		if got := s.Quantile(float64(i) / 100); got != time.Duration(i) {
			t.Errorf("Quantile(%d/100) = %d, want %d", i, got, i)
		}
	}
}

func BenchmarkSummaryAdd(b *testing.B) {
	r := open(time.Millisecond)
	var s Summary
	b.ReportAllocs()
	for b.Loop() {
		r.LocalPort = uint16(s.Sent() & 7)
		s.Add(&r)
	}
}
