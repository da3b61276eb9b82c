package main

import (
	"context"
	"errors"
	"io"

	"github.com/synmesh/synmesh/internal/convert"
	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// runFleet has the agents measure that the selector names.
func (a *app) runFleet(ctx context.Context, spec probe.Spec, from string, r *runReport) error {
	conn, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx) // frees the stream
	defer cancel()
	request := &synmeshv1.RunRequest{Spec: convert.FromSpec(&spec), Selector: from}
	for i, t := range spec.Targets {
		if t.Host == "" { // an agent's name
			request.Spec.Targets[i].Address = ""
		}
	}
	stream, err := synmeshv1.NewRunServiceClient(conn).Run(ctx, request)
	if err != nil {
		return a.failed(ctx, err)
	}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return a.failed(ctx, err)
		}
		if s := m.GetStarted(); s != nil {
			r.begin(s.GetRun(), s.GetAgents())
		}
		for _, res := range m.GetResults().GetResults() {
			row, err := convert.ToResult(res)
			if err != nil {
				return err
			}
			r.add(&row)
		}
		if e := m.GetAgentEnded(); e != nil {
			r.ended(e)
		}
	}
}
