//go:build linux

package engine

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/synmesh/synmesh/internal/lab"
)

func TestMain(m *testing.M) {
	if err := lab.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// oneHost has a loopback and nothing else.
func oneHost(t *testing.T) *lab.Node {
	t.Helper()
	l, err := lab.New()
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	n, err := l.Host("host")
	must(t, err)
	return n
}

// network is two hosts with a router between them.
type network struct {
	from, to, router *lab.Node
	link             *lab.Link // between from and the router
	wire             int       // the router's interface towards from
}

func twoHosts(t *testing.T) network {
	t.Helper()
	return hostsBy(t, (*lab.Lab).Wire)
}

// hostsBy has the router joined to the far host in its own way.
func hostsBy(t *testing.T, join func(l *lab.Lab, router, to *lab.Node) (*lab.Link, error)) network {
	t.Helper()
	l, err := lab.New()
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	var n network
	n.from, err = l.Host("from")
	must(t, err)
	n.to, err = l.Host("to")
	must(t, err)
	n.router, err = l.Router("router")
	must(t, err)
	n.link, err = l.Wire(n.from, n.router)
	must(t, err)
	must(t, n.router.Do(func() error {
		link, err := netlink.LinkByName(n.router.Interface())
		if err == nil {
			n.wire = link.Attrs().Index
		}
		return err
	}))
	_, err = join(l, n.router, n.to)
	must(t, err)
	must(t, l.Route())
	return n
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// inside runs fn in the node's network namespace; what fails in there fails the test.
func inside(t *testing.T, n *lab.Node, fn func()) {
	t.Helper()
	ended := false
	err := n.Do(func() error { fn(); ended = true; return nil })
	if err != nil && !t.Failed() {
		t.Fatal(err)
	}
	if !ended {
		t.FailNow()
	}
}

// listenOn accepts and closes on a node until the test ends.
func listenOn(t *testing.T, n *lab.Node, network, address string) {
	t.Helper()
	var l net.Listener
	must(t, n.Do(func() (err error) { l, err = net.Listen(network, address); return err }))
	acceptAll(t, l)
}

// swallow has the node's own answers to another vanish.
func swallow(t *testing.T, peer *lab.Node) {
	t.Helper()
	to := &net.IPNet{IP: peer.Addr4().AsSlice(), Mask: net.CIDRMask(32, 32)}
	must(t, netlink.RouteDel(&netlink.Route{Dst: to}))
	must(t, netlink.RouteAdd(&netlink.Route{Dst: to, Type: unix.RTN_BLACKHOLE}))
}

// defaultRoutes sends what has no route to the router, which has none either.
func defaultRoutes(t *testing.T) {
	t.Helper()
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := netlink.RouteList(nil, family)
		must(t, err)
		at := slices.IndexFunc(routes, func(r netlink.Route) bool { return r.Gw != nil })
		if at < 0 {
			t.Fatal("no route has a gateway")
		}
		err = netlink.RouteAdd(&netlink.Route{Gw: routes[at].Gw, LinkIndex: routes[at].LinkIndex})
		if !errors.Is(err, unix.EEXIST) {
			must(t, err)
		}
	}
}
