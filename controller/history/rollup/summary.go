// Package rollup sums up results: how many there were of each outcome, and how
// long the round trips were. Add results to a Summary, Merge summaries, ask for a
// Quantile; Append and Decode turn the summaries of one series, slot by slot, into
// bytes and back.
//
// Round trips are kept as a DDSketch (Masson, Rim, Lee: DDSketch, VLDB 2019) of a relative accuracy of
// 1 %: a count for each bin, the bins growing by about 2 %. Any quantile is
// within 1 % of the exact one, and merging loses nothing. Where the bins begin is the
// cubically interpolated mapping of sketches-go, for ever: what is on disk
// depends on it. The counts are packed here, in about half of the bytes of
// that library's own encoding, for most summaries are of 60 results.
package rollup

import (
	"math"
	"time"

	"github.com/DataDog/sketches-go/ddsketch/mapping"

	"github.com/synmesh/synmesh/probe"
)

// accuracy is relative, of any quantile.
const accuracy = 0.01

var bins = func() mapping.IndexMapping {
	m, err := mapping.NewCubicallyInterpolatedMapping(accuracy)
	if err != nil {
		panic(err) // the accuracy is a constant
	}
	return m
}()

// Outcomes is one more than the greatest outcome.
const Outcomes = int(probe.Error) + 1

// Summary sums up results. The zero value is that of none.
type Summary struct {
	// Counts has the results of every outcome.
	Counts [Outcomes]uint64
	// Timed is how many of them have a round trip.
	Timed uint64
	// Min, Max and Sum are of the round trips.
	Min, Max, Sum time.Duration

	sketch[uint64]
}

// Add counts a result. A round trip counts if it is timed; see probe.Result.Timed.
func (s *Summary) Add(o probe.Outcome, rtt time.Duration, timed bool) {
	if int(o) < Outcomes {
		s.Counts[o]++
	}
	if !timed {
		return
	}
	if s.Timed == 0 {
		s.Min, s.Max = rtt, rtt
	}
	s.Min, s.Max = min(s.Min, rtt), max(s.Max, rtt)
	s.Sum += rtt
	s.Timed++
	s.count(rtt)
}

// Merge adds what o sums up.
func (s *Summary) Merge(o *Summary) {
	for i, n := range o.Counts {
		s.Counts[i] += n
	}
	if o.Timed == 0 {
		return
	}
	if s.Timed == 0 {
		s.Min, s.Max = o.Min, o.Max
	}
	s.Min, s.Max = min(s.Min, o.Min), max(s.Max, o.Max)
	s.Sum += o.Sum
	s.Timed += o.Timed
	merge(&s.sketch, &o.sketch)
}

// Reset makes the summary that of no results, and keeps its memory.
func (s *Summary) Reset() { *s = Summary{sketch: s.emptied()} }

// Clone returns a copy that shares nothing with the summary.
func (s *Summary) Clone() *Summary {
	c := *s
	c.counts = append([]uint64(nil), s.counts...)
	return &c
}

// Sent returns the results counted.
func (s *Summary) Sent() (n uint64) {
	for _, c := range s.Counts {
		n += c
	}
	return n
}

// Loss returns the fraction, 0 to 1, of the probes that no round trip came of,
// leaving out those that failed on our side; NaN if none is left. It is that of probe.Summary.
func (s *Summary) Loss() float64 {
	valid := s.Sent() - s.Counts[probe.Error]
	return float64(valid-min(s.Timed, valid)) / float64(valid)
}

// Quantile returns about the smallest round trip that at least the fraction q
// of all do not exceed, as probe.Summary does: within 1 % of it, and exactly that
// for q = 0 and 1. Without a round trip it returns 0.
func (s *Summary) Quantile(q float64) time.Duration {
	if s.Timed == 0 {
		return 0
	}
	rank := uint64(max(math.Ceil(q*float64(s.Timed)*(1-0x1p-51)), 1))
	if q <= 0 || rank == 1 {
		return s.Min
	}
	if rank >= s.Timed {
		return s.Max
	}
	below := uint64(0)
	for i, n := range s.counts {
		if below += n; below >= rank {
			return min(max(time.Duration(math.Round(bins.Value(s.first+i))), s.Min), s.Max)
		}
	}
	return s.Max
}
