package engine

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/probe/packet"
)

// synLen is the length of every SYN of ours.
const synLen = 40

// target is where a task sends to, and how.
type target struct {
	name    string
	remote  netip.AddrPort // with a zone, if it was given one
	unknown error          // its name has no address; then the rest is missing
	way     *way           // nil if it has to be looked up before the next probe
}

// way is how a target is reached. It never changes: the receiver reads it
// while a task may be looking for another.
type way struct {
	plain    netip.AddrPort // the target as it stands in packets
	src      netip.Addr
	device   uint32 // index of the interface to leave by; 0 leaves it to the routes
	template packet.Template
}

// route finds the way to the target's address and prepares its SYN.
func (e *Engine) route(t *target, how *probe.Sending) (*way, error) {
	var w way
	src, mtu, err := e.router.Route(t.remote.Addr())
	if how.Interface != "" {
		src, mtu, w.device, err = device(how.Interface, t.remote.Addr().Is6())
	}
	if err != nil {
		return nil, err
	}
	if how.Source.IsValid() {
		if src = how.Source.Unmap().WithZone(""); src.Is6() != t.remote.Addr().Is6() {
			return nil, fmt.Errorf("the source %s and the target %s are of different IP versions", src, t.remote.Addr())
		}
	}
	headers := 40
	if src.Is6() {
		headers = 60
	}
	mss := min(mtu, 65535) - headers
	if mss <= 0 {
		return nil, fmt.Errorf("the MTU of %d bytes towards %s is too small for TCP", mtu, t.remote.Addr())
	}
	w.src = src
	w.plain = netip.AddrPortFrom(t.remote.Addr().WithZone(""), t.remote.Port())
	syn := packet.LinuxSYN(src, w.plain, uint16(mss))
	if how.ECN {
		syn.Flags |= packet.ECE | packet.CWR
	}
	if w.template, err = packet.NewTemplate(&syn); err != nil {
		return nil, err
	}
	return &w, nil
}

// device finds an address of the interface to send from.
func device(name string, v6 bool) (src netip.Addr, mtu int, index uint32, err error) {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return src, 0, 0, fmt.Errorf("interface %q: %w", name, err)
	}
	addrs, err := i.Addrs()
	if err != nil {
		return src, 0, 0, fmt.Errorf("interface %q: %w", name, err)
	}
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err == nil && p.Addr().Is6() == v6 && !p.Addr().IsLinkLocalUnicast() {
			return p.Addr(), i.MTU, uint32(i.Index), nil
		}
	}
	return src, 0, 0, fmt.Errorf("interface %q has no address to send from to such a target", name)
}
