// Package fleets serves FleetService: who is there.
package fleets

import (
	"context"
	"slices"
	"sort"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/synmesh/synmesh/controller/api/fault"
	"github.com/synmesh/synmesh/controller/fleet"
	"github.com/synmesh/synmesh/internal/selector"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

const usualPage = 1000

type service struct {
	synmeshv1.UnimplementedFleetServiceServer
	fleet *fleet.Fleet
}

// Register adds the service to a server.
func Register(r grpc.ServiceRegistrar, f *fleet.Fleet) {
	synmeshv1.RegisterFleetServiceServer(r, &service{fleet: f})
}

// ListAgents implements synmeshv1.FleetServiceServer. A page token is the name
// of the last agent of the page before.
func (s *service) ListAgents(_ context.Context, req *synmeshv1.ListAgentsRequest) (*synmeshv1.ListAgentsResponse, error) {
	match, err := selector.Parse(req.GetSelector())
	if err != nil {
		return nil, fault.Invalid("%w", err)
	}
	agents := s.fleet.Agents(match)
	from := sort.Search(len(agents), func(i int) bool { return agents[i].Name > req.GetPageToken() })
	agents = slices.Clip(agents[from:])
	size := int(req.GetPageSize())
	if size == 0 {
		size = usualPage
	}
	resp := &synmeshv1.ListAgentsResponse{}
	if len(agents) > size {
		agents = agents[:size]
		resp.NextPageToken = agents[size-1].Name
	}
	for _, a := range agents {
		resp.Agents = append(resp.Agents, message(a))
	}
	return resp, nil
}

func message(a fleet.Agent) *synmeshv1.Agent {
	m := &synmeshv1.Agent{
		Name: a.Name, Labels: a.Labels, Version: a.Version, State: synmeshv1.AgentState(a.State),
		Responder: a.Responder, Stamping: a.Stamping,
		Produced: a.Produced, Dropped: a.Dropped, Drops: a.Drops, Backlog: a.Backlog, Refused: a.Refused,
	}
	if a.ClockKnown {
		m.ClockOffset, m.ClockError = durationpb.New(a.ClockOffset), durationpb.New(a.ClockError)
	}
	if a.State != fleet.Gossiped {
		m.LastSeenTime = timestamppb.New(a.LastSeen)
	}
	if !a.Connect.IsZero() { // of a session with a controller before this one, nobody knows
		m.ConnectTime = timestamppb.New(a.Connect)
	}
	return m
}
