//go:build linux

package lab

import (
	"errors"
	"fmt"
)

var errPlain = errors.New("it is a Wire, which has no relay")

// Set changes what both directions do to packets, from the next packet on. Packets under way keep their departure, and
// later ones do not overtake them. It fails on a Wire and on values out of range.
func (k *Link) Set(imp Impairment) error {
	return k.set(imp, k.wires[:])
}

// SetDirection is Set for what the node from, one of the two that the link joins, sends.
func (k *Link) SetDirection(from *Node, imp Impairment) error {
	for i, p := range k.ports {
		if p.node == from {
			return k.set(imp, k.wires[i:i+1])
		}
	}
	return fmt.Errorf("lab: impairing %v: it does not end at %s", k, from.name)
}

func (k *Link) set(imp Impairment, wires []*wire) error {
	err := imp.check()
	if err == nil && wires[0] == nil {
		err = errPlain
	}
	if err != nil {
		return fmt.Errorf("lab: impairing %v: %w", k, err)
	}
	for _, w := range wires {
		w.imp.Store(&imp)
	}
	return nil
}

// String names the link by its two nodes.
func (k *Link) String() string {
	return fmt.Sprintf("%s-%s", k.ports[0].node.name, k.ports[1].node.name)
}

// Down cuts the link. On a relayed link packets then vanish without anybody being told, those under way included; on a
// Wire both interfaces lose their carrier, so that the nodes notice, and lose their routes over it.
func (k *Link) Down() error {
	if k.wires[0] != nil {
		for _, w := range k.wires {
			w.down.Store(true)
		}
		return nil
	}
	k.lab.mu.Lock()
	defer k.lab.mu.Unlock()
	if k.lab.closed {
		return fmt.Errorf("lab: cutting %v: %w", k, errClosed)
	}
	for _, p := range k.ports {
		if err := p.node.space.handle.LinkSetDown(p.dev); err != nil {
			return fmt.Errorf("lab: cutting %v: %w", k, err)
		}
	}
	return nil
}

// Up ends what Down began. Of a Wire it also brings the addresses and routes back.
func (k *Link) Up() error {
	if k.wires[0] != nil {
		for _, w := range k.wires {
			w.down.Store(false)
		}
		return nil
	}
	k.lab.mu.Lock()
	defer k.lab.mu.Unlock()
	if k.lab.closed {
		return fmt.Errorf("lab: mending %v: %w", k, errClosed)
	}
	if err := k.configure(); err != nil {
		return fmt.Errorf("lab: mending %v: %w", k, err)
	}
	for _, p := range k.ports {
		if err := p.node.installRoutes(); err != nil {
			return fmt.Errorf("lab: mending %v: %w", k, err)
		}
	}
	return nil
}

// Counts returns what has happened to the link's packets so far. A Wire counts nothing.
func (k *Link) Counts() Counts {
	var c Counts
	for _, w := range k.wires {
		if w != nil {
			w.addTo(&c)
		}
	}
	return c
}
