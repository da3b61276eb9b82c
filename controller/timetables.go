package controller

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/synmesh/synmesh/controller/fleet"
	"github.com/synmesh/synmesh/controller/plan"
	"github.com/synmesh/synmesh/internal/selector"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// settle is how long changes of the fleet are gathered before it is planned
// anew: agents come and go in crowds.
const settle = 200 * time.Millisecond

// refresh is how often it is planned anew without a change: agents are
// forgotten without a word.
const refresh = time.Minute

// timetables keeps every agent's timetable what the plan says.
type timetables struct {
	fleet        *fleet.Fleet
	measurements []plan.Measurement
	version      uint64
	sent         map[string]sentTable
}

// sentTable is what a session was told last.
type sentTable struct {
	session uint64
	table   *synmeshv1.Timetable
}

func (t *timetables) run(ctx context.Context) error {
	t.sent = make(map[string]sentTable)
	// Versions go on rising over restarts of the controller.
	t.version = uint64(time.Now().UnixNano())
	tick := time.NewTicker(refresh)
	defer tick.Stop()
	for {
		changed := t.fleet.Changed()
		t.tell()
		select {
		case <-changed:
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		gather := time.NewTimer(settle)
		select {
		case <-gather.C:
		case <-ctx.Done():
		}
		gather.Stop()
	}
}

// tell sends their timetables to the agents that do not have them.
func (t *timetables) tell() {
	planned := plan.Plan(t.measurements, t.fleet.Agents(selector.Selector{}))
	for name, table := range planned {
		session := t.fleet.Session(name)
		if session == nil {
			continue
		}
		if last := t.sent[name]; last.session == session.ID && proto.Equal(last.table, table) {
			continue
		}
		t.sent[name] = sentTable{session.ID, table}
		t.version++
		versioned := proto.CloneOf(table)
		versioned.Version = t.version
		session.Send(&synmeshv1.SessionResponse{Message: &synmeshv1.SessionResponse_Timetable{Timetable: versioned}})
	}
	for name := range t.sent {
		if planned[name] == nil {
			delete(t.sent, name)
		}
	}
}
