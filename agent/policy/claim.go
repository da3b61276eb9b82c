package policy

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/synmesh/synmesh/probe"
)

// endpoint is a target as ceilings tell it from others.
type endpoint struct {
	host string
	port uint16
}

// claim is what one Spec asks for. The numbers are of its targets: each gets
// the Spec's rate.
type claim struct {
	spec       *probe.Spec
	targets    map[endpoint]int
	hosts      map[string]int    // without responders
	responders map[endpoint]bool // of the targets
	all        int
	hint       string // who may get more than MaxRate
}

// count makes the claim of a Spec.
func count(s *probe.Spec, responder func(probe.Target) bool) *claim {
	c := &claim{spec: s, targets: make(map[endpoint]int), hosts: make(map[string]int), responders: make(map[endpoint]bool)}
	for _, t := range s.Targets {
		if t.Host == nowhere {
			continue // nothing is sent
		}
		at := endpointOf(t)
		c.targets[at]++
		c.all++
		if responder(t) {
			c.responders[at] = true
		} else {
			c.hosts[at.host]++
		}
	}
	return c
}

// endpointOf leaves out in what a host may be written in two ways. A zone
// tells hosts apart that we take for one.
func endpointOf(t probe.Target) endpoint {
	host, _, _ := strings.Cut(t.Host, "%")
	return endpoint{strings.ToLower(strings.TrimSuffix(host, ".")), t.Port}
}

// ceiling is how many SYNs a second a target may get.
func (c *claim) ceiling(at endpoint) float64 {
	if c.responders[at] {
		return MaxResponderRate
	}
	return MaxRate
}

// rate is the SYNs a second to so many of the Spec's targets.
func (c *claim) rate(n int) float64 {
	return float64(n) * c.spec.Rate() * float64(1+c.spec.Retries)
}

// share is what so many of the Spec's targets take of the room.
func (c *claim) share(n int) share {
	return max(shareOf(c.rate(n)), shareOf(1/burst.Seconds()))
}

// alone refuses what goes beyond a ceiling with nothing else going on. The
// interval that it names keeps all of them.
func (c *claim) alone() error {
	worst, what, fewer := 1+rounding, "", "" // by what factor it is too much
	excess := func(n, ceiling int, to, allowed, instead string) {
		if factor := c.rate(n) / float64(ceiling); factor > worst {
			worst, fewer = factor, instead
			what = fmt.Sprintf("%s SYNs a second %s; %s %d", number(c.rate(n)), to, allowed, ceiling)
		}
	}
	flows := "fewer flows"
	if c.spec.Retries > 0 {
		flows = fmt.Sprintf("fewer than %d retries or fewer flows", c.spec.Retries)
	}
	for _, t := range c.spec.Targets { // in their order, so that the message is the same each time
		if t.Host == nowhere {
			continue
		}
		at := endpointOf(t)
		if c.responders[at] {
			excess(c.targets[at], MaxResponderRate, "to one target", "even a responder gets no more than", flows)
			continue
		}
		excess(c.targets[at], MaxRate, "to one target", "agents allow", flows+c.hint)
		excess(c.hosts[at.host], MaxHostRate, "to the ports of "+at.host, "agents allow", "fewer ports, or "+flows)
	}
	excess(c.all, MaxTotal, "in all", "agents allow", "fewer targets, or "+flows)
	if what == "" {
		return nil
	}
	return refuse("%s: an interval of at least %ss with %d flows, or %s", what, c.interval(worst), c.spec.Flows, fewer)
}

// interval returns the seconds that keep a ceiling which is exceeded by that
// factor, rounded up to milliseconds.
func (c *claim) interval(factor float64) string {
	ms := math.Ceil(c.spec.Interval.Seconds()*factor*1000 - 1e-6)
	return strconv.FormatFloat(ms/1000, 'f', -1, 64)
}

// spacing is how long what was sent last to a target makes up for its rate.
func (c *claim) spacing() time.Duration {
	return min(c.spec.Interval/time.Duration(c.spec.Flows), burst)
}

// number writes a rate with four digits, and no power of ten.
func number(rate float64) string {
	if rate >= 1000 {
		return strconv.FormatFloat(math.Round(rate), 'f', -1, 64)
	}
	return strconv.FormatFloat(rate, 'g', 4, 64)
}
