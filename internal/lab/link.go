//go:build linux

package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A Link joins two nodes. It is an Ethernet of its own, with an IPv4 /30 out of 10.77.0.0/16 and an IPv6 /126 out of
// fd77::/48, and both ends know each other's hardware address from the start.
type Link struct {
	lab   *Lab
	ports [2]*port
	fars  [2]netlink.Link // The relay's interfaces; fars[i] is the other end of ports[i]'s. Nil for a Wire.
	wires [2]*wire        // wires[i] carries what ports[i] sends. Nil for a Wire.
}

// A port is one end of a link: an interface of a node.
type port struct {
	node             *Node
	peer             *port
	link             *Link
	name             string
	mac              net.HardwareAddr
	prefix4, prefix6 netip.Prefix
	dev              netlink.Link
}

// Impairment is what one direction of a link does to packets. A packet is what the interface hands over, which for bulk
// TCP may be a batch of up to 64 KiB; ARP and neighbour discovery count like everything else. The zero value passes
// everything on at once.
type Impairment struct {
	// Delay is the one-way delay, and Jitter how far a packet's delay may be from it: uniformly distributed in
	// [Delay-Jitter, Delay+Jitter], but never below zero and never so that the packet overtakes the one before it.
	Delay, Jitter time.Duration

	// Loss, Duplicate and Reorder are the probabilities, from 0 to 1, that a packet is dropped, sent twice, or held
	// back by a further Hold so that what comes within that time overtakes it.
	Loss, Duplicate, Reorder float64

	// Hold is how much longer than others a packet is under way that Reorder picks. Zero means 10 ms.
	Hold time.Duration

	// Queue is how many packets may be under way at once; what comes then is dropped and counted. Zero means 10,000.
	// There is a limit of 64 MiB besides.
	Queue int
}

// Counts is what happened to the packets of a link, both directions together.
type Counts struct {
	Forwarded  uint64 // Passed on, extra copies not counted.
	Lost       uint64 // Dropped because of Impairment.Loss or Down.
	Duplicated uint64 // Extra copies sent.
	Reordered  uint64 // Sent after a packet that had come later.
	Dropped    uint64 // Dropped by no wish of anybody's: a queue was full or the far interface refused.
}

const (
	maxDelay = time.Minute
	maxLinks = 1 << 14 // So many /30 are in the /16.
	mtu      = 1500
)

func (i Impairment) check() error {
	for _, d := range []time.Duration{i.Delay, i.Jitter, i.Hold} {
		if d < 0 || d > maxDelay {
			return fmt.Errorf("a delay of %v: want 0 to %v", d, maxDelay)
		}
	}
	for _, p := range []float64{i.Loss, i.Duplicate, i.Reorder} {
		if !(p >= 0 && p <= 1) { // Not so for NaN.
			return fmt.Errorf("a probability of %v: want 0 to 1", p)
		}
	}
	if i.Queue < 0 {
		return fmt.Errorf("a queue of %d packets", i.Queue)
	}
	return nil
}

// Link joins two nodes by a link with a relay in its middle, which treats both directions as imp says, and later as Set
// says. While a lab has relays, GOMAXPROCS is higher than otherwise by four, so that they are in time. After an error the lab is good for nothing but Close.
func (l *Lab) Link(a, b *Node, imp Impairment) (*Link, error) {
	if err := imp.check(); err != nil {
		return nil, fmt.Errorf("lab: linking %s and %s: %w", a.name, b.name, err)
	}
	return l.join(a, b, func(k *Link) error { return k.createRelayed(imp) })
}

// Wire joins two nodes by a plain pair of virtual interfaces, without delay and without a relay: cheaper than a Link,
// and as fast as the kernel. After an error the lab is good for nothing but Close.
func (l *Lab) Wire(a, b *Node) (*Link, error) {
	return l.join(a, b, (*Link).createPlain)
}

func (l *Lab) join(a, b *Node, create func(*Link) error) (k *Link, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer func() {
		if err != nil {
			err = fmt.Errorf("lab: linking %s and %s: %w", a.name, b.name, err)
		}
	}()
	switch {
	case l.closed:
		return nil, errClosed
	case a == b:
		return nil, errors.New("a node cannot be linked to itself")
	case a.lab != l || b.lab != l:
		return nil, errors.New("a node is of another lab")
	case len(l.links) >= maxLinks:
		return nil, fmt.Errorf("there are %d links already", maxLinks)
	}
	k = &Link{lab: l}
	number := len(l.links)
	k.ports = [2]*port{newPort(k, a, number, 1), newPort(k, b, number, 2)}
	k.ports[0].peer, k.ports[1].peer = k.ports[1], k.ports[0]
	l.links = append(l.links, k) // From here on Close cleans up.
	if err := create(k); err != nil {
		return nil, err
	}
	if err := k.configure(); err != nil {
		return nil, err
	}
	for _, p := range k.ports {
		p.node.ports = append(p.node.ports, p)
	}
	return k, nil
}

