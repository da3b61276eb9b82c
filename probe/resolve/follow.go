package resolve

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/synmesh/synmesh/probe"
)

// DefaultEvery is how often names are looked up anew.
const DefaultEvery = time.Minute

// Follow looks the targets' names up anew, time and again until ctx ends, and
// says which target has moved where. At is where they were at first, as Targets
// has found out. A name that cannot be looked up any more leads where it led
// last. Moved is called from the calling goroutine. Without a name among the
// targets there is nothing to follow, and Follow returns.
func (r *Resolver) Follow(ctx context.Context, targets []probe.Target, family probe.Family, at []Address, moved func(target int, to netip.AddrPort)) {
	hosts := namesOf(targets)
	for i := range hosts {
		first := at[hosts[i].targets[0]]
		hosts[i].addr, hosts[i].err = first.Remote.Addr(), first.Err
	}
	before := make([]host, len(hosts))
	for len(hosts) > 0 && r.pause(ctx) {
		copy(before, hosts)
		r.find(ctx, hosts, family)
		if ctx.Err() != nil {
			return
		}
		for i := range hosts {
			h := &hosts[i]
			r.tell(&before[i], h)
			if h.addr == before[i].addr {
				continue
			}
			for _, t := range h.targets {
				moved(t, netip.AddrPortFrom(h.addr, targets[t].Port))
			}
		}
	}
}

// pause waits until names are to be looked up again, and returns false if ctx
// ends meanwhile. It is never equally long, so that agents that began together do not all ask at once.
func (r *Resolver) pause(ctx context.Context) bool {
	every := r.Every
	if every <= 0 {
		every = DefaultEvery
	}
	timer := time.NewTimer(every/2 + rand.N(every))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// tell logs what is not seen from results: where a name leads is, and that it
// has never led anywhere, too.
func (r *Resolver) tell(before, now *host) {
	log := r.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	switch {
	case now.addr != before.addr:
		log.Info("a name leads elsewhere", "name", now.name, "before", before.addr, "now", now.addr)
	case now.err != nil && before.err == nil:
		log.Warn("a name cannot be looked up any more, and is probed where it led last", "name", now.name, "address", now.addr, "reason", now.err)
	}
}
