//go:build linux

// Package lab builds small networks inside the running process: hosts and routers are network namespaces, and the
// links between them can delay, lose, duplicate and reorder packets. It is for tests and for the demo program; it
// needs root, or a kernel that lets everybody make user namespaces, and nothing else: no netem, no ip(8), no files.
//
// Call Enter first in main or TestMain, then New; make nodes with Host and Router, join them with Link (impaired) and
// Wire (plain), and call Route once all of them exist. Node.Do opens sockets on a node, Node.Start runs programs
// there. Namespaces are held by file descriptors only, so that all of it is gone when the process ends, however it ends.
//
// Nothing that a lab sends can leave it: no namespace of a lab has an interface that leads out of the lab.
package lab

import (
	"errors"
	"fmt"
	"os/exec"
	"sync"
	"time"
)

// A Lab is a set of nodes and the links between them. Its methods, and those of its nodes and links, may be called from
// several goroutines at once.
type Lab struct {
	// Seed is where the random numbers of links made from now on start, so that a run can be repeated: every
	// direction of every link has its own stream, drawn from Seed and the order in which the links were made. New
	// sets it to 1. Change it before the first Link.
	Seed uint64
	// Still has the relays of links made from now on wait behind the Go runtime's back. Its monitor sets timers some
	// thousand times a second while threads come and go, and on a virtual machine each takes a core for as much as 20 µs,
	// in the middle of what somebody measures. A relay that waits so keeps one of the runtime's processors: do not make more than one link.
	Still bool

	mu       sync.RWMutex
	closed   bool
	nodes    []*Node
	links    []*Link
	relays   *space          // Where the relays sit; made with the first relayed link.
	commands []*exec.Cmd     // Everything that Node.Start started.
	forks    chan func()     // To the thread that starts processes; made with the first one.
	forker   <-chan struct{} // Closed when that thread has ended.
}

var errClosed = errors.New("the lab is closed")

// New returns a lab without nodes. It fails if the process may not make network namespaces; Enter takes care of that.
func New() (*Lab, error) {
	if err := mayMakeSpaces(); err != nil {
		return nil, fmt.Errorf("lab: making a network namespace: %w (was Enter called?)", err)
	}
	return &Lab{Seed: 1}, nil
}

// Host adds a leaf: a node that never forwards. Its loopback interface is up. Names are unique within a lab.
func (l *Lab) Host(name string) (*Node, error) { return l.add(name, false) }

// Router adds a node that forwards IPv4 and IPv6, decrements hop counts and answers with ICMP errors, without the rate
// limit that Linux puts on these by default. Names are unique within a lab.
func (l *Lab) Router(name string) (*Node, error) { return l.add(name, true) }

func (l *Lab) add(name string, forwards bool) (*Node, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, fmt.Errorf("lab: adding node %q: %w", name, errClosed)
	}
	for _, n := range l.nodes {
		if n.name == name {
			return nil, fmt.Errorf("lab: adding node %q: there is one of that name", name)
		}
	}
	settings := nodeSettings
	if forwards {
		settings = append(settings[:len(settings):len(settings)], routerSettings...)
	}
	s, err := newSpace(settings)
	if err != nil {
		return nil, fmt.Errorf("lab: adding node %q: %w", name, err)
	}
	n := &Node{lab: l, name: name, forwards: forwards, space: s}
	l.nodes = append(l.nodes, n)
	return n, nil
}

// Close kills every process that still runs on a node and waits for it, stops the relays and gives the namespaces up.
// The kernel removes a namespace when the last socket opened in it is closed, so close those too. A command that was
// started with Node.Start and is not being waited for is reaped, and its Wait then returns an error. Close may be called
// more than once; only the first call does anything. Its error tells of a relay that failed and of processes that would
// not die within some seconds.
func (l *Lab) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	var errs []error
	if err := l.stopProcesses(5 * time.Second); err != nil {
		errs = append(errs, err)
	}
	if l.forks != nil {
		close(l.forks)
		<-l.forker
	}
	if err := l.stopRelays(); err != nil {
		errs = append(errs, err)
	}
	for _, n := range l.nodes {
		n.space.close()
	}
	if l.relays != nil {
		reserveProcessors(-1)
		l.relays.close()
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("lab: closing: %w", err)
	}
	return nil
}
