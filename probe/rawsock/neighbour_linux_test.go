package rawsock

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/synmesh/synmesh/internal/lab"
	"github.com/synmesh/synmesh/probe/packet"
)

func known(t *testing.T, r *Router, src, dst netip.Addr) bool {
	t.Helper()
	known, err := r.Neighbour(src, dst, 0)
	must(t, err)
	return known
}

// forget has the node know nobody.
func forget(t *testing.T, n *lab.Node) {
	t.Helper()
	must(t, n.Do(func() error {
		link, err := netlink.LinkByName(n.Interface())
		if err != nil {
			return err
		}
		all, err := netlink.NeighList(link.Attrs().Index, netlink.FAMILY_ALL)
		for i := range all {
			if err == nil && all[i].State != netlink.NUD_NOARP {
				err = netlink.NeighDel(&all[i])
			}
		}
		return err
	}))
}

func TestANeighbourIsKnownOnceItWasSpokenTo(t *testing.T) {
	from, to := pair(t)
	r := openOn(t, from, OpenRouter)
	for _, v6 := range []bool{false, true} {
		src, dst := from.Addr4(), to.Addr4()
		if v6 {
			src, dst = from.Addr6(), to.Addr6()
		}
		forget(t, from)
		if known(t, r, src, dst) {
			t.Errorf("%s is known, though nobody has spoken to it", dst)
		}
		c := captureOn(t, from, ourPorts)
		send(t, senderOn(t, from, v6, false), tcp(t, netip.AddrPortFrom(src, 61003), netip.AddrPortFrom(dst, 7000), packet.SYN, 1, 0))
		takeUntil(t, c, 1) // the RST
		if !known(t, r, src, dst) {
			t.Errorf("%s is not known, though it has answered", dst)
		}
		for _, own := range []netip.Addr{src, loopback(v6)} {
			if !known(t, r, own, own) {
				t.Errorf("%s is not known, though it is this host", own)
			}
		}
	}
	must(t, from.Do(func() error { // where the zone has its number
		here, there := linkLocal(t, from), linkLocal(t, to)
		if !known(t, r, here, here.WithZone(from.Interface())) {
			t.Error("a link-local address of this host is not known")
		}
		if known(t, r, here, there.WithZone(from.Interface())) {
			t.Error("a link-local address is known, though nobody has spoken to it")
		}
		return nil
	}))
}

func TestTheNeighbourIsTheGatewayIfThereIsOne(t *testing.T) {
	from, to := pair(t)
	r := openOn(t, from, OpenRouter)
	dst, prefix := netip.MustParseAddr("192.0.2.1"), &net.IPNet{IP: net.IPv4(192, 0, 2, 0), Mask: net.CIDRMask(24, 32)}
	if _, err := r.Neighbour(from.Addr4(), dst, 0); !errors.Is(err, unix.ENETUNREACH) {
		t.Errorf("without a route: %v", err)
	}
	gateway := net.IP(to.Addr4().AsSlice())
	must(t, from.Do(func() error {
		return netlink.RouteAdd(&netlink.Route{Dst: prefix, Gw: gateway})
	}))
	forget(t, from)
	if known(t, r, from.Addr4(), dst) {
		t.Error("known, though nobody has spoken to the gateway")
	}
	must(t, from.Do(func() error {
		link, err := netlink.LinkByName(from.Interface())
		if err != nil {
			return err
		}
		return netlink.NeighAdd(&netlink.Neigh{LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT, IP: gateway, HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 1}})
	}))
	if !known(t, r, from.Addr4(), dst) {
		t.Error("not known, though the gateway is known for ever")
	}
}

// Hosts with several uplinks route by the source.
func TestTheSourceDecidesWhereItIsRoutedByThat(t *testing.T) {
	from, to := pair(t)
	r := openOn(t, from, OpenRouter)
	if !known(t, r, from.Addr4(), to.Addr4()) { // the lab has told it
		t.Error("not known")
	}
	must(t, from.Do(func() error {
		rule := netlink.NewRule()
		rule.Family, rule.Type, rule.Priority = netlink.FAMILY_V4, unix.FR_ACT_UNREACHABLE, 10
		rule.Src = &net.IPNet{IP: from.Addr4().AsSlice(), Mask: net.CIDRMask(32, 32)}
		return netlink.RuleAdd(rule)
	}))
	if _, err := r.Neighbour(from.Addr4(), to.Addr4(), 0); !errors.Is(err, unix.ENETUNREACH) {
		t.Errorf("from a source that may not go there: %v", err)
	}
}

