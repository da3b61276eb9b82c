package rollup

import "time"

// sketch counts round trips by bins.
type sketch[N uint16 | uint64] struct {
	first  int // bin that counts[0] is of
	counts []N // neither the first nor the last is 0
}

// count counts a round trip.
func (s *sketch[N]) count(rtt time.Duration) {
	i := bins.Index(float64(max(rtt, 1)))
	s.cover(i, i)
	s.counts[i-s.first]++
}

// cover makes room for the bins from low to high.
func (s *sketch[N]) cover(low, high int) {
	if len(s.counts) == 0 {
		s.first = low
		if n := high - low + 1; n <= cap(s.counts) {
			s.counts = s.counts[:n]
			clear(s.counts)
		} else {
			s.counts = make([]N, n, n+n/4) // there will be others to the right
		}
		return
	}
	if last := s.first + len(s.counts) - 1; high > last {
		s.counts = append(s.counts, make([]N, high-last)...)
	}
	if more := s.first - low; more > 0 {
		s.counts = append(s.counts, make([]N, more)...)
		copy(s.counts[more:], s.counts)
		clear(s.counts[:more])
		s.first = low
	}
}

// emptied returns a sketch of nothing with the memory of this one.
func (s *sketch[N]) emptied() sketch[N] { return sketch[N]{counts: s.counts[:0]} }

// merge adds what another has counted, if that is anything.
func merge[N uint16 | uint64](s *sketch[uint64], o *sketch[N]) {
	s.cover(o.first, o.first+len(o.counts)-1)
	into := s.counts[o.first-s.first:][:len(o.counts)]
	for i, n := range o.counts {
		into[i] += uint64(n)
	}
}
