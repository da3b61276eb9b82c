//go:build linux && !386 && !s390x

package connect

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/synmesh/synmesh/internal/lab"
	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/probe/packet"
)

func TestMain(m *testing.M) {
	if os.Getenv(asNobody) != "" {
		if err := json.NewEncoder(os.Stdout).Encode(probeAsNobody(os.Getenv(asNobody))); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
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

// network is two hosts with a router between them. The way from it to the second host is
// impaired where a test asks for that.
type network struct {
	from, to, router *lab.Node
	link             *lab.Link // between router and to
}

func twoHosts(t testing.TB, imp *lab.Impairment) (n network) {
	t.Helper()
	l, err := lab.New()
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	n.from, err = l.Host("from")
	must(t, err)
	n.to, err = l.Host("to")
	must(t, err)
	n.router, err = l.Router("router")
	must(t, err)
	_, err = l.Wire(n.from, n.router)
	must(t, err)
	if imp == nil {
		n.link, err = l.Wire(n.router, n.to)
	} else {
		n.link, err = l.Link(n.router, n.to, *imp)
	}
	must(t, err)
	must(t, l.Route())
	return n
}

// inside runs fn in the node's network namespace; what fails in there fails the test.
func inside(t testing.TB, n *lab.Node, fn func()) {
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
func listenOn(t testing.TB, n *lab.Node, address string) {
	t.Helper()
	var l net.Listener
	must(t, n.Do(func() (err error) { l, err = net.Listen("tcp", address); return err }))
	acceptAll(t, l, func(c net.Conn) { c.Close() })
}

// swallow has the calling node's own answers to another vanish.
func swallow(t *testing.T, peer *lab.Node) {
	t.Helper()
	for _, a := range []netip.Addr{peer.Addr4(), peer.Addr6()} {
		to := netip.PrefixFrom(a, a.BitLen()).String()
		_, dst, err := net.ParseCIDR(to)
		must(t, err)
		must(t, netlink.RouteDel(&netlink.Route{Dst: dst}))
		route(t, to, unix.RTN_BLACKHOLE)
	}
}

// route has the calling node treat packets to a prefix in a special way.
func route(t *testing.T, prefix string, kind int) {
	t.Helper()
	_, dst, err := net.ParseCIDR(prefix)
	must(t, err)
	must(t, netlink.RouteAdd(&netlink.Route{Dst: dst, Type: kind}))
}

// complain has the calling node, until the test ends, answer each SYN to the
// prefixes with an ICMP error, by IP version: true is IPv6. That takes a
// moment, as it does in real networks.
func complain(t *testing.T, n *lab.Node, prefix4, prefix6 string, with map[bool]probe.ICMP) {
	t.Helper()
	route(t, prefix4, unix.RTN_BLACKHOLE)
	route(t, prefix6, unix.RTN_BLACKHOLE)
	in, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	must(t, unix.SetsockoptTimeval(in, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 20_000}))
	must(t, unix.Bind(in, &unix.SockaddrLinklayer{Protocol: unix.ETH_P_ALL << 8}))
	out4, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	must(t, err)
	out6, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	must(t, err)
	within4, within6 := netip.MustParsePrefix(prefix4), netip.MustParsePrefix(prefix6)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 2048)
		for ctx.Err() == nil {
			size, _, err := unix.Recvfrom(in, buf, 0)
			var p packet.Packet
			if err != nil || p.Decode(buf[:size]) != nil || p.Kind != packet.KindTCP || p.TCP.Flags != packet.SYN {
				continue
			}
			if !within4.Contains(p.TCP.Dst.Addr()) && !within6.Contains(p.TCP.Dst.Addr()) {
				continue
			}
			time.Sleep(2 * time.Millisecond)
			to := p.TCP.Src.Addr()
			e := packet.ICMPError{From: n.Addr4(), Type: with[to.Is6()].Type, Code: with[to.Is6()].Code}
			if to.Is6() {
				e.From = n.Addr6()
			}
			message, err := packet.AppendICMP(nil, &e, buf[:size])
			if err == nil && to.Is6() {
				err = unix.Sendto(out6, message, 0, &unix.SockaddrInet6{Addr: to.As16()})
			} else if err == nil {
				err = unix.Sendto(out4, message, 0, &unix.SockaddrInet4{Addr: to.As4()})
			}
			if err != nil {
				t.Errorf("complaining: %v", err)
			}
		}
	}()
	t.Cleanup(func() {
		stop()
		<-done
		for _, fd := range []int{in, out4, out6} {
			unix.Close(fd)
		}
	})
}

// setting writes a setting of the calling node's network.
func setting(t *testing.T, name, value string) {
	t.Helper()
	must(t, os.WriteFile("/proc/sys/net/"+name, []byte(value), 0))
}

// at is the address of a port on a node.
func at(a netip.Addr, port uint16) string { return netip.AddrPortFrom(a, port).String() }

// firstInterface is the number of the calling node's eth0.
func firstInterface() (int, error) {
	link, err := netlink.LinkByName("eth0")
	if err != nil {
		return 0, err
	}
	return link.Attrs().Index, nil
}
