//go:build linux

package engine

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
)

// forget has the host know none of its neighbours; the lab tells it of all.
func forget(t *testing.T) {
	t.Helper()
	all, err := netlink.NeighList(0, netlink.FAMILY_ALL)
	must(t, err)
	for i := range all {
		if all[i].State&netlink.NUD_PERMANENT != 0 {
			must(t, netlink.NeighDel(&all[i]))
		}
	}
}

func TestANeighbourIsAskedForAgainAfterAPauseAndAfterAFailure(t *testing.T) {
	n := twoHosts(t)
	inside(t, n.from, func() {
		forget(t)
		s := spec(t, 1, netip.AddrPortFrom(n.to.Addr4(), 443).String())
		e := start(t, Config{})
		tk := newTask(e, s, nil, nil)
		to := &target{remote: netip.AddrPortFrom(n.to.Addr4(), 443), way: &way{src: n.from.Addr4()}}
		if !tk.lookup(to, 0) || !tk.lookup(to, 1) {
			t.Error("nobody has spoken to the router, and it is known")
		}
		do(t, e, s)
		if tk.lookup(to, 2) || to.neighbour != 2+neighbourKept {
			t.Errorf("the router is not known, or until %v", to.neighbour)
		}
		to.remote = netip.MustParseAddrPort("10.99.0.1:443") // nobody's, behind the same
		tk.lookup(to, neighbourKept)
		if to.neighbour != 2*neighbourKept {
			t.Errorf("a neighbour that is spoken to is known until %v, want %v", to.neighbour, 2*neighbourKept)
		}
		to.remote = netip.AddrPortFrom(addressOfNobody(n), 443)
		if !tk.lookup(to, 2*neighbourKept) {
			t.Error("a neighbour that does not exist is known after a pause")
		}
	})
}

// addressOfNobody is on the near host's wire.
func addressOfNobody(n network) netip.Addr { return n.from.Addr4().Prev() }

func TestASweepAsksForNoNeighbours(t *testing.T) {
	n := twoHosts(t)
	var hosts []string
	for port := range maxNeighbours + 1 {
		hosts = append(hosts, fmt.Sprint(n.to.Addr4(), ":", port+1))
	}
	inside(t, n.from, func() {
		forget(t)
		e := start(t, Config{})
		sweep := spec(t, 1, hosts...)
		for _, r := range do(t, e, sweep) {
			if r.NeighbourLookup {
				t.Fatalf("%v was asked for", r.Remote)
			}
		}
		if st := e.Stats(); st.WarmUps != 0 {
			t.Errorf("%d warm-ups", st.WarmUps)
		}
	})
}
