//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synmesh/synmesh/internal/lab"
	"github.com/synmesh/synmesh/probe/engine"
)

// sink is the UDP port of the target host where the bystander's datagrams end.
const sink = 9999

// bystander measures what a program that sends small datagrams loses to an
// engine on its host that has nothing to do.
func (b *suite) bystander(ctx context.Context, p *page) error {
	close, err := openSink(b.network.to)
	if err != nil {
		return err
	}
	defer close()
	company := []func() (func() error, error){
		func() (func() error, error) { return func() error { return nil }, nil },
		func() (func() error, error) { return idle(b.network.from, engine.Quiet) },
		func() (func() error, error) { return idle(b.network.from, engine.Tap) },
	}
	b.say("bystander: %d rounds", b.slices)
	var rounds [][3]float64 // nanoseconds for each datagram, in each company
	for round := range b.slices {
		var took [3]float64
		for i := range company {
			with := (i + round) % len(company)
			if err := b.calm(ctx); err != nil {
				return err
			}
			leave, err := company[with]()
			if err != nil {
				return err
			}
			took[with], err = flood(b.network.from, b.network.to, b.slice)
			if err := errors.Join(err, leave(), ctx.Err()); err != nil {
				return fmt.Errorf("bystander: %w", err)
			}
		}
		rounds = append(rounds, took)
	}
	row := bystanderRow{alone: median(rounds, func(r [3]float64) float64 { return r[0] })}
	for i := range row.cost {
		row.cost[i] = median(rounds, func(r [3]float64) float64 { return r[i+1]/r[0] - 1 })
	}
	p.bystander(row)
	return nil
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
func flood(from, to *lab.Node, length time.Duration) (each float64, err error) {
	err = from.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		defer unix.Close(fd)
		dst, datagram := &unix.SockaddrInet4{Addr: to.Addr4().As4(), Port: sink}, make([]byte, 32)
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
