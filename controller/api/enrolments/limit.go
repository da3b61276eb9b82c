package enrolments

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/peer"

	"github.com/synmesh/synmesh/controller/api/fault"
)

// How often certificates are asked for at most: a second, and at once. A rack that is set up by one
// script behind one address is well within it.
const (
	enrolmentsOfOne, enrolmentsOfOneBurst = 5, 50
	enrolmentsOfAll, enrolmentsOfAllBurst = 100, 500
	renewalsOfOne, renewalsOfOneBurst     = 1, 20
	// maxSources bounds how many sources are remembered.
	maxSources = 10_000
)

// limit bounds how often something may be done, by one source and by all.
type limit struct {
	each  rate.Limit
	burst int

	mu      sync.Mutex
	total   *rate.Limiter
	sources map[string]*rate.Limiter
}

func newLimit(each rate.Limit, burst int, total *rate.Limiter) *limit {
	return &limit{each: each, burst: burst, total: total, sources: make(map[string]*rate.Limiter)}
}

// pass counts an attempt, or refuses it and says when to come again.
func (l *limit) pass(source, what string) error {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	one := l.sources[source]
	if one == nil {
		l.forget(now)
		one = rate.NewLimiter(l.each, l.burst)
		l.sources[source] = one
	}
	// Who asks too often must not use up what is there for the others.
	switch {
	case !one.AllowN(now, 1):
		return fault.Later(fault.Exhausted("%s: %v a second are taken from one source, and %d at once; try again in some seconds", what, l.each, l.burst), 10*time.Second)
	case !l.total.AllowN(now, 1):
		return fault.Later(fault.Exhausted("%s: there are too many at once, from everywhere; try again in some seconds", what), 10*time.Second)
	}
	return nil
}

// forget makes room for another source: those that have been quiet for long are as good as new.
func (l *limit) forget(now time.Time) {
	if len(l.sources) < maxSources {
		return
	}
	for source, one := range l.sources {
		if one.TokensAt(now) >= float64(l.burst) {
			delete(l.sources, source)
		}
	}
	if len(l.sources) >= maxSources {
		clear(l.sources) // the total still holds
	}
}

// from tells where a call comes from: the address, or the network, for whoever has
// one address of IPv6 has 2^64.
func from(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ""
	}
	at, err := netip.ParseAddrPort(p.Addr.String())
	if err != nil {
		return p.Addr.String()
	}
	addr := at.Addr().Unmap().WithZone("")
	if network, err := addr.Prefix(64); addr.Is6() && err == nil {
		return network.String()
	}
	return addr.String()
}