// newPort numbers one end (1 or 2) of a link: fourth part of the addresses, and all of the hardware address.
func newPort(k *Link, n *Node, number, end int) *port {
	host := number<<2 | end
	high, low := byte(host>>8), byte(host)
	ip6 := [16]byte{0: 0xfd, 1: 0x77, 14: high, 15: low}
	return &port{
		node:    n,
		link:    k,
		name:    fmt.Sprintf("eth%d", len(n.ports)),
		mac:     net.HardwareAddr{0x02, 0x77, 0, 0, high, low}, // Locally administered.
		prefix4: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 77, high, low}), 30),
		prefix6: netip.PrefixFrom(netip.AddrFrom16(ip6), 126),
	}
}

func (k *Link) createPlain() error {
	a, b := k.ports[0], k.ports[1]
	return addPair(a, b.name, b.mac, b.node.space)
}

// createRelayed makes two pairs and a relay between their far ends. These are up, and the relay listens, before the
// nodes' ends come up.
func (k *Link) createRelayed(imp Impairment) error {
	l := k.lab
	if l.relays == nil {
		s, err := newSpace(relaySettings)
		if err != nil {
			return err
		}
		l.relays = s
		reserveProcessors(1)
	}
	for i, p := range k.ports {
		far := fmt.Sprintf("l%d.%d", len(l.links), i)
		if err := addPair(p, far, nil, l.relays); err != nil {
			return err
		}
		dev, err := l.relays.handle.LinkByName(far)
		if err == nil {
			err = l.relays.handle.LinkSetUp(dev)
		}
		if err != nil {
			return fmt.Errorf("bringing the relay's end up: %w", err)
		}
		k.fars[i] = dev
	}
	return k.startRelay(imp)
}

// addPair makes the interface of p and its far end in another namespace.
func addPair(p *port, farName string, farMAC net.HardwareAddr, far *space) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = p.name, mtu, p.mac
	err := p.node.space.handle.LinkAdd(&netlink.Veth{
		LinkAttrs: attrs, PeerName: farName, PeerMTU: mtu, PeerHardwareAddr: farMAC, PeerNamespace: netlink.NsFd(far.fd),
	})
	if err != nil {
		return fmt.Errorf("making an interface: %w", err)
	}
	return nil
}

// configure brings both ends up and gives them addresses and each other's hardware address. It may be repeated.
func (k *Link) configure() error {
	for _, p := range k.ports {
		dev, err := p.node.space.handle.LinkByName(p.name)
		if err == nil {
			p.dev = dev
			err = p.node.space.handle.LinkSetUp(dev)
		}
		if err != nil {
			return fmt.Errorf("bringing %s of %s up: %w", p.name, p.node.name, err)
		}
	}
	// Until both ends of a pair have seen that the other is up, packets vanish.
	for i, p := range k.ports {
		err := awaitCarrier(p.node.space, p.dev)
		if err == nil && k.fars[i] != nil {
			err = awaitCarrier(k.lab.relays, k.fars[i])
		}
		if err != nil {
			return fmt.Errorf("waiting for %s of %s: %w", p.name, p.node.name, err)
		}
	}
	for _, p := range k.ports {
		if err := p.configure(); err != nil {
			return fmt.Errorf("configuring %s of %s: %w", p.name, p.node.name, err)
		}
	}
	return nil
}

func (p *port) configure() error {
	h := p.node.space.handle
	for _, a := range []netip.Prefix{p.prefix4, p.prefix6} {
		addr := &netlink.Addr{IPNet: ipNet(a)}
		if a.Addr().Is6() {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := h.AddrReplace(p.dev, addr); err != nil {
			return fmt.Errorf("adding address %v: %w", a, err)
		}
	}
	// With the neighbours known, the first packet of a test takes as long as all others.
	for _, a := range []netip.Prefix{p.peer.prefix4, p.peer.prefix6} {
		err := h.NeighSet(&netlink.Neigh{
			LinkIndex: p.dev.Attrs().Index, State: netlink.NUD_PERMANENT, IP: a.Addr().AsSlice(), HardwareAddr: p.peer.mac,
		})
		if err != nil {
			return fmt.Errorf("adding neighbour %v: %w", a.Addr(), err)
		}
	}
	return nil
}

// awaitCarrier returns when the interface passes packets, which is a moment after both of its ends are up.
func awaitCarrier(s *space, dev netlink.Link) error {
	const patience = 5 * time.Second
	for deadline := time.Now().Add(patience); ; time.Sleep(pollEvery) {
		now, err := s.handle.LinkByIndex(dev.Attrs().Index)
		if err != nil {
			return err
		}
		if now.Attrs().OperState == netlink.OperUp {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("still %v after %v", now.Attrs().OperState, patience)
		}
	}
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
