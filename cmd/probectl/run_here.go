package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sync/errgroup"

	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/probe/engine"
	"github.com/synmesh/synmesh/probe/rawsock"
)

// runHere measures from this host, in this process.
func (a *app) runHere(ctx context.Context, spec probe.Spec, r *runReport) error {
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	e, err := engine.New(engine.Config{})
	switch {
	case errors.Is(err, rawsock.ErrUnsupported):
		return errors.New("probing from this host works on Linux only; name a controller with --controller to have agents probe")
	case err != nil:
		return fmt.Errorf("cannot probe from this host: %w", err)
	}
	fmt.Fprintf(a.err, "no controller is known: probing from this host, %s\n", host)
	r.begin("", []string{host})
	g, running := errgroup.WithContext(ctx)
	running, stop := context.WithCancel(running)
	g.Go(func() error { return e.Run(running) })
	g.Go(func() error {
		defer stop()
		return e.Do(running, spec, func(res *probe.Result) {
			res.Agent = host
			r.add(res)
		})
	})
	return g.Wait()
}
