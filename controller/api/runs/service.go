// Package runs serves RunService: measuring on demand.
package runs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/synmesh/synmesh/controller/api/fault"
	"github.com/synmesh/synmesh/controller/feed"
	"github.com/synmesh/synmesh/controller/fleet"
	"github.com/synmesh/synmesh/internal/convert"
	"github.com/synmesh/synmesh/internal/selector"
	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// grace is how much longer than it should take a run may take an agent.
const grace = 15 * time.Second

// Config has no optional fields.
type Config struct {
	Fleet  *fleet.Fleet
	Feed   *feed.Feed
	Logger *slog.Logger
}

type service struct {
	synmeshv1.UnimplementedRunServiceServer
	Config
	mu       sync.Mutex
	attended map[string]*attendance // by run
}

// Register adds the service to a server.
func Register(r grpc.ServiceRegistrar, c Config) {
	synmeshv1.RegisterRunServiceServer(r, &service{Config: c, attended: make(map[string]*attendance)})
}

// Run implements synmeshv1.RunServiceServer.
func (s *service) Run(req *synmeshv1.RunRequest, st grpc.ServerStreamingServer[synmeshv1.RunResponse]) error {
	match, err := selector.Parse(req.GetSelector())
	if err != nil {
		return fault.Invalid("%w", err)
	}
	spec, err := s.spec(req.GetSpec())
	if err != nil {
		return err
	}
	agents, err := s.sources(match)
	if err != nil {
		return err
	}
	r := &run{
		service: s, stream: st, name: "runs/" + strings.ToLower(rand.Text()[:13]), spec: spec,
		waiting: make(map[string]*part),
	}
	r.attendance = s.attend(r.name, req.GetAttendWithin().AsDuration(), r.cancel)
	defer s.leave(r.name)
	return r.do(agents)
}

// spec finds the targets that are names of agents, and checks the whole.
func (s *service) spec(m *synmeshv1.ProbeSpec) (probe.Spec, error) {
	var agents map[string]fleet.Agent
	for _, t := range m.GetTargets() {
		if t.GetAddress() != "" {
			continue
		}
		_, err := probe.ParseTargets(t.GetName())
		if !errors.Is(err, probe.ErrNoPort) {
			continue // it says itself where it is, or what is wrong with it
		}
		if agents == nil {
			agents = s.agents()
		}
		a, ok := agents[t.GetName()]
		switch {
		case !ok:
			return probe.Spec{}, fault.Invalid("%w; nor is it an agent of this fleet: see probectl get agents", err)
		case a.Responder == "":
			return probe.Spec{}, fault.Precondition("agent %q has no responder and cannot be probed; start it with one, or write a host and port", a.Name)
		}
		t.Address = a.Responder
	}
	spec, err := convert.ToSpec(m)
	if err == nil {
		err = spec.Validate()
	}
	if err != nil {
		return spec, fault.Invalid("%w", err)
	}
	return spec, nil
}

// agents returns all agents, by name.
func (s *service) agents() map[string]fleet.Agent {
	known := make(map[string]fleet.Agent)
	for _, a := range s.Fleet.Agents(selector.Selector{}) {
		known[a.Name] = a
	}
	return known
}

// sources returns the connected agents that match.
func (s *service) sources(match selector.Selector) ([]fleet.Agent, error) {
	known := s.Fleet.Agents(match)
	agents := slices.DeleteFunc(slices.Clone(known), func(a fleet.Agent) bool { return a.State != fleet.Connected })
	switch {
	case len(agents) > 0:
		return agents, nil
	case len(known) > 0:
		return nil, fault.Precondition("none of the %d agents that match %q is connected; see probectl get agents", len(known), match)
	case match.String() == "":
		return nil, fault.Precondition("no agent is connected; start one with probe-agent, and see probectl get agents")
	}
	return nil, fault.Precondition("no agent matches %q; see probectl get agents for names and labels", match)
}

// run is one run under way.
type run struct {
	*service
	stream     grpc.ServerStreamingServer[synmeshv1.RunResponse]
	name       string
	spec       probe.Spec
	attendance *attendance

	mu      sync.Mutex // for cancel; all else is done by one goroutine
	waiting map[string]*part
}

// part is what one agent does of a run.
type part struct {
	session   *fleet.Session
	stored    uint64          // results
	shown     map[uint64]bool // numbers of previews that were, and are not stored yet
	cancelled bool
}

func (r *run) do(agents []fleet.Agent) error {
	sub := r.Feed.Subscribe(r.name)
	defer sub.Close()
	started := &synmeshv1.RunStarted{Run: r.name}
	for _, a := range agents {
		started.Agents = append(started.Agents, a.Name)
	}
	if err := r.stream.Send(&synmeshv1.RunResponse{Message: &synmeshv1.RunResponse_Started{Started: started}}); err != nil {
		return err
	}
	r.Logger.Info("run", "run", r.name, "agents", len(agents), "targets", len(r.spec.Targets))
	defer r.cancel()
	if err := r.start(agents); err != nil {
		return err
	}
	return r.follow(sub)
}

// follow passes on what the agents report until all are done.
func (r *run) follow(sub *feed.Subscription) error {
	var late <-chan time.Time
	if r.spec.Count > 0 {
		t := time.NewTimer(r.within())
		defer t.Stop()
		late = t.C
	}
	for len(r.waiting) > 0 {
		select {
		case e := <-sub.Events():
			if err := r.events(pending(e, sub)); err != nil {
				return err
			}
		case <-sub.Overflow():
			return fault.Exhausted("results come faster than they are read; those of %s can be listed with probectl get results --source %s", r.name, r.name)
		case <-r.attendance.ended():
			return r.attendance.lost()
		case <-late:
			return r.endAll(fmt.Sprintf("it did not finish within %v", r.within()))
		case <-r.stream.Context().Done():
			return context.Cause(r.stream.Context())
		}
	}
	return r.attendance.lost()
}

// within is how long a run that ends by itself may take.
func (r *run) within() time.Duration {
	length := r.spec.Length()
	if length > math.MaxInt64-grace {
		return math.MaxInt64
	}
	return length + grace
}

// end tells that an agent's part is over.
func (r *run) end(agent string, missing uint64, reason string) error {
	r.mu.Lock()
	delete(r.waiting, agent)
	r.mu.Unlock()
	return r.stream.Send(&synmeshv1.RunResponse{Message: &synmeshv1.RunResponse_AgentEnded{
		AgentEnded: &synmeshv1.RunAgentEnded{Agent: agent, Missing: missing, Error: reason}}})
}

func (r *run) endAll(reason string) error {
	r.cancel()
	for _, agent := range slices.Sorted(maps.Keys(r.waiting)) {
		if err := r.end(agent, 0, reason); err != nil {
			return err
		}
	}
	return nil
}

// cancel stops the agents that are still at it. It never waits.
func (r *run) cancel() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.waiting {
		if !p.cancelled {
			p.cancelled = true
			p.session.Send(r.cancellation())
		}
	}
}

func (r *run) cancellation() *synmeshv1.SessionResponse {
	return &synmeshv1.SessionResponse{Message: &synmeshv1.SessionResponse_CancelRun{CancelRun: &synmeshv1.CancelRun{Run: r.name}}}
}
