package gossip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// firstRetry is how long the first wait is while nobody is known; each
	// further one is twice as long, up to rejoinInterval.
	firstRetry = 500 * time.Millisecond
	// rejoinInterval is how long it takes at least, and half of how long it
	// takes at most, until lost seeds and lost members are tried again.
	rejoinInterval = 15 * time.Second
	// redials is how many lost members are tried in one round.
	redials = 2
	// lookupTimeout bounds the time to resolve one seed.
	lookupTimeout = 5 * time.Second
)

// rejoin looks for the others until the context ends. memberlist forgets the
// dead and never calls on them again, so the two halves of a parted fleet stay
// apart unless somebody goes back to those who were lost. One who finds one is
// enough, and in a large fleet somebody tries every second.
func (g *Gossip) rejoin(ctx context.Context, list *memberlist.Memberlist) {
	failing := false
	for alone := 0; ctx.Err() == nil; {
		failing = g.rejoinSeeds(ctx, list, failing)
		g.rejoinLost(ctx, list)
		if alone++; len(g.Peers()) > 0 {
			alone = 0
		}
		select {
		case <-ctx.Done():
		case <-g.introduced:
			g.greet(ctx, list)
		case <-time.After(pause(g.config.firstRetry, g.config.rejoin, alone)):
		}
	}
}

// greet exchanges all that is known with one of those we know. Until we were
// announced nobody listed us, and nobody told us any news.
func (g *Gossip) greet(ctx context.Context, list *memberlist.Memberlist) {
	addrs := slices.Collect(maps.Keys(g.fleet.addrs()))
	if errs := joinOne(ctx, list, addrs); len(errs) > 0 && ctx.Err() == nil {
		g.config.Logger.Debug("gossip: some do not answer", "err", oneLine(errs))
	}
}

// rejoinSeeds tries the seeds that nobody is known at, and tells whether that failed.
func (g *Gossip) rejoinSeeds(ctx context.Context, list *memberlist.Memberlist, failing bool) bool {
	if len(g.config.Seeds) == 0 {
		return false
	}
	addrs, errs := g.lostSeeds(ctx)
	if len(addrs) > 0 {
		errs = append(errs, joinOne(ctx, list, addrs)...)
	}
	if ctx.Err() == nil {
		g.report(errs, failing)
	}
	return len(errs) > 0
}

// rejoinLost tries some of the members that were lost. Most of them are gone
// for good, so it is nothing to warn of that they do not answer.
func (g *Gossip) rejoinLost(ctx context.Context, list *memberlist.Memberlist) {
	addrs := g.fleet.pickLost(redials, g.known())
	if len(addrs) == 0 || ctx.Err() != nil {
		return
	}
	if errs := joinOne(ctx, list, addrs); len(errs) > 0 && ctx.Err() == nil {
		g.config.Logger.Debug("gossip: lost members do not answer", "err", oneLine(errs))
	}
}

// pause returns the time until the next attempt: between half and all of a
// time that doubles while nobody is known, else between one and two intervals.
func pause(first, interval time.Duration, alone int) time.Duration {
	if alone == 0 {
		return interval + rand.N(interval)
	}
	longest := interval
	if alone < 20 {
		longest = min(interval, first<<(alone-1))
	}
	return longest/2 + rand.N(longest/2+1)
}

// joinOne joins by the first address that answers, and by none of the rest:
// one member tells all it knows, and that may be much.
func joinOne(ctx context.Context, list *memberlist.Memberlist, addrs []netip.AddrPort) (failed []error) {
	rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
	for _, addr := range addrs {
		_, err := list.Join([]string{addr.String()})
		if err == nil {
			return nil
		}
		if one := errors.Unwrap(err); one != nil { // else it is told as a list, on several lines
			err = one
		}
		failed = append(failed, err)
		if ctx.Err() != nil {
			break
		}
	}
	return failed
}

// lostSeeds returns the addresses of seeds at which no living member is known.
func (g *Gossip) lostSeeds(ctx context.Context) (lost []netip.AddrPort, failed []error) {
	for _, seed := range g.config.Seeds {
		addrs, err := resolve(ctx, seed)
		if err != nil {
			failed = append(failed, fmt.Errorf("resolving seed %s: %w", seed, err))
		}
		lost = append(lost, addrs...)
	}
	known := g.known()
	lost = slices.DeleteFunc(lost, func(a netip.AddrPort) bool { return known[a] })
	slices.SortFunc(lost, netip.AddrPort.Compare)
	return slices.Compact(lost), failed
}

// known returns where nobody has to be looked for.
func (g *Gossip) known() map[netip.AddrPort]bool {
	known := g.fleet.addrs()
	known[g.addr] = true
	return known
}

// resolve looks a seed up itself: memberlist asks name servers for records of
// any type, over TCP, and cannot be interrupted.
func resolve(ctx context.Context, seed string) ([]netip.AddrPort, error) {
	host, service, err := net.SplitHostPort(seed)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	addrs := make([]netip.AddrPort, len(ips))
	for i, ip := range ips {
		addrs[i] = netip.AddrPortFrom(ip.Unmap(), uint16(port))
	}
	return addrs, err
}

// report says once that joining fails, and once that it works again.
func (g *Gossip) report(errs []error, failing bool) {
	level, text := slog.LevelDebug, "gossip: seeds are still not reached"
	switch {
	case len(errs) == 0 && failing:
		level, text = slog.LevelInfo, "gossip: seeds are reached again"
	case len(errs) == 0:
		text = "gossip: seeds are reached"
	case !failing:
		level, text = slog.LevelWarn, "gossip: seeds are not reached; we keep trying"
	}
	attrs := []slog.Attr{slog.Int("peers", len(g.Peers()))}
	if len(errs) > 0 {
		attrs = append(attrs, slog.String("err", oneLine(errs)))
	}
	g.config.Logger.LogAttrs(context.Background(), level, text, attrs...)
}

func oneLine(errs []error) string {
	texts := make([]string, len(errs))
	for i, err := range errs {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}
