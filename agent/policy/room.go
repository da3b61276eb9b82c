package policy

import (
	"fmt"

	"github.com/synmesh/synmesh/probe"
)

// share is a rate in SYNs in 1e9 seconds: what is added can be taken away
// again without a rest.
type share int64

func shareOf(rate float64) share   { return share(rate * 1e9) }
func (s share) perSecond() float64 { return float64(s) / 1e9 }

// rounding is by what part a sum may be above a ceiling: rates are fractions.
const rounding = 1e-9

// room is what has been admitted, by whom it is sent to.
type room struct {
	targets map[endpoint]share
	hosts   map[string]share
	total   share
	listed  int // targets of all claims
}

func newRoom() room {
	return room{targets: make(map[endpoint]share), hosts: make(map[string]share)}
}

func (r *room) add(c *claim)    { r.change(c, 1) }
func (r *room) remove(c *claim) { r.change(c, -1) }

func (r *room) change(c *claim, by share) {
	for at, n := range c.targets {
		if r.targets[at] += by * c.share(n); r.targets[at] == 0 {
			delete(r.targets, at)
		}
	}
	for host, n := range c.hosts {
		if r.hosts[host] += by * c.share(n); r.hosts[host] == 0 {
			delete(r.hosts, host)
		}
	}
	r.total += by * c.share(c.all)
	r.listed += int(by) * len(c.targets)
}

// admits refuses a claim that is too much together with what is there. It has
// to be right alone.
func (r *room) admits(c *claim) error {
	const end = ": try again when that is over, or with a longer interval"
	full := func(before, more share, ceiling float64) bool { return before+more > shareOf(ceiling*(1+rounding)) }
	for _, t := range c.spec.Targets {
		if t.Host == nowhere {
			continue
		}
		at := endpointOf(t)
		more, before := c.share(c.targets[at]), r.targets[at]
		if ceiling := c.ceiling(at); full(before, more, ceiling) {
			return refuse("%s SYNs a second to %s, which gets %s from this agent already; agents allow %.0f in all"+end,
				number(more.perSecond()), t.Name, number(before.perSecond()), ceiling)
		}
		if c.responders[at] {
			continue
		}
		if more, before = c.share(c.hosts[at.host]), r.hosts[at.host]; full(before, more, MaxHostRate) {
			return refuse("%s SYNs a second to %s, whose ports get %s together from this agent already; agents allow %d in all"+end,
				number(more.perSecond()), at.host, number(before.perSecond()), MaxHostRate)
		}
	}
	if more := c.share(c.all); full(r.total, more, MaxTotal) {
		return refuse("%s SYNs a second, beside %s that this agent sends already; agents allow %d in all"+end,
			number(more.perSecond()), number(r.total.perSecond()), MaxTotal)
	}
	if n := len(c.targets); r.listed+n > probe.MaxTargets {
		return refuse("%d targets, beside %d that this agent probes already; agents allow %d at a time: try again when that is over, or with fewer",
			n, r.listed, probe.MaxTargets)
	}
	return nil
}

// fast returns the responders of a claim that get more, with all that is
// admitted, than others would.
func (r *room) fast(c *claim) (some []endpoint) {
	for at := range c.responders {
		if r.targets[at] > shareOf(MaxRate*(1+rounding)) {
			some = append(some, at)
		}
	}
	return some
}

func refuse(format string, args ...any) error { return &Refusal{fmt.Sprintf(format, args...)} }
