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

// network is two hosts and a wire between them. The target host has, besides
// its own address, 10.128.0.0/14 to itself.
type network struct {
	lab      *lab.Lab
	from, to *lab.Node
	mac      net.HardwareAddr // of the target host
	listener net.Listener
	served   chan struct{} // closed when nobody accepts any more
}

func build(targets int) (n *network, err error) {
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
	if _, err = n.lab.Wire(n.from, n.to); err != nil {
		return n, err
	}
	if err = n.lab.Route(); err != nil {
		return n, err
	}
	many := &net.IPNet{IP: firstTarget.AsSlice(), Mask: net.CIDRMask(14, 32)}
	err = n.from.Do(func() error {
		return netlink.RouteAdd(&netlink.Route{Dst: many, Gw: n.to.Addr4().AsSlice()})
	})
	if err != nil {
		return n, fmt.Errorf("route to the targets: %w", err)
	}
	return n, n.to.Do(func() error { return n.serve(many) })
}

// serve has the calling thread's host be all of the addresses, and listen there.
func (n *network) serve(many *net.IPNet) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	local := &netlink.Route{Dst: many, LinkIndex: lo.Attrs().Index, Type: unix.RTN_LOCAL, Scope: unix.RT_SCOPE_HOST, Table: unix.RT_TABLE_LOCAL}
	if err := netlink.RouteAdd(local); err != nil {
		return fmt.Errorf("be %v: %w", many, err)
	}
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
