//go:build linux

package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/probe/engine"
)

// sweep is one pass over all targets.
type sweep struct {
	rate    float64       // SYNs a second
	usual   float64       // the median of it, of several sweeps
	found   float64       // of 1
	process time.Duration // its processor time for each probe
	machine time.Duration // the same of all cores together
	told    string        // what it says of packets that it lost
}

// sweeper is a program that probes many targets once.
type sweeper struct {
	name  string
	sweep func(context.Context) (found int, told string, used *os.ProcessState, err error)
}

func (b *suite) sweepers() []sweeper {
	ss := []sweeper{
		{"Synmesh, quiet", b.engineSweep(engine.Quiet)},
		{"Synmesh, tap", b.engineSweep(engine.Tap)},
	}
	for _, s := range scanners {
		if peer, ok := b.peers.installed[s.program]; ok {
			ss = append(ss, sweeper{peer.String(), func(ctx context.Context) (int, string, *os.ProcessState, error) {
				return s.sweep(ctx, b.network, b.targets)
			}})
		}
	}
	return ss
}

func (b *suite) engineSweep(s engine.Stamping) func(context.Context) (int, string, *os.ProcessState, error) {
	return func(ctx context.Context) (int, string, *os.ProcessState, error) {
		f, used, err := child(ctx, b.network.from, job{
			With: "engine", Stamping: s, First: firstTarget, Targets: b.targets, Count: 1, Interval: probe.MinInterval, Profile: b.profile(s),
		})
		failed := 0
		for what, n := range f.Outcomes {
			if what != probe.Open.String() && what != probe.Timeout.String() {
				failed += n
			}
		}
		told := fmt.Sprintf("drops %d, timeouts %d, errors %d", f.Drops, f.Outcomes[probe.Timeout.String()], failed)
		return f.Outcomes[probe.Open.String()], told, used, err
	}
}

// rate has every sweeper sweep in turn, for some rounds, and takes the best of each figure: what else runs on a machine can only make one worse.
func (b *suite) rate(ctx context.Context, p *page) error {
	ss := b.sweepers()
	sweeps := make([][]sweep, len(ss))
	failed := make([]bool, len(ss))
	for round := range b.rounds {
		for i, s := range ss {
			if failed[i] {
				continue
			}
			b.say("rate: %s, round %d of %d", s.name, round+1, b.rounds)
			one, err := b.once(ctx, s)
			if err != nil {
				if err := p.fail(ctx, s.name, err); err != nil {
					return err
				}
				failed[i] = true
				continue
			}
			b.say("  %.0f/s, %.2f %%, %v of its own, %v of the machine; %s", one.rate, 100*one.found, one.process, one.machine, one.told)
			sweeps[i] = append(sweeps[i], one)
		}
	}
	var rows []rateRow
	for i, s := range ss {
		of := sweeps[i]
		if failed[i] {
			continue
		}
		rows = append(rows, rateRow{s.name, sweep{
			rate:    slices.MaxFunc(of, by(func(s sweep) float64 { return s.rate })).rate,
			usual:   median(of, func(s sweep) float64 { return s.rate }),
			found:   slices.MaxFunc(of, by(func(s sweep) float64 { return s.found })).found,
			process: slices.MinFunc(of, by(func(s sweep) time.Duration { return s.process })).process,
			machine: slices.MinFunc(of, by(func(s sweep) time.Duration { return s.machine })).machine,
			told:    of[len(of)-1].told,
		}})
	}
	p.rate(rows)
	return nil
}

// once has a sweeper sweep, while the packets that arrive are counted at the target host.
func (b *suite) once(ctx context.Context, s sweeper) (r sweep, err error) {
	if err := b.calm(ctx); err != nil {
		return r, err
	}
	m, err := startMeter(b.network.to)
	if err != nil {
		return r, err
	}
	before, err := machineTime()
	found, told, used, failed := s.sweep(ctx)
	after, err2 := machineTime()
	span, err3 := m.stop()
	for _, err := range []error{failed, err, err2, err3} {
		if err != nil {
			return r, err
		}
	}
	n := float64(b.targets)
	return sweep{
		rate: n * meterShare / span.Seconds(), found: float64(found) / n, told: told,
		process: (used.UserTime() + used.SystemTime()) / time.Duration(b.targets),
		machine: (after - before) / time.Duration(b.targets),
	}, nil
}

// profile names the file for an engine's profile, if one is wanted.
func (b *suite) profile(s engine.Stamping) string {
	if b.profiles == "" {
		return ""
	}
	return filepath.Join(b.profiles, "engine-"+s.String()+".pprof")
}

// by orders by a figure.
func by[T any, F cmp.Ordered](figure func(T) F) func(a, b T) int {
	return func(a, b T) int { return cmp.Compare(figure(a), figure(b)) }
}
