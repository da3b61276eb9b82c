package engine

import (
	"errors"
	"fmt"
	"sync"

	"github.com/synmesh/synmesh/probe/rawsock"
)

// errStopped is returned by Do when Run has returned.
var errStopped = errors.New("the probe engine has stopped")

// ports lends out source ports. A task has its ports to itself, so that two tasks never
// open the same connection at once: the target would take the second SYN for a
// stray of the first handshake.
type ports struct {
	mu     sync.Mutex
	within rawsock.PortRange
	lent   map[uint16]bool // for probes, or else for warm-ups
	closed bool
	tasks  sync.WaitGroup
}

func newPorts(within rawsock.PortRange) *ports {
	return &ports{within: within, lent: make(map[uint16]bool)}
}

// lease takes the n lowest ports that are free in this engine and on the host,
// for probes or for warm-ups.
func (p *ports) lease(n int, probes bool) ([]*rawsock.Guard, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errStopped
	}
	var guards []*rawsock.Guard
	for port := int(p.within.First); port <= int(p.within.Last) && len(guards) < n; port++ {
		if _, lent := p.lent[uint16(port)]; lent {
			continue
		}
		g, err := rawsock.HoldPort(uint16(port))
		if errors.Is(err, rawsock.ErrPortInUse) {
			continue
		}
		if err != nil {
			return nil, errors.Join(err, closeAll(guards))
		}
		guards = append(guards, g)
	}
	if len(guards) < n {
		err := fmt.Errorf("%d source ports are wanted, and only %d of %d-%d are free", n, len(guards), p.within.First, p.within.Last)
		return nil, errors.Join(err, closeAll(guards))
	}
	for _, g := range guards {
		p.lent[g.Port] = probes
	}
	p.tasks.Add(1)
	return guards, nil
}

func (p *ports) release(guards []*rawsock.Guard) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, g := range guards {
		delete(p.lent, g.Port)
	}
	p.tasks.Done()
	return closeAll(guards)
}

// drain lends no more, and waits until everything lent has come back.
func (p *ports) drain() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.tasks.Wait()
}

func closeAll(guards []*rawsock.Guard) error {
	var errs []error
	for _, g := range guards {
		errs = append(errs, g.Close())
	}
	return errors.Join(errs...)
}
