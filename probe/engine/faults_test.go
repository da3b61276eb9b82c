//go:build linux

package engine

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/synmesh/synmesh/probe"
)

// A probe that cannot be sent says why, and those after it are none the worse.
func TestWhatBreaksInMidRunIsNamedAndTheRunGoesOn(t *testing.T) {
	for _, c := range []struct {
		name   string
		breaks func(t *testing.T, n network)
		says   []string
		loses  bool // SYNs may leave, and vanish
	}{
		{
			"the interface goes down",
			func(t *testing.T, n network) { must(t, netlink.LinkSetDown(interfaceOf(t, n))) },
			[]string{"network is down", "no route from this host", "no longer this host's"}, false,
		},
		{
			"the cable is pulled",
			func(t *testing.T, n network) {
				must(t, n.router.Do(func() error { return netlink.LinkSetDown(theWire(t, n)) }))
			},
			[]string{"network is down", "no route from this host", "never seen to leave", "send queue of this host is full"}, true,
		},
		{
			"the addresses vanish",
			func(t *testing.T, n network) { must(t, dropAddresses(n)()) },
			[]string{"no longer this host's", "no route from this host", "no address"}, false,
		},
		{
			"the routes vanish",
			dropRoutes,
			[]string{"no route from this host", "no route to"}, false,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			eachWay(t, func(t *testing.T, n network, to netip.Addr, stamping Stamping) {
				listenOn(t, n.to, "tcp", ":443")
				s := spec(t, 0, netip.AddrPortFrom(to, 443).String())
				s.Timeout = 50 * time.Millisecond
				inside(t, n.from, func() {
					e := start(t, Config{Stamping: stamping})
					ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
					defer cancel()
					var before, after, failed int
					err := e.Do(ctx, s, func(r *probe.Result) {
						switch {
						case r.Outcome == probe.Open && failed == 0:
							if before++; before == 5 {
								c.breaks(t, n)
							}
						case r.Outcome == probe.Open:
							if after++; after == 5 {
								cancel()
							}
						case r.Outcome == probe.Error && named(r.Err, c.says):
							if failed++; failed == 5 {
								must(t, n.link.Up())
							}
						case r.Outcome == probe.Error && strings.Contains(r.Err, "never seen to leave"): // when it broke
						case r.Outcome == probe.Timeout && c.loses:
						default:
							t.Errorf("%v is not named: %s", r.Outcome, r.Err)
						}
					})
					if before < 5 || failed < 5 || after < 5 {
						t.Errorf("%d results before, %d errors, %d results after; Do: %v", before, failed, after, err)
					}
				})
			})
		})
	}
}

func named(text string, says []string) bool {
	for _, s := range says {
		if strings.Contains(text, s) {
			return true
		}
	}
	return false
}

// interfaceOf is the near host's, seen from there.
func interfaceOf(t *testing.T, n network) netlink.Link {
	t.Helper()
	link, err := netlink.LinkByName(n.from.Interface())
	must(t, err)
	return link
}

// theWire is the router's interface towards the near host, seen from the router.
func theWire(t *testing.T, n network) netlink.Link {
	t.Helper()
	link, err := netlink.LinkByIndex(n.wire)
	must(t, err)
	return link
}

// dropRoutes leaves the near host with what its addresses bring along.
func dropRoutes(t *testing.T, n network) {
	t.Helper()
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := netlink.RouteList(interfaceOf(t, n), family)
		must(t, err)
		for _, r := range routes {
			if r.Gw != nil {
				must(t, netlink.RouteDel(&r))
			}
		}
	}
}
