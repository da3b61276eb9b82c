//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/synmesh/synmesh/internal/lab"
	"github.com/synmesh/synmesh/probe/engine"
)

// sink is the UDP port of the target host where the bystander's datagrams end.
const sink = 9999

// hole is an address behind a device that swallows all datagrams.
var hole = netip.AddrFrom4([4]byte{192, 0, 2, 1})

// bystander measures what a program that sends small datagrams loses to an
// engine on its host that has nothing to do: once to a device that swallows
// them, as a network card does, and once to the other host, whose receiving is
// this kernel's work as well.
func (b *suite) bystander(ctx context.Context, p *page) (err error) {
	close, err := openSink(b.network.to)
	if err != nil {
		return err
	}
	defer close()
	destinations := []netip.Addr{b.network.to.Addr4()}
	var fill func() error
	err = b.network.from.Do(func() (err error) { fill, err = openHole(); return err })
	if err == nil {
		defer func() { err = errors.Join(err, fill()) }()
		destinations = []netip.Addr{hole, b.network.to.Addr4()}
	} else if err := p.fail(ctx, "a device that swallows datagrams", err); err != nil {
		return err
	}
	var rows []bystanderRow
	for _, to := range destinations {
		row, err := b.bystanderTo(ctx, to)
		if err != nil {
			return fmt.Errorf("bystander: %w", err)
		}
		rows = append(rows, row)
	}
	p.bystander(rows)
	return nil
}

func (b *suite) bystanderTo(ctx context.Context, to netip.Addr) (bystanderRow, error) {
	company := []func() (func() error, error){
		func() (func() error, error) { return func() error { return nil }, nil },
		func() (func() error, error) { return idle(b.network.from, engine.Quiet) },
		func() (func() error, error) { return idle(b.network.from, engine.Tap) },
	}
	b.say("bystander: %d rounds of sending to %v", b.slices, to)
	var rounds [][3]float64 // nanoseconds for each datagram, in each company
	for round := range b.slices {
		var took [3]float64
		for i := range company {
			with := (i + round) % len(company)
			if err := b.calm(ctx); err != nil {
				return bystanderRow{}, err
			}
			leave, err := company[with]()
			if err != nil {
				return bystanderRow{}, err
			}
			took[with], err = flood(b.network.from, to, b.slice)
			if err := errors.Join(err, leave(), ctx.Err()); err != nil {
				return bystanderRow{}, err
			}
		}
		rounds = append(rounds, took)
	}
	row := bystanderRow{to: to, alone: median(rounds, func(r [3]float64) float64 { return r[0] })}
	for i := range row.cost {
		row.cost[i] = median(rounds, func(r [3]float64) float64 { return r[i+1]/r[0] - 1 })
	}
	return row, nil
}

// openHole makes a device on the calling thread's host that nobody reads from:
// when its queue is full, datagrams end there at a price that is always the same.
func openHole() (close func() error, err error) {
	tun := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "hole"}, Mode: netlink.TUNTAP_MODE_TUN, NonPersist: true, Queues: 1, Flags: netlink.TUNTAP_NO_PI}
	if err := netlink.LinkAdd(tun); err != nil {
		return nil, fmt.Errorf("add a TUN device: %w", err)
	}
	close = tun.Fds[0].Close // which is the end of the device
	if err := netlink.LinkSetUp(tun); err != nil {
		return nil, errors.Join(err, close())
	}
	route := &netlink.Route{LinkIndex: tun.Index, Dst: &net.IPNet{IP: hole.AsSlice(), Mask: net.CIDRMask(32, 32)}}
	if err := netlink.RouteAdd(route); err != nil {
		return nil, errors.Join(err, close())
	}
	return close, nil
}

// idle opens an engine that sends nothing.
func idle(on *lab.Node, s engine.Stamping) (leave func() error, err error) {
	var e *engine.Engine
	err = on.Do(func() (err error) { e, err = engine.New(engine.Config{Stamping: s}); return err })
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- e.Run(ctx) }()
	return func() error { cancel(); return <-ran }, nil
}

// openSink opens a socket that nobody reads: when it is full, datagrams end there at a price that is always the same.
func openSink(on *lab.Node) (close func(), err error) {
	var fd int
	err = on.Do(func() (err error) {
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return os.NewSyscallError("socket", err)
		}
		return os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrInet4{Port: sink}))
	})
	return func() { _ = unix.Close(fd) }, err
}

// flood sends as fast as one thread can, and returns the processor time that
// the thread needed for each datagram, in nanoseconds: unlike the time that passed, that is not longer on a busy machine.
func flood(from *lab.Node, to netip.Addr, length time.Duration) (each float64, err error) {
	err = from.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		defer unix.Close(fd)
		dst, datagram := &unix.SockaddrInet4{Addr: to.As4(), Port: sink}, make([]byte, 32)
		start, sent := time.Now(), 0
		before, err := threadTime()
		if err != nil {
			return err
		}
		for time.Since(start) < length {
			for range 256 {
				if err := unix.Sendto(fd, datagram, 0, dst); err != nil {
					return os.NewSyscallError("sendto", err)
				}
			}
			sent += 256
		}
		after, err := threadTime()
		each = float64(after-before) / float64(sent)
		return err
	})
	return each, err
}

// median returns the middle one of a figure's values.
func median[T any](of []T, figure func(T) float64) float64 {
	vs := make([]float64, len(of))
	for i := range of {
		vs[i] = figure(of[i])
	}
	slices.Sort(vs)
	return vs[len(vs)/2]
}
