package probe

import (
	"math"
	"slices"
	"time"
)

// Summary gathers the results of one series. It keeps every round trip (8
// bytes each), so its quantiles are exact. The zero value is ready for use;
// it is not safe for concurrent use.
type Summary struct {
	counts  [Error + 1]int
	rtts    []time.Duration
	ordered bool
	last    map[flow]time.Duration
	varied  time.Duration // sum of |difference| between neighbours
	pairs   int
	offsets map[flow]uint32 // between the two initial sequence numbers
	equal   int             // neighbours with the same offset
	numbers int             // neighbours of which the offsets are known
}

type flow struct {
	agent, target string
	port          uint16
}

// Add counts one result.
func (s *Summary) Add(r *Result) {
	s.counts[r.Outcome]++
	if !r.Outcome.Answered() {
		return
	}
	s.addNumbers(r)
	if !r.Timed() {
		return
	}
	s.rtts = append(s.rtts, r.RTT)
	s.ordered = false
	if s.last == nil {
		s.last = make(map[flow]time.Duration)
	}
	f := flow{r.Agent, r.Target, r.LocalPort}
	if before, ok := s.last[f]; ok {
		s.varied += (r.RTT - before).Abs()
		s.pairs++
	}
	s.last[f] = r.RTT
}

func (s *Summary) addNumbers(r *Result) {
	if r.SYN == 0 || r.SynAck == nil {
		return
	}
	if s.offsets == nil {
		s.offsets = make(map[flow]uint32)
	}
	f, offset := flow{r.Agent, r.Target, r.LocalPort}, r.SynAck.Seq-r.SYN
	if before, ok := s.offsets[f]; ok {
		s.numbers++
		if before == offset {
			s.equal++
		}
	}
	s.offsets[f] = offset
}

// Cookies says whether the target seems to answer with SYN cookies (RFC 4987
// section 3.6): "likely", "unlikely", or "unknown" for want of observations. A cookie is our
// sequence number plus a hash of addresses and ports that changes once a
// minute, so its offset from ours stays the same; other sequence numbers rise.
func (s *Summary) Cookies() string {
	switch {
	case s.numbers == 0:
		return "unknown"
	case s.equal*2 >= s.numbers:
		return "likely"
	}
	return "unlikely"
}

// Count returns the results that had the outcome.
func (s *Summary) Count(o Outcome) int { return s.counts[o] }

// Sent returns the results counted: every probe has one.
func (s *Summary) Sent() int {
	n := 0
	for _, c := range s.counts {
		n += c
	}
	return n
}

// Answered returns the probes that the target itself answered.
func (s *Summary) Answered() int { return s.counts[Open] + s.counts[Closed] }

// Timed returns the probes of which a round trip is known; see Result.Timed.
func (s *Summary) Timed() int { return len(s.rtts) }

// Loss returns the fraction, 0 to 1, of the probes that the target did not
// answer (RFC 2680), leaving out those that failed on our side. It is NaN if none is left.
func (s *Summary) Loss() float64 {
	valid := s.Sent() - s.counts[Error]
	return float64(valid-len(s.rtts)) / float64(valid) // 1 of 100 is 0.01, and not above it
}

// Jitter returns the mean absolute difference between the round trips of
// neighbouring probes of one flow (RFC 3393), or 0 if there are no two. Probes
// without an answer are left out: a timeout is known only after its neighbours.
func (s *Summary) Jitter() time.Duration {
	if s.pairs == 0 {
		return 0
	}
	return s.varied / time.Duration(s.pairs)
}

// Quantile returns the smallest round trip that at least the fraction q of
// all do not exceed (nearest rank), 0 < q <= 1; q = 0 gives the
// minimum. Without a round trip it returns 0.
func (s *Summary) Quantile(q float64) time.Duration {
	if len(s.rtts) == 0 {
		return 0
	}
	if !s.ordered {
		slices.Sort(s.rtts)
		s.ordered = true
	}
	rank := int(math.Ceil(q * float64(len(s.rtts)) * (1 - 0x1p-51))) // 0.07 * 100 is a little above 7
	return s.rtts[min(max(rank, 1), len(s.rtts))-1]
}
