package probe

import (
	"errors"
	"fmt"
	"time"
)

// Family restricts a target's addresses to one version of IP.
type Family uint8

// The families. AnyFamily takes the resolver's first address.
const (
	AnyFamily Family = 0
	IPv4      Family = 4
	IPv6      Family = 6
)

// Spec says how targets are to be probed.
type Spec struct {
	Targets []Target
	// Count is the number of probes for each target and flow; 0 goes on until stopped.
	Count int
	// Interval lies between two probes of one target and flow.
	Interval time.Duration
	// Timeout is how long an answer is waited for.
	Timeout time.Duration
	// Flows is the number of source ports that each target is probed from.
	// Routers that balance by 5-tuple (ECMP) keep each on a path of its own.
	Flows  int
	Family Family
}

// The limits and the defaults of a Spec.
const (
	DefaultInterval = time.Second
	DefaultTimeout  = 3 * time.Second
	MinInterval     = time.Millisecond
	MaxInterval     = 24 * time.Hour
	MinTimeout      = time.Millisecond
	MaxTimeout      = time.Minute
	MaxFlows        = 256
	MaxCount        = 10_000_000
)

// Validate says what is wrong with the Spec, in the operator's words, or returns nil.
func (s *Spec) Validate() error {
	switch {
	case len(s.Targets) == 0:
		return errors.New("no target; name at least one, as in db.fra:5432")
	case len(s.Targets) > MaxTargets:
		return fmt.Errorf("%d targets; %d are allowed", len(s.Targets), MaxTargets)
	case s.Count < 0 || s.Count > MaxCount:
		return fmt.Errorf("count %d is outside 1 to %d (0 goes on until stopped)", s.Count, MaxCount)
	case s.Interval < MinInterval || s.Interval > MaxInterval:
		return fmt.Errorf("interval %v is outside %v to %v", s.Interval, MinInterval, MaxInterval)
	case s.Timeout < MinTimeout || s.Timeout > MaxTimeout:
		return fmt.Errorf("timeout %v is outside %v to %v", s.Timeout, MinTimeout, MaxTimeout)
	case s.Flows < 1 || s.Flows > MaxFlows:
		return fmt.Errorf("%d flows are outside 1 to %d", s.Flows, MaxFlows)
	case s.Family != AnyFamily && s.Family != IPv4 && s.Family != IPv6:
		return fmt.Errorf("family %d is neither 4 nor 6", s.Family)
	}
	for _, t := range s.Targets {
		if err := checkHost(t.Host); err != nil {
			return fmt.Errorf("target %q: %w", t.Name, err)
		}
		if t.Port == 0 {
			return fmt.Errorf("target %q: port 0 cannot be probed", t.Name)
		}
	}
	return nil
}

// Probes returns how many probes the Spec asks for, or 0 if it has no end.
func (s *Spec) Probes() int { return s.Count * len(s.Targets) * s.Flows }

// Rate returns the SYNs a second that the Spec sends to each target.
func (s *Spec) Rate() float64 { return float64(s.Flows) / s.Interval.Seconds() }
