package session

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"
)

// What a controller may have an agent wait for: not for ever, and not so little
// that the agent does nothing but dial.
const (
	minDelay = 100 * time.Millisecond
	maxDelay = 5 * time.Minute
)

// drained ends a session that the controller has asked to end.
type drained struct {
	reason string
	delay  time.Duration
}

func (d *drained) Error() string { return fmt.Sprintf("it asked to end the session: %s", d.reason) }

// retry decides how long to wait before the next attempt. A fleet that lost its
// controller comes back spread evenly, not in waves; an agent that was just
// started, which somebody may be waiting for, comes at once.
type retry struct {
	spread   time.Duration
	failures int
	left     string // the address that asked to be left alone
}

// after returns how long to wait after an attempt or a session that ended.
func (r *retry) after(err error, address string, established, others bool) time.Duration {
	r.left = ""
	if established {
		r.failures = 0
	}
	var d *drained
	if errors.As(err, &d) {
		r.left = address
		if others {
			return rand.N(min(r.spread, 500*time.Millisecond))
		}
		return bounded(d.delay)
	}
	if delay, ok := told(err); ok {
		return bounded(delay)
	}
	if established {
		return rand.N(r.spread)
	}
	r.failures++
	return rand.N(min(r.spread, 500*time.Millisecond<<min(r.failures-1, 10)))
}

func bounded(delay time.Duration) time.Duration { return min(max(delay, minDelay), maxDelay) }

// told returns the delay that a controller's status tells, if it tells one.
func told(err error) (time.Duration, bool) {
	var from interface{ GRPCStatus() *status.Status }
	if !errors.As(err, &from) {
		return 0, false
	}
	for _, d := range from.GRPCStatus().Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok && info.GetRetryDelay().AsDuration() >= 0 {
			return info.GetRetryDelay().AsDuration(), true
		}
	}
	return 0, false
}
