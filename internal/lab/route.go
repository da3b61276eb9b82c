//go:build linux

package lab

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Route computes the shortest path between every two nodes, by the sum of the delays and then by the number of links,
// and installs it on every node along it, for the primary addresses of both families. Hosts do not forward, so no path
// leads through one. A host that has a router for a neighbour sends everything else to the first such, so that probing
// an address that nobody has is answered as in real networks. Call it when all links exist; later changes of delay do
// not move a route, but a second call does.
func (l *Lab) Route() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return fmt.Errorf("lab: routing: %w", errClosed)
	}
	for _, n := range l.nodes {
		n.next = l.paths(n)
	}
	for _, n := range l.nodes {
		if err := n.installRoutes(); err != nil {
			return fmt.Errorf("lab: routing: %w", err)
		}
	}
	for _, n := range l.nodes {
		if err := n.awaitAddresses(); err != nil {
			return fmt.Errorf("lab: routing: %w", err)
		}
	}
	return nil
}

// awaitAddresses returns when the node takes in what is sent to its IPv6 addresses: the kernel makes the local route
// some time after the address, and drops what comes before.
func (n *Node) awaitAddresses() error {
	for _, p := range n.ports {
		to := p.prefix6.Addr()
		for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
			routes, err := n.space.handle.RouteGet(to.AsSlice())
			if err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("%s does not take in what is sent to %s: %w", n.name, to, err)
			}
		}
	}
	return nil
}

// RTT returns the delay that was told for packets from a to b and back: the sum of Impairment.Delay as it is now over
// both directions of the path that Route chose. It is negative if there is no path, or Route was not called.
func (l *Lab) RTT(a, b *Node) time.Duration {
	l.mu.RLock()
	defer l.mu.RUnlock()
	there, ok := a.delayTo(b)
	back, ok2 := b.delayTo(a)
	if !ok || !ok2 {
		return -1
	}
	return there + back
}

func (n *Node) delayTo(to *Node) (time.Duration, bool) {
	var sum time.Duration
	for n != to {
		p := n.next[to]
		if p == nil {
			return 0, false
		}
		sum += p.delay()
		n = p.peer.node
	}
	return sum, true
}

// delay is the one-way delay told for what the port sends.
func (p *port) delay() time.Duration {
	for i, w := range p.link.wires {
		if w != nil && p.link.ports[i] == p {
			return w.imp.Load().Delay
		}
	}
	return 0
}

// cost orders paths.
type cost struct {
	delay time.Duration
	hops  int
}

func (c cost) less(d cost) bool { return c.delay < d.delay || c.delay == d.delay && c.hops < d.hops }

// paths returns by which of its ports a node reaches every other node (Dijkstra's algorithm; the number of nodes is
// small). Between equal paths the one found first stays, so that the result is always the same.
func (l *Lab) paths(from *Node) map[*Node]*port {
	costs := map[*Node]cost{from: {}}
	next := make(map[*Node]*port)
	done := make(map[*Node]bool)
	for {
		var at *Node
		for _, n := range l.nodes {
			if c, ok := costs[n]; ok && !done[n] && (at == nil || c.less(costs[at])) {
				at = n
			}
		}
		if at == nil {
			return next
		}
		done[at] = true
		if at != from && !at.forwards {
			continue
		}
		for _, p := range at.ports {
			to := p.peer.node
			c := cost{costs[at].delay + p.delay(), costs[at].hops + 1}
			if old, ok := costs[to]; ok && !c.less(old) {
				continue
			}
			costs[to] = c
			if next[to] = next[at]; at == from {
				next[to] = p
			}
		}
	}
}

func (n *Node) installRoutes() error {
	for to, p := range n.next {
		if err := n.routeTo(p, to.ports[0].prefix4.Addr(), p.peer.prefix4.Addr(), n.ports[0].prefix4.Addr()); err != nil {
			return err
		}
		if err := n.routeTo(p, to.ports[0].prefix6.Addr(), p.peer.prefix6.Addr(), n.ports[0].prefix6.Addr()); err != nil {
			return err
		}
	}
	for _, p := range n.ports {
		if n.next == nil || n.forwards || !p.peer.node.forwards {
			continue
		}
		if err := n.routeTo(p, netip.IPv4Unspecified(), p.peer.prefix4.Addr(), n.ports[0].prefix4.Addr()); err != nil {
			return err
		}
		return n.routeTo(p, netip.IPv6Unspecified(), p.peer.prefix6.Addr(), n.ports[0].prefix6.Addr())
	}
	return nil
}

// routeTo sends what is for the address to (everything, if it is unspecified) out of p, with the node's primary address
// for its source, which is the one that others have a route to.
func (n *Node) routeTo(p *port, to, gateway, source netip.Addr) error {
	r := &netlink.Route{LinkIndex: p.dev.Attrs().Index, Src: source.AsSlice()}
	bits := to.BitLen()
	if to.IsUnspecified() {
		bits = 0
	}
	r.Dst = ipNet(netip.PrefixFrom(to, bits))
	if to == gateway {
		r.Scope = netlink.SCOPE_LINK
	} else {
		r.Gw, r.Flags = gateway.AsSlice(), int(netlink.FLAG_ONLINK)
	}
	if err := n.space.handle.RouteReplace(r); err != nil {
		return fmt.Errorf("route from %s to %v: %w", n.name, r.Dst, err)
	}
	return nil
}
