package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sync/errgroup"

	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/probe/connect"
	"github.com/synmesh/synmesh/probe/engine"
	"github.com/synmesh/synmesh/probe/rawsock"
)

// openEngine opens the engine that probes from this host.
func openEngine() (*engine.Engine, error) {
	e, err := engine.New(engine.Config{})
	switch {
	case errors.Is(err, rawsock.ErrUnsupported):
		return nil, errors.New("raw sockets work on Linux only; use --mode connect, or name a controller with --controller to have agents probe")
	case errors.Is(err, rawsock.ErrPermission):
		return nil, fmt.Errorf("cannot probe from this host: %w; or use --mode connect", err)
	case err != nil:
		return nil, fmt.Errorf("cannot probe from this host: %w", err)
	}
	return e, nil
}

// runHere measures from this host, in this process, and records the packets to
// a file if its path is given.
func (a *app) runHere(ctx context.Context, spec probe.Spec, pcap string, r *runReport) (err error) {
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	emit := func(res *probe.Result) {
		res.Agent = host
		r.add(res)
	}
	here := func() {
		fmt.Fprintf(a.err, "no controller is known: probing from this host, %s\n", host)
		r.begin("", []string{host})
	}
	if spec.Mode == probe.Connect {
		here()
		if spec.Timeout > connect.MaxWait {
			fmt.Fprintf(a.err, "mode connect waits %v for an answer, not %v: then the kernel would send the SYN again\n", connect.MaxWait, spec.Timeout)
		}
		return held(connect.New(connect.Config{}), os.Geteuid()).Do(ctx, spec, emit)
	}
	e, err := openEngine()
	if err != nil {
		return err
	}
	var rec *recording
	if pcap != "" {
		remotes := resolveTargets(ctx, &spec)
		if rec, err = openRecording(e, &spec, remotes, pcap, nil); err != nil {
			return errors.Join(err, e.Close())
		}
	}
	here()
	return errors.Join(measure(ctx, e, spec, rec, emit), rec.close(a))
}

// measure runs the engine, and what records it, for as long as the Spec takes.
func measure(ctx context.Context, e *engine.Engine, spec probe.Spec, rec *recording, emit func(*probe.Result)) error {
	g, running := errgroup.WithContext(ctx)
	running, stop := context.WithCancel(running)
	g.Go(func() error { return e.Run(running) })
	g.Go(func() error { return rec.run(running) })
	g.Go(func() error {
		defer stop()
		rec.begin()
		return held(e, os.Geteuid()).Do(running, spec, func(res *probe.Result) {
			emit(res)
			rec.result()
		})
	})
	return g.Wait()
}