// An IPv4 route may lead by an IPv6 gateway (RFC 5549).
func TestTheGatewayMayBeOfTheOtherVersion(t *testing.T) {
	from, to := pair(t)
	r := openOn(t, from, OpenRouter)
	dst, prefix := netip.MustParseAddr("192.0.2.1"), &net.IPNet{IP: net.IPv4(192, 0, 2, 0), Mask: net.CIDRMask(24, 32)}
	via := linkLocal(t, to)
	must(t, from.Do(func() error {
		link, err := netlink.LinkByName(from.Interface())
		if err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: prefix,
			Via: &netlink.Via{AddrFamily: netlink.FAMILY_V6, Addr: via.AsSlice()}})
	}))
	forget(t, from)
	if known(t, r, from.Addr4(), dst) {
		t.Error("known, though nobody has spoken to the gateway")
	}
	send(t, senderOn(t, from, false, false), tcp(t, netip.AddrPortFrom(from.Addr4(), 61003), netip.AddrPortFrom(dst, 7000), packet.SYN, 1, 0))
	for deadline := time.Now().Add(5 * time.Second); !known(t, r, from.Addr4(), dst); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not known, though it was sent to")
		}
	}
}

func TestADeviceThatAsksNobodyHasNoNeighbours(t *testing.T) {
	from, to := pair(t)
	r := openOn(t, from, OpenRouter)
	forget(t, from)
	must(t, from.Do(func() error {
		link, err := netlink.LinkByName(from.Interface())
		if err != nil {
			return err
		}
		return netlink.LinkSetARPOff(link) // like a tunnel
	}))
	if !known(t, r, from.Addr4(), to.Addr4()) {
		t.Error("not known, though the device asks nobody")
	}
}

func TestOfWhatTheKernelSaysNothingIsTakenOnTrust(t *testing.T) {
	message := func(size uint32, kind uint16, seq uint32, body ...byte) []byte {
		b := binary.NativeEndian.AppendUint32(nil, size)
		b = binary.NativeEndian.AppendUint16(b, kind)
		b = binary.NativeEndian.AppendUint32(append(b, 0, 0), seq)
		return append(append(b, 0, 0, 0, 0), body...)
	}
	word := func(v int32) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(v)) }
	for _, c := range []struct {
		name string
		b    []byte
		want error
	}{
		{"nothing", nil, errNetlink},
		{"a size beyond the end", message(20, 24, 1), errNetlink},
		{"a size below the header", message(15, 24, 1), errNetlink},
		{"another number", message(16, 24, 2), errNetlink},
		{"another kind", message(16, 25, 1), errNetlink},
		{"an error", message(20, unix.NLMSG_ERROR, 1, word(-int32(unix.ENOENT))...), unix.ENOENT},
		{"an error without a code", message(16, unix.NLMSG_ERROR, 1), errNetlink},
		{"an acknowledgement", message(20, unix.NLMSG_ERROR, 1, word(0)...), errNetlink},
		{"what was asked for", message(16, 24, 1), nil},
	} {
		if _, err := parseReply(c.b, 24, 1); !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func FuzzParseNetlink(f *testing.F) {
	route := append([]byte{unix.AF_INET, 32, 0, 0, 254, 3, 0, unix.RTN_UNICAST, 0, 0, 0, 0}, appendAttribute(nil, unix.RTA_OIF, []byte{2, 0, 0, 0})...)
	header := make([]byte, unix.NLMSG_HDRLEN)
	binary.NativeEndian.PutUint32(header, uint32(len(header)+len(route)))
	binary.NativeEndian.PutUint16(header[4:], unix.RTM_NEWROUTE)
	f.Add(append(header, route...))
	f.Add(route)
	f.Add(appendAttribute(route, unix.RTA_VIA, []byte{10, 0, 1, 2, 3, 4}))
	f.Add(appendAttribute(route, unix.RTA_GATEWAY, []byte{192, 0, 2, 1}))
	f.Add([]byte{unix.AF_INET6, 0, 0, 0, 2, 0, 0, 0, unix.NUD_STALE, 0, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		if body, err := parseReply(b, unix.RTM_NEWROUTE, 0); err == nil && len(body) > len(b)-unix.NLMSG_HDRLEN {
			t.Errorf("a body of %d bytes in %d", len(body), len(b))
		}
		if h, err := parseRoute(b); err == nil && h.device == 0 {
			t.Errorf("a route without a device: %+v", h)
		}
		if state, err := parseNeighbour(b); err != nil && state != 0 {
			t.Errorf("a state of %#x with %v", state, err)
		}
	})
}

func BenchmarkNeighbour(b *testing.B) {
	from, to := pair(b)
	r := openOn(b, from, OpenRouter)
	for b.Loop() {
		if _, err := r.Neighbour(from.Addr4(), to.Addr4(), 0); err != nil {
			b.Fatal(err)
		}
	}
}
