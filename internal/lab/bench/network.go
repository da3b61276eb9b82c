//go:build linux

package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/synmesh/synmesh/internal/lab"
)

// port is what listens on every address of the target host.
const port = 443

// firstTarget is the first of the target host's many addresses.
var firstTarget = netip.AddrFrom4([4]byte{10, 128, 0, 0})

// network is two hosts and a way between them, whose first part is a wire.
type network struct {
	lab      *lab.Lab
	from, to *lab.Node
	far      *lab.Node        // the other end of the wire
	mac      net.HardwareAddr // of the target host
	listener net.Listener
	served   chan struct{} // closed when nobody accepts any more
}

// build joins the hosts by the wire. The target host has, besides its own address,
// 10.128.0.0/14 to itself.
func build(targets int) (*network, error) {
	return join(func(n *network) error {
		n.far = n.to
		_, err := n.lab.Wire(n.from, n.to)
		return err
	})
}

// buildRelayed puts a router behind the wire, and a relay between it and the target
// host. What a kernel's own TCP sends keeps the time at which it was to leave as far as virtual wires go,
// and gets its stamp at a packet socket then: a relay takes that off.
func buildRelayed() (*network, error) {
	return join(func(n *network) (err error) {
		n.lab.Still = true
		if n.far, err = n.lab.Router("router"); err != nil {
			return err
		}
		if _, err = n.lab.Wire(n.from, n.far); err != nil {
			return err
		}
		_, err = n.lab.Link(n.far, n.to, lab.Impairment{})
		return err
	})
}

// join makes two hosts, joins them by the way, and has the target host listen when
// the routes are complete.
func join(way func(*network) error) (n *network, err error) {
	n = &network{served: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.close())
		}
	}()
	if n.lab, err = lab.New(); err != nil {
		return n, err
	}
	if n.from, err = n.lab.Host("from"); err != nil {
		return n, err
	}
	if n.to, err = n.lab.Host("to"); err != nil {
		return n, err
	}
	if err = way(n); err != nil {
		return n, err
	}
	if err = n.lab.Route(); err != nil {
		return n, err
	}
	if err = n.addTargets(); err != nil {
		return n, fmt.Errorf("route to the targets: %w", err)
	}
	return n, n.to.Do(n.serve)
}

// addTargets has the target host's many addresses be reached by the way to its own.
func (n *network) addTargets() error {
	many := &net.IPNet{IP: firstTarget.AsSlice(), Mask: net.CIDRMask(14, 32)}
	to := net.IP(n.to.Addr4().AsSlice())
	hops := []*lab.Node{n.from}
	if n.far != n.to {
		hops = append(hops, n.far)
	}
	for _, hop := range hops {
		err := hop.Do(func() error {
			way, err := netlink.RouteGet(to)
			if err != nil {
				return err
			}
			gateway := way[0].Gw
			if gateway == nil {
				gateway = to
			}
			return netlink.RouteAdd(&netlink.Route{Dst: many, Gw: gateway})
		})
		if err != nil {
			return err
		}
	}
	return n.to.Do(func() error { return own(many) })
}

// own has the calling thread's host be all of the addresses.
func own(many *net.IPNet) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.RouteAdd(&netlink.Route{Dst: many, LinkIndex: lo.Attrs().Index, Type: unix.RTN_LOCAL, Scope: unix.RT_SCOPE_HOST, Table: unix.RT_TABLE_LOCAL})
}

// serve has the calling thread's host listen on all of its addresses.
func (n *network) serve() error {
	link, err := netlink.LinkByName(n.to.Interface())
	if err != nil {
		return err
	}
	n.mac = link.Attrs().HardwareAddr
	for _, name := range []string{"net/core/somaxconn", "net/ipv4/tcp_max_syn_backlog"} {
		if err := os.WriteFile("/proc/sys/"+name, []byte("65535"), 0); err != nil {
			return err
		}
	}
	if n.listener, err = net.Listen("tcp4", fmt.Sprintf("0.0.0.0:%d", port)); err != nil {
		return err
	}
	go n.accept()
	raw, err := n.listener.(*net.TCPListener).SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = unix.Listen(int(fd), 65535) }) // a longer backlog
	return errors.Join(err, failed)
}

func (n *network) accept() {
	defer close(n.served)
	for {
		c, err := n.listener.Accept()
		if err != nil {
			return
		}
		_ = c.Close() // a peer may have reset it
	}
}

func (n *network) close() error {
	var errs []error
	if n.listener != nil {
		errs = append(errs, n.listener.Close())
		<-n.served
	}
	if n.lab != nil {
		errs = append(errs, n.lab.Close())
	}
	return errors.Join(errs...)
}

// keepBusy runs twice as many busy loops as there are cores, until it is told to stop.
func (n *network) keepBusy(loops int) (stop func(), err error) {
	var running []*exec.Cmd
	stop = func() {
		for _, c := range running {
			_ = c.Process.Kill() // that is how they end
			_ = c.Wait()
		}
	}
	for range loops {
		c := exec.Command("sh", "-c", "while :; do :; done")
		if err := n.to.Start(c); err != nil {
			stop()
			return nil, err
		}
		running = append(running, c)
	}
	return stop, nil
}
