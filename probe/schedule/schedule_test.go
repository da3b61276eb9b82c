package schedule

import (
	"math"
	"testing"
	"time"

	"github.com/synmesh/synmesh/probe"
)

// follow runs a schedule to its end, or for so many probes, and returns the
// times of each slot.
func follow(t *testing.T, s probe.Spec, slots, most int) [][]time.Duration {
	t.Helper()
	times := make([][]time.Duration, slots)
	var last time.Duration
	c := New(&s, slots)
	for range most {
		slot, due, ok := c.Next()
		if !ok {
			break
		}
		if due < last {
			t.Fatalf("slot %d is due at %v, after one at %v", slot, due, last)
		}
		last = due
		times[slot] = append(times[slot], due)
		if got := c.Begin(due); got != due {
			t.Fatalf("slot %d began at %v and was due at %v", slot, due, got)
		}
	}
	return times
}

func TestEverySlotIsProbedAsOftenAsAsked(t *testing.T) {
	for _, s := range []probe.Spec{{}, {Poisson: true}, {Jitter: 0.5}, {Phase: time.Second}} {
		s.Count, s.Interval = 7, time.Second
		for slot, times := range follow(t, s, 13, 1000) {
			if len(times) != 7 {
				t.Errorf("%+v: slot %d is probed %d times", s, slot, len(times))
			}
		}
	}
}

func TestPeriodicProbesKeepTheirIntervalAndAreSpread(t *testing.T) {
	s := probe.Spec{Interval: time.Second}
	for slot, at := range follow(t, s, 1000, 3000) {
		for i := 1; i < len(at); i++ {
			if at[i]-at[i-1] != time.Second {
				t.Fatalf("slot %d: %v apart", slot, at[i]-at[i-1])
			}
		}
		if even := time.Duration(slot) * time.Millisecond; at[0] > even || at[0] < even-20*time.Millisecond {
			t.Errorf("slot %d begins at %v, want at most 20ms before %v", slot, at[0], even)
		}
	}
}

func TestJitterMovesProbesAtRandomAndKeepsTheirMeanInterval(t *testing.T) {
	periodic := follow(t, probe.Spec{Interval: time.Second}, 7, 7*1000)
	for slot, at := range follow(t, probe.Spec{Interval: time.Second, Jitter: 0.2}, 7, 7*900) {
		var sum, squares float64
		for i := range at[:800] {
			late := (at[i] - periodic[slot][i]).Seconds()
			if late < 0 || late > 0.2 {
				t.Fatalf("slot %d: probe %d is %v s late on purpose, want 0 to 0.2", slot, i, late)
			}
			sum += late
			squares += late * late
		}
		mean := sum / 800
		// Uniform over 0 to 0.2: 0.1 and 0.2/sqrt(12) = 0.0577, with one sigma of 0.002 and 0.001.
		if deviation := math.Sqrt(squares/800 - mean*mean); math.Abs(mean-0.1) > 0.012 || math.Abs(deviation-0.0577) > 0.008 {
			t.Errorf("slot %d: mean %v s, standard deviation %v s, want 0.1 and 0.0577", slot, mean, deviation)
		}
	}
}

func TestPhasePutsEverythingOff(t *testing.T) {
	plain := follow(t, probe.Spec{Interval: time.Second}, 3, 30)
	for slot, at := range follow(t, probe.Spec{Interval: time.Second, Phase: 300 * time.Millisecond}, 3, 30) {
		for i := range at {
			if at[i]-plain[slot][i] != 300*time.Millisecond {
				t.Fatalf("slot %d: probe %d is due at %v, want %v and the phase", slot, i, at[i], plain[slot][i])
			}
		}
	}
}

func TestPoissonProbesHaveTheMeanAndTheSpreadOfTheirDistribution(t *testing.T) {
	s := probe.Spec{Interval: time.Second, Poisson: true}
	for slot, at := range follow(t, s, 3, 60_000) {
		var sum, squares float64
		for i := 1; i < len(at); i++ {
			gap := (at[i] - at[i-1]).Seconds()
			sum += gap
			squares += gap * gap
		}
		n := float64(len(at) - 1)
		mean := sum / n
		deviation := math.Sqrt(squares/n - mean*mean)
		// Of 20,000 gaps, the mean is off by 0.7 % and the deviation by 1 %, one sigma.
		if math.Abs(mean-1) > 0.05 || math.Abs(deviation-1) > 0.08 {
			t.Errorf("slot %d: mean %v s, standard deviation %v s, want 1 and 1", slot, mean, deviation)
		}
	}
}

func TestALittleLagIsCaughtUpWithAndALotShiftsTheRest(t *testing.T) {
	s := probe.Spec{Interval: time.Second}
	c := New(&s, 1)
	for _, step := range []struct{ due, begins, counts time.Duration }{
		{0, 0, 0},
		{1000, 1900, 1000}, // caught up with
		{2000, 2000, 2000},
		{3000, 4001, 4001}, // by more than a second: shifted
		{5001, 5001, 5001},
		{6001, 60000, 60000},
		{61000, 61500, 61000},
	} {
		_, due, ok := c.Next()
		if !ok || due != step.due*time.Millisecond {
			t.Fatalf("due at %v, want %v", due, step.due*time.Millisecond)
		}
		if got := c.Begin(step.begins * time.Millisecond); got != step.counts*time.Millisecond {
			t.Errorf("lateness counts from %v, want %v", got, step.counts*time.Millisecond)
		}
	}
}

func TestASlotOfPoissonProbesIsShiftedToo(t *testing.T) {
	s := probe.Spec{Interval: time.Second, Poisson: true}
	c := New(&s, 3)
	_, due, _ := c.Next()
	c.Begin(due + time.Hour)
	if _, next, _ := c.Next(); next < due+time.Hour {
		t.Errorf("due at %v, in the past", next)
	}
}

func TestWhatHasEndedStaysEnded(t *testing.T) {
	for _, poisson := range []bool{false, true} {
		s := probe.Spec{Count: 1, Interval: time.Second, Poisson: poisson}
		c := New(&s, 1)
		c.Begin(0)
		if got := c.Begin(time.Minute); got != time.Minute {
			t.Errorf("poisson %v: due at %v", poisson, got)
		}
		if _, _, ok := c.Next(); ok {
			t.Errorf("poisson %v: there is more", poisson)
		}
	}
}
