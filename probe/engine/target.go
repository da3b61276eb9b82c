package engine

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/probe/packet"
	"github.com/synmesh/synmesh/probe/rawsock"
	"github.com/synmesh/synmesh/probe/resolve"
)

// synLen is the length of every SYN of ours.
const synLen = 40

// target is where a task sends to, and how. It never moves: if its name comes to
// lead elsewhere, another takes its place.
type target struct {
	name    string
	remote  netip.AddrPort // with a zone, if it was given one
	plain   netip.AddrPort // as it stands in packets
	unknown error          // its name has no address; then the rest is missing
	way     *way           // nil if it has to be looked up before the next probe
	// neighbour is until when, by the monotonic clock, the first hop's is surely known.
	neighbour time.Duration
	begun     bool      // its first probe has been due
	warming   bool      // a warm-up is under way
	held      []*flight // what waits for that
}

func newTarget(name string, at *resolve.Address) *target {
	plain := netip.AddrPortFrom(at.Remote.Addr().WithZone(""), at.Remote.Port())
	return &target{name: name, remote: at.Remote, plain: plain, unknown: at.Err}
}

// way is how targets are reached: all that are sent to from one address, by one
// device, in packets of one size. It never changes: the receiver reads it
// while a task may be looking for another.
type way struct {
	src      netip.Addr
	device   uint32 // index of the interface to leave by; 0 leaves it to the routes
	template packet.Template
}

// origin is what ways differ in.
type origin struct {
	src    netip.Addr
	device uint32
	mtu    int
}

// ways finds those of a task's targets.
type ways struct {
	router *rawsock.Router
	how    *probe.Sending
	known  map[origin]*way
}

// find returns the way to a target.
func (w *ways) find(t *target) (*way, error) {
	from, err := w.origin(t)
	if err != nil {
		return nil, err
	}
	if w.how.Source.IsValid() {
		if from.src = w.how.Source.Unmap().WithZone(""); from.src.Is6() != t.plain.Addr().Is6() {
			return nil, fmt.Errorf("the source %s and the target %s are of different IP versions", from.src, t.remote.Addr())
		}
	}
	if known := w.known[from]; known != nil {
		return known, nil
	}
	found, err := w.from(from, t)
	if err == nil {
		w.known[from] = found
	}
	return found, err
}

// origin asks the kernel where packets to the target would come from.
func (w *ways) origin(t *target) (o origin, err error) {
	if w.how.Interface != "" {
		return device(w.how.Interface, t.plain.Addr().Is6())
	}
	o.src, o.mtu, err = w.router.Route(t.remote.Addr())
	if to := t.remote.Addr(); err == nil && !reaches(o.src, to) { // as where an address has gone, and its route has not
		err = fmt.Errorf("this host has no address to reach %s from but %s, which is not good that far", to, o.src)
	}
	return o, err
}

// reaches tells whether answers to src may come from as far as dst. Hosts whose
// one IPv4 address is link-local exist, behind a router that translates it.
func reaches(src, dst netip.Addr) bool {
	if src.Is6() && src.IsLinkLocalUnicast() {
		return dst.IsLinkLocalUnicast()
	}
	return !src.IsLoopback() || dst.IsLoopback()
}

// from makes the way from there to a target, and to others like it.
func (w *ways) from(o origin, t *target) (*way, error) {
	headers := 40
	if t.plain.Addr().Is6() {
		headers = 60
	}
	mss := min(o.mtu, 65535) - headers
	if mss <= 0 {
		return nil, fmt.Errorf("the MTU of %d bytes towards %s is too small for TCP", o.mtu, t.remote.Addr())
	}
	syn := packet.LinuxSYN(o.src, t.plain, uint16(mss))
	if w.how.ECN {
		syn.Flags |= packet.ECE | packet.CWR
	}
	template, err := packet.NewTemplate(&syn)
	return &way{src: o.src, device: o.device, template: template}, err
}

// device finds an address of the interface to send from.
func device(name string, v6 bool) (origin, error) {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return origin{}, fmt.Errorf("interface %q: %w", name, err)
	}
	addrs, err := i.Addrs()
	if err != nil {
		return origin{}, fmt.Errorf("interface %q: %w", name, err)
	}
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err == nil && p.Addr().Is6() == v6 && !p.Addr().IsLinkLocalUnicast() {
			return origin{src: p.Addr(), mtu: i.MTU, device: uint32(i.Index)}, nil
		}
	}
	return origin{}, fmt.Errorf("interface %q has no address to send from to such a target", name)
}
