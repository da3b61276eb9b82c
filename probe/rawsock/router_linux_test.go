package rawsock

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synmesh/synmesh/internal/lab"
)

// linkLocal returns the address that the kernel gave the node's interface, as
// soon as it may be used.
func linkLocal(t *testing.T, n *lab.Node) netip.Addr {
	t.Helper()
	const tentative = 0x40 // IFA_F_TENTATIVE
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		var table []byte
		must(t, n.Do(func() (err error) { table, err = os.ReadFile("/proc/thread-self/net/if_inet6"); return err }))
		for line := range strings.Lines(string(table)) {
			var b []byte
			var index, length, scope, flags int
			var name string
			if _, err := fmt.Sscanf(line, "%x %x %x %x %x %s", &b, &index, &length, &scope, &flags, &name); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			if a, _ := netip.AddrFromSlice(b); name == n.Interface() && a.IsLinkLocalUnicast() && flags&tentative == 0 {
				return a
			}
		}
	}
	t.Fatalf("%s has no link-local address", n.Name())
	return netip.Addr{}
}

func TestARouteHasItsSourceAndMTU(t *testing.T) {
	from, to := pair(t)
	r := openOn(t, from, OpenRouter)
	// Each route is asked for after one that has another source. The device's
	// MTU is 65536, of which an IPv4 packet can use all but one.
	for range 2 {
		for _, tt := range []struct {
			dst, src netip.Addr
			mtu      int
		}{
			{loopback4, loopback4, 65535},
			{to.Addr4(), from.Addr4(), 1500},
			{loopback6, loopback6, 65536},
			{to.Addr6(), from.Addr6(), 1500},
		} {
			src, mtu, err := r.Route(tt.dst)
			if err != nil || src != tt.src || mtu != tt.mtu {
				t.Errorf("Route(%v) = %v, %d, %v, want %v, %d", tt.dst, src, mtu, err, tt.src, tt.mtu)
			}
		}
	}
}

func TestARouteThroughAnInterfaceIsNamed(t *testing.T) {
	from, to := pair(t)
	r := openOn(t, from, OpenRouter)
	dst, want := linkLocal(t, to), linkLocal(t, from)
	must(t, from.Do(func() error { // interfaces are named inside the network
		src, mtu, err := r.Route(dst.WithZone(from.Interface()))
		if src != want || mtu != 1500 {
			t.Errorf("from %v with MTU %d, want %v and 1500", src, mtu, want)
		}
		return err
	}))
}

func TestNoRouteSaysWhy(t *testing.T) {
	r := openOn(t, alone(t), OpenRouter)
	for _, tt := range []struct{ dst, want string }{
		{"198.51.100.1", "no route from this host to 198.51.100.1 (network is unreachable)"},
		{"2001:db8::1", "no route from this host to 2001:db8::1 (network is unreachable)"},
		{"fe80::1%nope", `no route from this host to fe80::1%nope (no interface "nope" for fe80::1%nope)`},
	} {
		t.Run(tt.dst, func(t *testing.T) {
			src, mtu, err := r.Route(netip.MustParseAddr(tt.dst))
			if err == nil || err.Error() != tt.want || src.IsValid() || mtu != 0 {
				t.Errorf("Route = %v, %d, %v, want the error %s", src, mtu, err, tt.want)
			}
			if src, mtu, err := r.Route(loopback4); err != nil || src != loopback4 || mtu != 65535 {
				t.Errorf("afterwards, Route(%v) = %v, %d, %v", loopback4, src, mtu, err)
			}
		})
	}
}

func TestAHostWithoutIPv6RoutesIPv4(t *testing.T) {
	r := openOn(t, alone(t), OpenRouter)
	v6 := r.v6
	t.Cleanup(func() { r.v6 = v6 })
	r.v6 = -1 // as OpenRouter leaves it there
	if src, _, err := r.Route(loopback4); err != nil || src != loopback4 {
		t.Errorf("Route(%v) = %v, %v", loopback4, src, err)
	}
	_, _, err := r.Route(loopback6)
	if !errors.Is(err, unix.EAFNOSUPPORT) || !strings.HasPrefix(err.Error(), "no route from this host to ::1 (") {
		t.Errorf("Route(%v): %v, want EAFNOSUPPORT", loopback6, err)
	}
}

func TestRoutesMayBeAskedForAtOnce(t *testing.T) {
	from, to := pair(t)
	r := openOn(t, from, OpenRouter)
	var asking sync.WaitGroup
	for dst, want := range map[netip.Addr]netip.Addr{loopback4: loopback4, to.Addr4(): from.Addr4(), loopback6: loopback6, to.Addr6(): from.Addr6()} {
		asking.Go(func() {
			for range 100 {
				if src, _, err := r.Route(dst); err != nil || src != want {
					t.Errorf("Route(%v) = %v, %v, want %v", dst, src, err, want)
				}
			}
		})
	}
	asking.Wait()
}
