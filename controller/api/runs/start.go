package runs

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/synmesh/synmesh/controller/fleet"
	"github.com/synmesh/synmesh/internal/convert"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

const (
	// telling is how long it takes to tell one more agent.
	telling = 150 * time.Microsecond
	// maxMargin is how long agents that are near wait for those that are far.
	maxMargin = 300 * time.Millisecond
)

// start tells the agents to begin. They do so together, as soon as the last of
// them can have heard of it.
func (r *run) start(agents []fleet.Agent) error {
	message := &synmeshv1.SessionResponse{Message: &synmeshv1.SessionResponse_StartRun{StartRun: &synmeshv1.StartRun{
		Run: r.name, Spec: convert.FromSpec(&r.spec), StartTime: timestamppb.New(time.Now().Add(margin(agents)))}}}
	for _, a := range agents {
		session := r.Fleet.Session(a.Name)
		if session == nil {
			if err := r.end(a.Name, 0, "disconnected before the run began"); err != nil {
				return err
			}
			continue
		}
		r.mu.Lock()
		r.waiting[a.Name] = &part{session: session}
		r.mu.Unlock()
		session.Send(message)
	}
	return nil
}

// margin is how long it takes until all agents have been told. An agent's clock
// error is half of a round trip to it. One that has told none yet begins when it hears of it.
func margin(agents []fleet.Agent) time.Duration {
	var delay time.Duration
	for _, a := range agents {
		if a.ClockKnown {
			delay = max(delay, a.ClockError)
		}
	}
	return min(delay+time.Duration(len(agents))*telling, maxMargin)
}
