// Package plan decides which agent probes what. It is pure: the same time,
// measurements and agents give the same timetables, in every process.
//
// Begin with Make, and take each agent's Table from the Plan.
package plan

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/synmesh/synmesh/controller/fleet"
	"github.com/synmesh/synmesh/internal/convert"
	"github.com/synmesh/synmesh/internal/measurement"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// expiry is how long agents go on without hearing of the controller.
const expiry = 15 * time.Minute

// maxPhase is over how long agents spread their beginning, at the most.
const maxPhase = time.Minute

// Plan is who probes what.
type Plan struct {
	agents      []fleet.Agent
	assignments []*assignment
}

// Make plans. Measurements and agents have to be in the order of their names,
// each name once.
//
// An agent spends no more than a measurement's budget on it, and no more than
// totalBudget in all, and its timetable fits into a message; no target is probed
// by more agents than make up twice the budget. An agent that joins or leaves
// changes no pairs but its own and, for each of these, one that had to yield or
// can come back. See destinations.choose.
func Make(now time.Time, measurements []*measurement.Checked, agents []fleet.Agent) *Plan {
	p := &Plan{agents: agents}
	taken := make([]spent, len(agents))
	for _, m := range measurements {
		if !m.Expired(now) {
			p.assignments = append(p.assignments, assign(m, agents, taken))
		}
	}
	return p
}

// Tables returns the timetables of the agents that are connected, in the order
// of their names.
func (p *Plan) Tables() []Table {
	var tables []Table
	for i, a := range p.agents {
		if a.State == fleet.Connected {
			tables = append(tables, p.table(i))
		}
	}
	return tables
}

// Table returns the timetable of one agent, connected or not; false if it is unknown.
func (p *Plan) Table(agent string) (Table, bool) {
	for i, a := range p.agents {
		if a.Name == agent {
			return p.table(i), true
		}
	}
	return Table{}, false
}

func (p *Plan) table(i int) Table {
	var digest hash
	for _, a := range p.assignments {
		if len(a.chosen[i]) == 0 {
			continue
		}
		digest = digest.with(a.digest)
		for _, target := range a.targets(i) {
			digest = digest.with(a.destinations.digests[target])
		}
	}
	return Table{Agent: p.agents[i].Name, Digest: uint64(digest), plan: p, index: i}
}

// Table is the timetable of one agent. Most of them are as they were in the
// plan before, so the message is made only where it is asked for.
type Table struct {
	Agent string
	// Digest is another for every other timetable of the agent.
	Digest uint64

	plan  *Plan
	index int
}

// Message returns the timetable, but for its version. It shares its targets
// with other messages: do not change them.
func (t Table) Message() *synmeshv1.Timetable {
	m := &synmeshv1.Timetable{Expiry: durationpb.New(expiry)}
	for _, a := range t.plan.assignments {
		if len(a.chosen[t.index]) == 0 {
			continue
		}
		spec := a.Spec
		spec.Targets = nil
		spec.Phase = time.Duration(hashOf(a.Source(), t.Agent).fraction() * float64(min(spec.Interval, maxPhase)))
		e := &synmeshv1.TimetableEntry{Source: a.Source(), Spec: convert.FromSpec(&spec)}
		for _, target := range a.targets(t.index) {
			e.Spec.Targets = append(e.Spec.Targets, a.destinations.targets[target])
		}
		m.Entries = append(m.Entries, e)
	}
	return m
}

// targets returns what an agent probes, in the order of groups and names.
func (a *assignment) targets(agent int) []int32 {
	ts := make([]int32, len(a.chosen[agent]))
	for i, c := range a.chosen[agent] {
		ts[i] = c.target
	}
	slices.Sort(ts)
	return ts
}

// digestOf returns another hash for every other measurement.
func digestOf(m *measurement.Checked) hash {
	spec := m.Spec
	spec.Targets = nil
	return hashOf(m.Source(), fmt.Sprintf("%+v", spec))
}
