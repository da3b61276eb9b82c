//go:build linux

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/probe/engine"
)

// steady measures what an engine needs that probes many targets once a second.
func (b *suite) steady(ctx context.Context, p *page) error {
	if err := b.calm(ctx); err != nil {
		return err
	}
	b.say("steady: %d targets, %d s", b.options.steady, b.seconds)
	f, _, err := child(ctx, b.network.from, job{
		With: "engine", Stamping: engine.Quiet, First: firstTarget, Targets: b.options.steady, Count: b.seconds, Interval: time.Second,
	})
	if err != nil {
		return fmt.Errorf("steady: %w", err)
	}
	p.steady(steadyRow{
		targets: b.options.steady, seconds: b.seconds, resident: f.Resident,
		cpu:    f.CPU.Seconds() / float64(b.seconds),
		probes: b.options.steady * b.seconds, open: f.Outcomes[probe.Open.String()],
	})
	return nil
}
