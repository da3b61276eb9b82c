// Package policy is the agent's own word on what it does for others: ceilings
// compiled in, which no controller can lift. Limit makes a prober that keeps
// within them; Check says early what it would refuse in any case.
//
// A Spec is judged by the rates it asks for. While it goes on it takes its part
// of the ceilings, and for a moment after, so that many short ones send no more
// than a long one. Who is probed is told by address: Limited looks names up
// itself, and hands on what it has judged.
package policy

import (
	"net/netip"
	"time"

	"github.com/synmesh/synmesh/probe"
)

// The ceilings, in SYNs a second on a controller's word. Retries count as if
// every one were sent, for a target that is silent gets them all.
const (
	// MaxRate is for one target. Each SYN leaves half-open state behind for a
	// moment, which is the target's to bear.
	MaxRate = 10
	// MaxResponderRate is for one responder of the fleet, in MaxRate's place.
	MaxResponderRate = 1000
	// MaxHostRate is for all ports of a host together, so that a table of ports
	// is no flood; responders do not count.
	MaxHostRate = 100
	// MaxTotal is for all that an agent does. Seven SYNs for every probe that a
	// controller plans (1,000 a second) fit in, and an uplink does not notice.
	MaxTotal = 10_000
)

// burst is over what time a rate is held: a Spec counts for one SYN in that
// time at least, to each of its targets and hosts, since it may begin with one
// at once, and what it sent last counts for as long after its end.
const burst = 10 * time.Second

// Check refuses a Spec that goes beyond the ceilings whatever else goes on and
// wherever its names lead, and says what would be allowed. An address may be a
// responder's, which only Limited knows.
func Check(s *probe.Spec) error {
	c := count(s, func(t probe.Target) bool {
		_, err := netip.ParseAddr(t.Host)
		return err == nil
	})
	return c.alone()
}

// Refusal is the error of a Spec that goes beyond the ceilings.
type Refusal struct{ why string }

// Error says what was asked for, what is allowed, and what would be right.
func (r *Refusal) Error() string { return r.why }
