package metrics

import (
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"
)

// What is counted here is what a histogram of client_golang counts, to the last bucket. That
// has bounds which are off by a bit; it shows from days on.
func TestRoundTripsAreCountedAsPrometheusDoes(t *testing.T) {
	const longest = time.Hour
	around := rapid.Custom(func(t *rapid.T) time.Duration {
		return cells[rapid.IntRange(0, cellOf(longest)).Draw(t, "cell")].last + time.Duration(rapid.IntRange(-1, 1).Draw(t, "beside"))
	})
	anything := rapid.Custom(func(t *rapid.T) time.Duration {
		return time.Duration(rapid.Int64Range(0, int64(longest)).Draw(t, "nanoseconds") >> rapid.IntRange(0, 42).Draw(t, "shift"))
	})
	usual := rapid.Map(rapid.IntRange(100, 20_000), func(us int) time.Duration { return time.Duration(us) * time.Microsecond })
	rapid.Check(t, func(t *rapid.T) {
		real := prometheus.NewHistogram(prometheus.HistogramOpts{
			Buckets: rttBuckets, NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: maxBuckets,
		})
		var ours rtts
		kind := rapid.SampledFrom([]*rapid.Generator[time.Duration]{usual, anything, rapid.OneOf(around, anything, usual)}).Draw(t, "kind")
		for _, d := range rapid.SliceOfN(kind, 0, 400).Draw(t, "round trips") {
			real.Observe(d.Seconds())
			ours.add(d)
		}
		var m dto.Metric
		if err := real.Write(&m); err != nil {
			t.Fatal(err)
		}
		want, got := m.GetHistogram(), ours.histogram()
		if s := want.GetSampleSum(); math.Abs(got.GetSampleSum()-s) > 1e-12*s {
			t.Fatalf("the sum is %v, not %v", got.GetSampleSum(), s)
		}
		want.SampleSum, got.SampleSum, want.CreatedTimestamp = nil, nil, nil
		if d := cmp.Diff(want, got, protocmp.Transform()); d != "" {
			t.Fatal(d)
		}
	})
}

func TestEveryRoundTripHasItsCell(t *testing.T) {
	for at, c := range cells {
		first := time.Duration(1)
		if at > 0 {
			first = cells[at-1].last + 1
		}
		if a, b := cellOf(first), cellOf(c.last); a != at || b != at {
			t.Errorf("cell %d is from %d to %d, and these are in %d and %d", at, first, c.last, a, b)
		}
	}
	if last := cells[len(cells)-1].last; last != math.MaxInt64 {
		t.Errorf("the last cell ends at %d", last)
	}
}

func TestWhatIsLessThanNothingIsZero(t *testing.T) {
	var r rtts
	for _, d := range []time.Duration{0, -1, math.MinInt64} {
		r.add(d)
	}
	if h := r.histogram(); h.GetSampleCount() != 3 || h.GetZeroCount() != 3 || h.GetSampleSum() != 0 || h.GetBucket()[0].GetCumulativeCount() != 3 || len(h.GetPositiveDelta()) != 0 {
		t.Errorf("got %v", h)
	}
}
