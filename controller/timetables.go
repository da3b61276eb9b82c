package controller

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/synmesh/synmesh/controller/catalogue"
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

// rest is how many times as long as planning took nothing is planned after it,
// so that a large fleet that is restless costs a fifth of a processor.
const rest = 4

// timetables keeps every agent's timetable what the plan says.
type timetables struct {
	fleet     *fleet.Fleet
	catalogue *catalogue.Catalogue
	log       *slog.Logger
	plan      atomic.Pointer[plan.Plan]
	version   uint64
	sent      map[string]sentTable
	warned    string
}

// sentTable says which timetable a session was told last.
type sentTable struct {
	session uint64
	digest  uint64
}

func newTimetables(f *fleet.Fleet, c *catalogue.Catalogue, log *slog.Logger) *timetables {
	t := &timetables{fleet: f, catalogue: c, log: log, sent: make(map[string]sentTable)}
	t.plan.Store(&plan.Plan{})
	return t
}

// Plan returns the plan as it is carried out. It follows a change within a
// second or so.
func (t *timetables) Plan() *plan.Plan { return t.plan.Load() }

func (t *timetables) run(ctx context.Context) error {
	// Versions go on rising over restarts of the controller.
	t.version = uint64(time.Now().UnixNano())
	for {
		fleetChanged, catalogueChanged := t.fleet.Changed(), t.catalogue.Changed()
		began := time.Now()
		next := t.tell(began)
		took := time.Since(began)
		again := time.NewTimer(next)
		select {
		case <-fleetChanged:
		case <-catalogueChanged:
		case <-again.C:
		case <-ctx.Done():
		}
		again.Stop()
		gather := time.NewTimer(max(settle, rest*took))
		select {
		case <-gather.C:
		case <-ctx.Done():
			gather.Stop()
			return nil
		}
	}
}

// tell plans, sends their timetables to the agents that do not have them, and
// returns how long that holds if nothing changes.
func (t *timetables) tell(now time.Time) time.Duration {
	ms, err := t.catalogue.Checked()
	t.warn(err)
	planned := plan.Make(now, ms, t.fleet.Agents(selector.Selector{}))
	t.plan.Store(planned)
	tables := planned.Tables()
	there := make(map[string]bool, len(tables))
	for _, table := range tables {
		there[table.Agent] = true
		t.send(table)
	}
	for name := range t.sent {
		if !there[name] {
			delete(t.sent, name)
		}
	}
	next := refresh
	for _, m := range ms {
		if !m.Expire.IsZero() && !m.Expired(now) {
			next = min(next, m.Expire.Sub(now))
		}
	}
	return next
}

func (t *timetables) send(table plan.Table) {
	session := t.fleet.Session(table.Agent)
	if session == nil {
		return
	}
	now := sentTable{session.ID, table.Digest}
	if t.sent[table.Agent] == now {
		return
	}
	t.sent[table.Agent] = now
	t.version++
	message := table.Message()
	message.Version = t.version
	session.Send(&synmeshv1.SessionResponse{Message: &synmeshv1.SessionResponse_Timetable{Timetable: message}})
}

// warn says what is wrong with the catalogue, once.
func (t *timetables) warn(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != t.warned && err != nil {
		t.log.Error("some measurements are not planned", "reason", err)
	}
	t.warned = text
}
