// Package policy is the agent's own word on what it does for others: ceilings
// compiled in, which no controller can lift.
package policy

import (
	"fmt"

	"github.com/synmesh/synmesh/probe"
)

// MaxRate is how many SYNs a second an agent sends to one target on a
// controller's word. Each leaves half-open state behind for a moment, which is the target's to bear.
const MaxRate = 10

// Check refuses a Spec that goes beyond the ceilings, and says what would be allowed.
func Check(s *probe.Spec) error {
	perTarget := make(map[string]int)
	worst := 0
	for _, t := range s.Targets {
		perTarget[t.Address()]++
		worst = max(worst, perTarget[t.Address()])
	}
	worst *= 1 + s.Retries // a target that is silent gets them all
	if rate := s.Rate() * float64(worst); rate > MaxRate {
		fewer := "fewer flows"
		if s.Retries > 0 {
			fewer = fmt.Sprintf("fewer than %d retries or fewer flows", s.Retries)
		}
		return fmt.Errorf("%.4g SYNs a second to one target; agents allow %d: an interval of at least %.4gs with %d flows, or %s",
			rate, MaxRate, float64(s.Flows*worst)/MaxRate, s.Flows, fewer)
	}
	return nil
}
