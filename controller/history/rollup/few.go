package rollup

import (
	"math"
	"time"

	"github.com/synmesh/synmesh/probe"
)

// Few sums up no more than 65,535 results, in a quarter of the memory that a Summary takes: for
// summaries that are being added to, of which there may be many. The zero value is that of none.
type Few struct {
	outcomes      [Outcomes]uint16
	sent, timed   uint16
	min, max, sum time.Duration
	sketch[uint16]
}

// Add does what Summary.Add does; ok is false if there is no room for the result.
func (f *Few) Add(o probe.Outcome, rtt time.Duration, timed bool) (ok bool) {
	if f.sent == math.MaxUint16 {
		return false
	}
	if int(o) < Outcomes {
		f.outcomes[o]++
	}
	f.sent++
	if !timed {
		return true
	}
	if f.timed == 0 {
		f.min, f.max = rtt, rtt
	}
	f.min, f.max = min(f.min, rtt), max(f.max, rtt)
	f.sum += rtt
	f.timed++
	f.count(rtt)
	return true
}

// AddTo adds what is summed up to a summary.
func (f *Few) AddTo(s *Summary) {
	for i, n := range f.outcomes {
		s.Counts[i] += uint64(n)
	}
	if f.timed == 0 {
		return
	}
	if s.Timed == 0 {
		s.Min, s.Max = f.min, f.max
	}
	s.Min, s.Max = min(s.Min, f.min), max(s.Max, f.max)
	s.Sum += f.sum
	s.Timed += uint64(f.timed)
	merge(&s.sketch, &f.sketch)
}

// Empty tells whether there is no result.
func (f *Few) Empty() bool { return f.sent == 0 }

// Reset makes it that of no results, and keeps its memory.
func (f *Few) Reset() { *f = Few{sketch: f.emptied()} }
