//go:build linux

package lab

import (
	"fmt"
	"net/netip"
	"os/exec"
	"runtime/debug"
	"syscall"
)

// A Node is a host or a router: a network namespace with its interfaces eth0, eth1 and so on, one for every link.
type Node struct {
	lab      *Lab
	name     string
	forwards bool
	space    *space
	ports    []*port
	next     map[*Node]*port // Where packets to another node leave; set by Lab.Route.
}

// Name returns the name that the node was given.
func (n *Node) Name() string { return n.name }

// Addr4 returns the node's primary IPv4 address, that of its first link, or the zero Addr if it has no link yet.
func (n *Node) Addr4() netip.Addr {
	if p := n.first(); p != nil {
		return p.prefix4.Addr()
	}
	return netip.Addr{}
}

// Addr6 returns the node's primary IPv6 address, that of its first link, or the zero Addr if it has no link yet.
func (n *Node) Addr6() netip.Addr {
	if p := n.first(); p != nil {
		return p.prefix6.Addr()
	}
	return netip.Addr{}
}

// Interface returns the name that the interface of the node's first link has inside the namespace, or the empty string
// if the node has no link yet.
func (n *Node) Interface() string {
	if p := n.first(); p != nil {
		return p.name
	}
	return ""
}

func (n *Node) first() *port {
	n.lab.mu.RLock()
	defer n.lab.mu.RUnlock()
	if len(n.ports) == 0 {
		return nil
	}
	return n.ports[0]
}

// Do runs fn on an OS thread inside the node's namespace and returns what fn returns. Sockets that fn opens belong to
// the node for ever and may be used from any goroutine afterwards. Every call has a thread of its own, so calls do not
// wait for each other and may be nested. Goroutines that fn starts are not inside the namespace; among what starts some
// is net.Dial with a host name, so dial literal addresses. A panic or runtime.Goexit in fn (such as that of t.FailNow)
// ends fn alone, and Do returns an error.
func (n *Node) Do(fn func() error) error {
	err := fmt.Errorf("lab: on %s: the function ended its goroutine", n.name)
	<-ownThread(func() {
		defer func() {
			if v := recover(); v != nil {
				err = fmt.Errorf("lab: on %s: panic: %v\n%s", n.name, v, debug.Stack())
			}
		}()
		if e := n.enter(); e != nil {
			err = fmt.Errorf("lab: on %s: %w", n.name, e)
			return
		}
		err = fn()
	})
	return err
}

func (n *Node) enter() error {
	n.lab.mu.RLock() // Close must not close the descriptor meanwhile.
	defer n.lab.mu.RUnlock()
	if n.lab.closed {
		return errClosed
	}
	return n.space.enter()
}

// Start starts cmd, which must not have been started, inside the node's namespace, in a process group of its own. The
// caller should call cmd.Wait, as after cmd.Start. Close kills the process if it still runs then, together with every
// process that it left on the node; if this process dies, the kernel kills cmd, but not the children of cmd.
func (n *Node) Start(cmd *exec.Cmd) error {
	l := n.lab
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return fmt.Errorf("lab: starting %s on %s: %w", cmd.Path, n.name, errClosed)
	}
	attr := &syscall.SysProcAttr{}
	if cmd.SysProcAttr != nil {
		*attr = *cmd.SysProcAttr
	}
	attr.Setpgid = true
	attr.Pdeathsig = syscall.SIGKILL
	cmd.SysProcAttr = attr
	if err := l.fork(n.space, cmd); err != nil {
		return fmt.Errorf("lab: starting %s on %s: %w", cmd.Path, n.name, err)
	}
	l.commands = append(l.commands, cmd)
	return nil
}

// fork starts cmd from the one thread of the lab that starts processes. A parent-death signal comes when the thread
// ends that forked, so that thread must live as long as the lab.
func (l *Lab) fork(s *space, cmd *exec.Cmd) error {
	if l.forks == nil {
		forks := make(chan func())
		l.forks = forks
		l.forker = ownThread(func() {
			for f := range forks {
				f()
			}
		})
	}
	result := make(chan error, 1)
	l.forks <- func() {
		if err := s.enter(); err != nil {
			result <- err
			return
		}
		result <- cmd.Start()
	}
	return <-result
}
