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
}

// Register adds the service to a server.
func Register(r grpc.ServiceRegistrar, c Config) {
	synmeshv1.RegisterRunServiceServer(r, &service{Config: c})
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
	stream  grpc.ServerStreamingServer[synmeshv1.RunResponse]
	name    string
	spec    probe.Spec
	waiting map[string]*part
}

// part is what one agent does of a run.
type part struct {
	session  *fleet.Session
	received uint64
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
	message := &synmeshv1.SessionResponse{Message: &synmeshv1.SessionResponse_StartRun{
		StartRun: &synmeshv1.StartRun{Run: r.name, Spec: convert.FromSpec(&r.spec)}}}
	for _, a := range agents {
		session := r.Fleet.Session(a.Name)
		if session == nil {
			if err := r.end(a.Name, 0, "disconnected before the run began"); err != nil {
				return err
			}
			continue
		}
		r.waiting[a.Name] = &part{session: session}
		session.Send(message)
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
			if err := r.event(e); err != nil {
				return err
			}
		case <-sub.Overflow():
			return fault.Exhausted("results come faster than they are read; those of %s can be listed with probectl get results --source %s", r.name, r.name)
		case <-late:
			return r.endAll(fmt.Sprintf("it did not finish within %v", r.within()))
		case <-r.stream.Context().Done():
			return context.Cause(r.stream.Context())
		}
	}
	return nil
}

// within is how long a run that ends by itself may take.
func (r *run) within() time.Duration {
	length := r.spec.Length()
	if length > math.MaxInt64-grace {
		return math.MaxInt64
	}
	return length + grace
}

func (r *run) event(e feed.Event) error {
	p := r.waiting[e.Agent]
	if p == nil {
		return nil
	}
	if e.Report == nil {
		if e.Session != p.session.ID {
			return nil // an older session's end
		}
		return r.end(e.Agent, 0, "it was lost: its session ended in the middle of the run")
	}
	if err := r.results(e, p); err != nil {
		return err
	}
	for _, end := range e.Report.GetRunEnds() {
		if end.GetRun() == r.name {
			return r.end(e.Agent, end.GetProduced()-min(p.received, end.GetProduced()), end.GetError())
		}
	}
	return nil
}

// maxResults are in one message, which stays far below its bound.
const maxResults = 1000

func (r *run) results(e feed.Event, p *part) error {
	ours := &synmeshv1.Report{}
	for _, b := range e.Report.GetBlocks() {
		if b.GetSource() == r.name {
			ours.Blocks = append(ours.Blocks, b)
		}
	}
	var batch []*synmeshv1.Result
	for row := range convert.Rows(e.Agent, ours) {
		batch = append(batch, convert.FromResult(row))
		p.received++
		if len(batch) == maxResults {
			if err := r.send(batch); err != nil {
				return err
			}
			batch = nil
		}
	}
	if len(batch) == 0 {
		return nil
	}
	return r.send(batch)
}

func (r *run) send(batch []*synmeshv1.Result) error {
	return r.stream.Send(&synmeshv1.RunResponse{Message: &synmeshv1.RunResponse_Results{
		Results: &synmeshv1.RunResults{Results: batch}}})
}

// end tells that an agent's part is over.
func (r *run) end(agent string, missing uint64, reason string) error {
	delete(r.waiting, agent)
	return r.stream.Send(&synmeshv1.RunResponse{Message: &synmeshv1.RunResponse_AgentEnded{
		AgentEnded: &synmeshv1.RunAgentEnded{Agent: agent, Missing: missing, Error: reason}}})
}

func (r *run) endAll(reason string) error {
	for _, agent := range slices.Sorted(maps.Keys(r.waiting)) {
		r.waiting[agent].session.Send(r.cancellation())
		if err := r.end(agent, 0, reason); err != nil {
			return err
		}
	}
	return nil
}

// cancel stops the agents that are still at it.
func (r *run) cancel() {
	for _, p := range r.waiting {
		p.session.Send(r.cancellation())
	}
}

func (r *run) cancellation() *synmeshv1.SessionResponse {
	return &synmeshv1.SessionResponse{Message: &synmeshv1.SessionResponse_CancelRun{CancelRun: &synmeshv1.CancelRun{Run: r.name}}}
}
