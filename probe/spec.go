package probe

import (
	"errors"
	"fmt"
	"math"
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

// Mode is how far a handshake goes.
type Mode uint8

// The modes.
const (
	// HalfOpen sends a SYN; the kernel answers the SYN-ACK with a RST.
	HalfOpen Mode = iota
	// Full opens the connection, and closes it in order.
	Full
	// Connect has the kernel open and close the connection, which anybody may
	// ask it for, and reads the round trip from its TCP_INFO.
	Connect
)

var modeWords = words[Mode]{"mode", []string{"half-open", "full", "connect"}, true}

// String returns the mode's word, as it stands in flags.
func (m Mode) String() string { return modeWords.name(m) }

// MarshalText implements encoding.TextMarshaler.
func (m Mode) MarshalText() ([]byte, error) { return modeWords.marshal(m) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (m *Mode) UnmarshalText(b []byte) (err error) { *m, err = modeWords.parse(b); return err }

// Spec says how targets are to be probed.
type Spec struct {
	Targets []Target
	Mode    Mode
	// Count is the number of probes for each target and flow; 0 goes on until stopped.
	Count int
	// Interval lies between two probes of one target and flow.
	Interval time.Duration
	// Timeout is how long an answer is waited for, to the last SYN of a probe
	// and to a FIN.
	Timeout time.Duration
	// Retries is how often a SYN is sent again that is not answered: after 1 s,
	// then 2 s, then 4 s and so on (RFC 6298).
	Retries int
	// Flows is the number of source ports that each target is probed from.
	// Routers that balance by 5-tuple (ECMP) keep each on a path of its own.
	Flows  int
	Family Family
	// Poisson draws the times between probes from an exponential distribution
	// with the mean of Interval, so that they fall in step with nothing (RFC 2330 section 11.1.1).
	Poisson bool
	// Jitter is by what fraction of Interval, at the most, each probe is late on
	// purpose, at random, so that its period is not the network's; 0 to MaxJitter.
	// Poisson probes have none.
	Jitter float64
	// Phase is how long the first probe waits, so that agents do not begin at once.
	Phase   time.Duration
	Sending Sending
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
	MaxRetries      = 6
	MaxCount        = 10_000_000
	MaxJitter       = 0.5
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
	case s.Retries < 0 || s.Retries > MaxRetries:
		return fmt.Errorf("%d retries are outside 0 to %d", s.Retries, MaxRetries)
	case !(s.Jitter >= 0 && s.Jitter <= MaxJitter): // not a number, either
		return fmt.Errorf("jitter %v is outside 0 to %v; it is a fraction of the interval", s.Jitter, MaxJitter)
	case s.Jitter > 0 && s.Poisson:
		return errors.New("jitter and poisson exclude each other; poisson alone is random enough")
	case s.Phase < 0 || s.Phase > s.Interval:
		return fmt.Errorf("phase %v is outside 0 to the interval of %v", s.Phase, s.Interval)
	case s.Mode > Connect:
		return fmt.Errorf("mode %d is none", s.Mode)
	case s.Family != AnyFamily && s.Family != IPv4 && s.Family != IPv6:
		return fmt.Errorf("family %d is neither 4 nor 6", s.Family)
	}
	if err := s.Sending.validate(); err != nil {
		return err
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

// Length returns how long the Spec takes at the most, once begun and without the
// second that a warm-up may take, or 0 if it has no end.
func (s *Spec) Length() time.Duration {
	if s.Count == 0 {
		return 0
	}
	waits := s.Phase + s.Timeout
	if s.Mode == Full {
		waits += s.Timeout
	}
	waits += Backoff(s.Retries)
	if s.Interval > (math.MaxInt64-waits)/time.Duration(s.Count) { // centuries
		return math.MaxInt64
	}
	return time.Duration(s.Count)*s.Interval + waits
}

// Backoff returns the time from the first SYN of a probe to its n-th retry.
func Backoff(n int) time.Duration { return time.Duration(1<<n-1) * time.Second }

// Rate returns the SYNs a second that the Spec sends to each target.
func (s *Spec) Rate() float64 { return float64(s.Flows) / s.Interval.Seconds() }
