//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/probe/engine"
)

// steady measures what an agent needs that probes many targets once a second,
// and what its engine alone does. A relay is on the way: over a virtual wire alone, a
// process is charged for all that the other host's kernel does with its packets.
func (b *suite) steady(ctx context.Context, p *page) (err error) {
	n, err := buildRelayed()
	if err != nil {
		return fmt.Errorf("steady: %w", err)
	}
	defer func() { err = errors.Join(err, n.close()) }()
	if err := b.calm(ctx); err != nil {
		return err
	}
	b.say("steady: an engine, %d targets, %d s", b.options.steady, b.seconds)
	f, _, err := child(ctx, n.from, job{
		With: "engine", Stamping: engine.Quiet, First: firstTarget, Targets: b.options.steady, Count: b.seconds, Interval: time.Second,
		Cores: 1, // as probe-agent
	})
	if err != nil {
		return fmt.Errorf("steady: %w", err)
	}
	alone := steadyRow{
		what: "a process with nothing but an engine", resident: f.Resident, cpu: f.CPU.Seconds() / float64(b.seconds),
		probes: b.options.steady * b.seconds, open: f.Outcomes[probe.Open.String()],
	}
	rows := []steadyRow{alone}
	if b.bin != "" {
		whole, err := b.steadyAgent(ctx, n)
		if err != nil {
			return fmt.Errorf("steady: %w", err)
		}
		rows = append(rows, whole)
	}
	p.steady(rows)
	return nil
}

// steadyAgent measures probe-agent itself, whose results a controller stores.
func (b *suite) steadyAgent(ctx context.Context, n *network) (row steadyRow, err error) {
	f, err := startFleet(ctx, n, b.bin, b.options.steady)
	if err != nil {
		return row, err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	if err := b.calm(ctx); err != nil {
		return row, err
	}
	b.say("steady: an agent, %d targets, %d s", b.options.steady, b.seconds)
	measured := time.Duration(b.seconds) * time.Second
	var cpu [2]time.Duration
	for i, wait := range []time.Duration{warmUp, measured} {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return row, context.Cause(ctx)
		}
		if cpu[i], row.resident, err = f.usage(); err != nil {
			return row, err
		}
	}
	row.what, row.cpu = "probe-agent, enrolled, reporting", (cpu[1]-cpu[0]).Seconds()/measured.Seconds()
	if row.open, row.probes, err = f.stored(ctx, measured/2); err == nil && row.probes == 0 {
		err = fmt.Errorf("the controller has stored nothing; the agent says: %s", f.agent.log.String())
	}
	return row, err
}
