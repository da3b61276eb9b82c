//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/synmesh/synmesh/probe/engine"
)

// method is a way to time handshakes with the target host.
type method struct {
	name   string
	probes int
	beside bool // whether it is compared with a capture on its own host
	time   func(context.Context) ([]timed, error)
}

// errorOf is how far the reports of a method were from the wire.
type errorOf struct {
	compared      int
	p50, p99, max time.Duration
}

func (b *suite) methods(n *network) []method {
	const (
		every = 2 * time.Millisecond
		flows = 100 // so that a target has heard the end of one handshake before the next of the same ports, even if the relay is late
	)
	ms := []method{
		{"Synmesh, quiet", b.probes, false, timedBy(n, "engine", engine.Quiet, flows, b.probes, every)},
		{"Synmesh, tap, captured on its own host", b.probes, true, timedBy(n, "engine", engine.Tap, flows, b.probes, every)},
		{"Synmesh, tap, captured at the far end", b.probes, false, timedBy(n, "engine", engine.Tap, flows, b.probes, every)},
		{"Synmesh, mode connect", b.probes, false, timedBy(n, "connect", engine.Quiet, 1, b.probes, every)},
		{"Go net.Dial, timed", b.peerProbes, false, timedBy(n, "dial", engine.Quiet, 1, b.peerProbes, 10*time.Millisecond)},
	}
	for _, t := range timers {
		if peer, ok := b.peers.installed[t.program]; ok {
			ms = append(ms, method{peer.String(), t.probes(b.peerProbes), false, func(ctx context.Context) ([]timed, error) {
				return t.time(ctx, n, t.probes(b.peerProbes))
			}})
		}
	}
	return ms
}

// timedBy has a child probe the target host.
func timedBy(n *network, with string, s engine.Stamping, flows, count int, every time.Duration) func(context.Context) ([]timed, error) {
	return func(ctx context.Context) ([]timed, error) {
		f, _, err := child(ctx, n.from, job{
			With: with, Stamping: s, First: n.to.Addr4(), Targets: 1, Keep: true,
			Flows: flows, Count: count / flows, Interval: every * time.Duration(flows),
		})
		return f.Probes, err
	}
}

// accuracy measures the error of each method, with idle cores and with busy ones.
func (b *suite) accuracy(ctx context.Context, p *page) (err error) {
	n, err := buildRelayed()
	if err != nil {
		return fmt.Errorf("accuracy: %w", err)
	}
	defer func() { err = errors.Join(err, n.close()) }()
	p.timed = address(n.to)
	var rows []accuracyRow
	for _, m := range b.methods(n) {
		row, err := b.accuracyOf(ctx, n, m)
		if err == nil {
			rows = append(rows, row)
			continue
		}
		if err := p.fail(ctx, m.name, err); err != nil {
			return err
		}
	}
	p.accuracy(rows)
	return nil
}

func (b *suite) accuracyOf(ctx context.Context, n *network, m method) (accuracyRow, error) {
	row := accuracyRow{name: m.name}
	for i, busy := range []bool{false, true} {
		b.say("accuracy: %s, cores busy: %v", m.name, busy)
		var err error
		if row.off[i], err = b.against(ctx, n, m, busy); err != nil {
			return row, err
		}
	}
	return row, nil
}

// against compares what a method reports with the wire.
func (b *suite) against(ctx context.Context, n *network, m method, busy bool) (e errorOf, err error) {
	if err := b.calm(ctx); err != nil {
		return e, err
	}
	if busy {
		stop, err := n.keepBusy(2 * runtime.NumCPU())
		if err != nil {
			return e, err
		}
		defer stop()
	}
	at := n.far
	if m.beside {
		at = n.from
	}
	w, err := tapWire(at)
	if err != nil {
		return e, err
	}
	reported, failed := m.time(ctx)
	seen, err := w.handshakes()
	if failed != nil {
		return e, failed
	}
	if err != nil {
		return e, err
	}
	return compare(reported, seen)
}

// compare finds the handshake of each report.
func compare(reported []timed, seen []handshake) (e errorOf, err error) {
	bySeq, byPort := make(map[uint32]int), make(map[uint16][]int)
	for i, h := range seen {
		bySeq[h.seq] = i
		byPort[h.port] = append(byPort[h.port], i)
	}
	var off []time.Duration
	for turn, r := range reported {
		at, ok := turn, turn < len(seen)
		switch {
		case r.Seq != 0:
			at, ok = bySeq[r.Seq]
		case r.Port != 0:
			if of := byPort[r.Port]; len(of) > 0 {
				at, byPort[r.Port] = of[0], of[1:]
			} else {
				ok = false
			}
		}
		if ok && seen[at].seq != 0 {
			off = append(off, (r.RTT - seen[at].rtt).Abs())
		}
	}
	if len(off) == 0 {
		return e, fmt.Errorf("none of %d reports could be found among %d handshakes on the wire", len(reported), len(seen))
	}
	slices.Sort(off)
	last := len(off) - 1
	return errorOf{compared: len(off), p50: off[last/2], p99: off[last*99/100], max: off[last]}, nil
}
