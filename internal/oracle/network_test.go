//go:build linux

package oracle_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/synmesh/synmesh/internal/lab"
)

// network is hosts of a lab: the controller's, and one for each agent, on a site of its own.
type network struct {
	*testing.T
	lab        *lab.Lab
	controller *lab.Node
	sites      map[string]*site
	cutting    sync.WaitGroup // who cuts links
}

// site is where an agent is: its host, a cable to a router, and from there the way
// to the controller.
type site struct {
	host  *lab.Node
	links [lasting]*lab.Link
	mu    sync.Mutex // held by who cuts one of them
	cuts  [kinds]int // done
}

// kind is how a link is cut.
type kind int

const (
	carrier kind = iota // the host's interface goes down, and its routes with it
	silence             // packets vanish on the way, and nobody is told
	lasting             // as many kinds take time
)

const (
	reset kind = iota + lasting // the connections are reset
	kinds
)

func (k kind) String() string {
	return [kinds]string{carrier: "interface down", silence: "packets vanish", reset: "connections reset"}[k]
}

// port is the controller's.
const port = "7400"

// newNetwork has a site for each agent.
func newNetwork(t *testing.T, agents []string) *network {
	l, err := lab.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	n := &network{T: t, lab: l, sites: make(map[string]*site)}
	n.controller, err = l.Host("controller")
	n.must(err)
	for _, name := range agents {
		n.sites[name] = n.addSite(name)
	}
	n.must(l.Route())
	return n
}

func (n *network) addSite(agent string) *site {
	n.Helper()
	s := &site{}
	router, err := n.lab.Router("site of " + agent)
	n.must(err)
	s.host, err = n.lab.Host(agent)
	n.must(err)
	s.links[carrier], err = n.lab.Wire(s.host, router)
	n.must(err)
	s.links[silence], err = n.lab.Link(router, n.controller, lab.Impairment{Delay: 2 * time.Millisecond})
	n.must(err)
	return s
}

func (n *network) must(err error) {
	n.Helper()
	if err != nil {
		n.Fatal(err)
	}
}

// address is where the controller is, to all agents.
func (n *network) address() string { return net.JoinHostPort(n.controller.Addr4().String(), port) }

// cut cuts a site off until the channel that it is given is closed or the time has
// come. The lock is held.
func (s *site) cut(how kind, length time.Duration, over <-chan struct{}) error {
	if how == reset {
		s.cuts[how]++
		return s.host.Do(resetAll)
	}
	if err := s.links[how].Down(); err != nil {
		return err
	}
	s.cuts[how]++
	pause(length, over)
	return s.links[how].Up()
}

// resetAll ends the connections to the controller of the host that it is called on, as
// a firewall does that has forgotten them: both sides are told.
func resetAll() error {
	all, err := netlink.SocketDiagTCPInfo(unix.AF_INET)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return fmt.Errorf("listing connections: %w", err)
	}
	for _, c := range all {
		id := c.InetDiagMsg.ID
		if strconv.Itoa(int(id.DestinationPort)) != port {
			continue
		}
		err := netlink.SocketDestroy(&net.TCPAddr{IP: id.Source, Port: int(id.SourcePort)}, &net.TCPAddr{IP: id.Destination, Port: int(id.DestinationPort)})
		if err != nil && !errors.Is(err, unix.ENOENT) { // it has ended meanwhile
			return fmt.Errorf("resetting a connection: %w", err)
		}
	}
	return nil
}

// snip cuts a site off again and again, for up to a second, until over is closed.
func (s *site) snip(over <-chan struct{}) error {
	for pause(rand.N(1500*time.Millisecond), over) {
		s.mu.Lock()
		err := s.cut(rand.N(kinds), rand.N(time.Second), over)
		s.mu.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// snipAll does that to all sites. Who calls stop gets how often that was.
func (n *network) snipAll() (stop func() string) {
	over := make(chan struct{})
	for _, s := range n.sites {
		n.cutting.Go(func() {
			if err := s.snip(over); err != nil {
				n.Error(err)
			}
		})
	}
	ended := sync.OnceFunc(func() {
		close(over)
		n.cutting.Wait()
	})
	n.Cleanup(ended)
	return func() string {
		ended()
		var cuts [kinds]int
		for _, s := range n.sites {
			for k, c := range s.cuts {
				cuts[k] += c
			}
		}
		var told []string
		for k, c := range cuts {
			told = append(told, fmt.Sprintf("%v %d times", kind(k), c))
		}
		return strings.Join(told, ", ")
	}
}

// pause tells whether it was not over before the time had come.
func pause(length time.Duration, over <-chan struct{}) bool {
	timer := time.NewTimer(length)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-over:
		return false
	}
}
