//go:build linux

package engine

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/synmesh/synmesh/probe"
)

// A probe that cannot be sent says why, and those after it are none the worse.
func TestWhatBreaksInMidRunIsNamedAndTheRunGoesOn(t *testing.T) {
	for _, c := range []struct {
		name          string
		breaks, mends func(t *testing.T, n network)
		says          []string
	}{
		{
			"the interface goes down",
			func(t *testing.T, n network) { setLink(t, netlink.LinkSetDown) },
			func(t *testing.T, n network) {
				setLink(t, netlink.LinkSetUp)
				restoreRoutes(t)
			},
			[]string{"network is down", "no route from this host", "network is unreachable", "no longer this host's"},
		},
		{
			"the address vanishes",
			func(t *testing.T, n network) { changeAddress(t, n, netlink.AddrDel) },
			func(t *testing.T, n network) {
				changeAddress(t, n, netlink.AddrAdd)
				restoreRoutes(t)
			},
			[]string{"the source address is no longer this host's", "no route from this host", "network is unreachable"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := twoHosts(t)
			listenOn(t, n.to, "tcp4", ":443")
			s := spec(t, 0, n.to.Addr4().String()+":443")
			s.Timeout = 50 * time.Millisecond
			inside(t, n.from, func() {
				routes = routesOf(t)
				e := start(t, Config{})
				ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
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
							c.mends(t, n)
						}
					case r.Outcome == probe.Error && !strings.Contains(r.Err, "never seen to leave"):
						t.Errorf("the error is not named: %s", r.Err)
					}
				})
				if before < 5 || failed < 5 || after < 5 {
					t.Errorf("%d results before, %d errors, %d results after; Do: %v", before, failed, after, err)
				}
			})
		})
	}
}

// routes are those that a host had before the kernel dropped them.
var routes []netlink.Route

func restoreRoutes(t *testing.T) {
	t.Helper()
	for _, r := range routes {
		if r.Gw != nil {
			must(t, netlink.RouteReplace(&r))
		}
	}
}

func routesOf(t *testing.T) []netlink.Route {
	t.Helper()
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	must(t, err)
	return routes
}

func named(text string, says []string) bool {
	for _, s := range says {
		if strings.Contains(text, s) {
			return true
		}
	}
	return false
}

func setLink(t *testing.T, set func(netlink.Link) error) {
	t.Helper()
	links, err := netlink.LinkList()
	must(t, err)
	for _, l := range links {
		if l.Type() == "veth" {
			must(t, set(l))
		}
	}
}

func changeAddress(t *testing.T, n network, change func(netlink.Link, *netlink.Addr) error) {
	t.Helper()
	link, err := netlink.LinkByName(n.from.Interface())
	must(t, err)
	addr, err := netlink.ParseAddr(n.from.Addr4().String() + "/30")
	must(t, err)
	must(t, change(link, addr))
}
