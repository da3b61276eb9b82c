//go:build linux

package lab

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestQueueGivesBackInOrderWhatItWasGiven(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var q queue
		var want []item
		steps := rapid.SliceOfN(rapid.IntRange(-1, 20), 1, 100).Draw(t, "departures, -1 to take one out")
		for i, step := range steps {
			if step >= 0 {
				it := item{departure: time.Duration(step), number: uint64(i), packet: q.copy([]byte{byte(i)})}
				q.push(it)
				want = append(want, it)
				continue
			}
			if q.len() == 0 {
				continue
			}
			first := slices.IndexFunc(want, func(a item) bool {
				return !slices.ContainsFunc(want, func(b item) bool { return b.before(&a) })
			})
			got := q.pop()
			if got.number != want[first].number || got.packet[0] != byte(got.number) {
				t.Fatalf("got packet %d with byte %d, want %d", got.number, got.packet[0], want[first].number)
			}
			q.free(got.packet)
			want = slices.Delete(want, first, first+1)
		}
		if q.len() != len(want) || q.bytes != len(want) {
			t.Fatalf("%d packets and %d bytes are left, want %d", q.len(), q.bytes, len(want))
		}
	})
}

// admitted passes packets to a wire without sockets, one every millisecond, and returns their departures.
func admitted(seed uint64, imp Impairment, packets int) (*wire, []time.Duration) {
	w := &wire{rng: rand.New(rand.NewPCG(seed, 0))}
	w.imp.Store(&imp)
	for i := range packets {
		w.admit([]byte("x"), time.Duration(i)*time.Millisecond)
	}
	departures := make([]time.Duration, packets)
	for w.queue.len() > 0 {
		it := w.queue.pop()
		departures[it.number-1] = it.departure
	}
	return w, departures
}

func TestJitterSpreadsAndNeverReorders(t *testing.T) {
	// Packets come more sparsely than they are jittered, then more densely.
	for _, jitter := range []time.Duration{400 * time.Microsecond, 20 * time.Millisecond} {
		const delay = 10 * time.Millisecond
		_, departures := admitted(1, Impairment{Delay: delay, Jitter: jitter}, 5000)
		if !slices.IsSorted(departures) {
			t.Errorf("with jitter %v packets overtake each other", jitter)
		}
		least, most := time.Hour, time.Duration(0)
		var sum time.Duration
		for i, d := range departures {
			d -= time.Duration(i) * time.Millisecond
			least, most, sum = min(least, d), max(most, d), sum+d
		}
		if least < max(0, delay-jitter) || most > delay+jitter || most-least < jitter/2 {
			t.Errorf("with jitter %v delays reach from %v to %v", jitter, least, most)
		}
		if mean := sum / 5000; jitter < time.Millisecond && (mean-delay).Abs() > jitter/20 {
			t.Errorf("with jitter %v the mean delay is %v, want %v", jitter, mean, delay)
		}
	}
}

func TestSameSeedSameFates(t *testing.T) {
	imp := Impairment{Delay: time.Millisecond, Jitter: time.Millisecond, Reorder: 0.2}
	_, first := admitted(1, imp, 1000)
	_, again := admitted(1, imp, 1000)
	_, other := admitted(2, imp, 1000)
	if !slices.Equal(first, again) {
		t.Error("the same seed gives different departures")
	}
	if slices.Equal(first, other) {
		t.Error("different seeds give the same departures")
	}
}

func TestImpairmentsOutOfRangeAreRefused(t *testing.T) {
	for _, imp := range []Impairment{
		{Delay: -1}, {Jitter: -1}, {Hold: -1}, {Delay: maxDelay + 1},
		{Loss: -0.1}, {Loss: 1.1}, {Duplicate: math.NaN()}, {Reorder: math.Inf(1)}, {Queue: -1},
	} {
		if imp.check() == nil {
			t.Errorf("%+v is accepted", imp)
		}
	}
	if err := (Impairment{Loss: 1, Duplicate: 1, Reorder: 1, Delay: maxDelay}).check(); err != nil {
		t.Error(err)
	}
}
