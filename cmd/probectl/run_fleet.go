package main

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/synmesh/synmesh/internal/convert"
	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// The controller ends a run within a second of losing its client. So it has to be
// heard often, also where a packet of it or two must be sent again.
const (
	attendEvery  = 200 * time.Millisecond
	attendWithin = 800 * time.Millisecond
)

// runFleet has the agents measure that the selector names.
func (a *app) runFleet(ctx context.Context, spec probe.Spec, from string, r *runReport) error {
	conn, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	var attending sync.WaitGroup
	defer attending.Wait()
	ctx, cancel := context.WithCancel(ctx) // frees the streams
	defer cancel()
	request := &synmeshv1.RunRequest{Spec: convert.FromSpec(&spec), Selector: from, AttendWithin: durationpb.New(attendWithin)}
	for i, t := range spec.Targets {
		if t.Host == "" { // an agent's name
			request.Spec.Targets[i].Address = ""
		}
	}
	client := synmeshv1.NewRunServiceClient(conn)
	stream, err := client.Run(ctx, request)
	if err != nil {
		return a.failed(ctx, err)
	}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if status.Code(err) == codes.Aborted {
			return &exit{exitController, a.failed(ctx, err)}
		}
		if err != nil {
			return a.failed(ctx, err)
		}
		if s := m.GetStarted(); s != nil {
			r.begin(s.GetRun(), s.GetAgents())
			attending.Go(func() { attend(ctx, client, s.GetRun()) })
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

// attend tells the controller again and again that somebody waits for the run. If
// that fails, Run says why.
func attend(ctx context.Context, client synmeshv1.RunServiceClient, run string) {
	stream, err := client.Attend(ctx)
	if err != nil {
		return
	}
	tick := time.NewTicker(attendEvery)
	defer tick.Stop()
	for stream.Send(&synmeshv1.AttendRequest{Run: run}) == nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
