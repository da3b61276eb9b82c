// Package plan decides which agent probes what. It is pure: the same
// measurements and agents give the same timetables, in the same order.
package plan

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/synmesh/synmesh/controller/fleet"
	"github.com/synmesh/synmesh/internal/convert"
	"github.com/synmesh/synmesh/internal/selector"
	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// expiry is how long agents go on without hearing of the controller.
const expiry = 15 * time.Minute

// Prefix starts the source of every measurement.
const Prefix = "measurements/"

// Measurement is a measurement that has been checked.
type Measurement struct {
	source  string // "measurements/{name}"
	sources selector.Selector
	probed  selector.Selector // of a mesh
	mesh    bool
	spec    probe.Spec // without targets, if it is a mesh
}

// Parse checks a measurement and fills in the defaults.
func Parse(m *synmeshv1.Measurement) (Measurement, error) {
	p := Measurement{source: Prefix + m.GetName(), mesh: m.GetMesh() != nil}
	if err := selector.CheckName(m.GetName()); err != nil {
		return p, fmt.Errorf("measurement: %w", err)
	}
	fail := func(err error) (Measurement, error) {
		return p, fmt.Errorf("measurement %q: %w", m.GetName(), err)
	}
	var err error
	if p.sources, err = selector.Parse(m.GetSources()); err != nil {
		return fail(err)
	}
	if p.probed, err = selector.Parse(m.GetMesh().GetSelector()); err != nil {
		return fail(err)
	}
	p.spec = probe.Spec{
		Interval: orElse(m.GetInterval(), probe.DefaultInterval), Timeout: orElse(m.GetTimeout(), probe.DefaultTimeout),
		Flows: int(m.GetFlows()), Family: convert.ToFamily(m.GetFamily()),
		Mode: convert.ToMode(m.GetMode()), Retries: int(m.GetRetries()),
	}
	if p.spec.Flows == 0 {
		p.spec.Flows = 1
	}
	for _, text := range m.GetTargets().GetTargets() {
		ts, err := probe.ParseTargets(text)
		if err != nil {
			return fail(err)
		}
		p.spec.Targets = append(p.spec.Targets, ts...)
	}
	check := p.spec
	if p.mesh { // whoever is probed, the rest is known
		check.Targets = []probe.Target{{Name: "agent", Host: "agent", Port: 1}}
	}
	if err := check.Validate(); err != nil {
		return fail(err)
	}
	return p, nil
}

func orElse(d *durationpb.Duration, usual time.Duration) time.Duration {
	if d == nil {
		return usual
	}
	return d.AsDuration()
}

// Plan returns the timetable of every connected agent, by name. Agents have to
// be in the order of their names. The versions are left at 0.
func Plan(measurements []Measurement, agents []fleet.Agent) map[string]*synmeshv1.Timetable {
	tables := make(map[string]*synmeshv1.Timetable)
	for _, a := range agents {
		if a.State != fleet.Connected {
			continue
		}
		table := &synmeshv1.Timetable{Expiry: durationpb.New(expiry)}
		for _, m := range measurements {
			if e := m.entry(a, agents); e != nil {
				table.Entries = append(table.Entries, e)
			}
		}
		tables[a.Name] = table
	}
	return tables
}

// entry returns the agent's part of the measurement, or nil if it has none.
func (m *Measurement) entry(a fleet.Agent, agents []fleet.Agent) *synmeshv1.TimetableEntry {
	if !m.sources.Matches(a.Name, a.Labels) {
		return nil
	}
	spec := m.spec
	if m.mesh {
		spec.Targets = m.probedBy(a, agents)
	}
	if len(spec.Targets) == 0 {
		return nil
	}
	return &synmeshv1.TimetableEntry{Source: m.source, Spec: convert.FromSpec(&spec)}
}

// probedBy returns the responders of the others. Those without a session stay
// in: that they do not answer is what a mesh is there to show.
func (m *Measurement) probedBy(a fleet.Agent, agents []fleet.Agent) []probe.Target {
	var ts []probe.Target
	for _, b := range agents {
		if b.Name == a.Name || b.Responder == "" || b.State == fleet.Gossiped || !m.probed.Matches(b.Name, b.Labels) {
			continue
		}
		if t, err := probe.TargetAt(b.Name, b.Responder); err == nil { // checked when it connected
			ts = append(ts, t)
		}
	}
	return ts
}
