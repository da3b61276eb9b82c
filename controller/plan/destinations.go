package plan

import (
	"cmp"
	"slices"

	"github.com/synmesh/synmesh/controller/fleet"
	"github.com/synmesh/synmesh/internal/measurement"
	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// destinations are all that a measurement may probe, in the order of their
// groups and then of their names.
type destinations struct {
	targets []*synmeshv1.Target
	hashes  []hash // of the names: an agent that moves keeps its pairs
	digests []hash // of all that the targets say
	groups  []group
	index   map[string]int32 // of the groups, by name
	own     map[string]int   // of the targets, by the agent's name; nil if they are no agents
	widest  int              // the most that one of them takes in a timetable, in bytes
}

// group is the targets from one place to before another.
type group struct {
	from, to int
	hash     hash
}

func (g group) len() int { return g.to - g.from }

// others returns how many of the group are not the target own.
func (g group) others(own int) int {
	if own >= g.from && own < g.to {
		return g.len() - 1
	}
	return g.len()
}

type destination struct {
	group  string
	target probe.Target
}

func newDestinations(m *measurement.Checked, agents []fleet.Agent) *destinations {
	d := &destinations{index: make(map[string]int32)}
	var found []destination
	if m.Mesh {
		found = responders(m, agents)
		d.own = make(map[string]int, len(found))
	} else {
		for _, t := range m.Spec.Targets {
			found = append(found, destination{target: t})
		}
	}
	slices.SortStableFunc(found, func(a, b destination) int { return cmp.Compare(a.group, b.group) })
	for i, f := range found {
		if len(d.groups) == 0 || found[i-1].group != f.group {
			d.index[f.group] = int32(len(d.groups))
			d.groups = append(d.groups, group{from: i, hash: hashOf(f.group)})
		}
		d.groups[len(d.groups)-1].to = i + 1
		t := &synmeshv1.Target{Name: f.target.Name, Address: f.target.Address()}
		d.targets = append(d.targets, t)
		d.widest = max(d.widest, weightOf(t))
		d.hashes = append(d.hashes, hashOf(t.GetName()))
		d.digests = append(d.digests, hashOf(t.GetName(), t.GetAddress()))
		if d.own != nil {
			d.own[t.GetName()] = i
		}
	}
	return d
}

// responders returns what a mesh probes. Those without a session stay in: that
// they do not answer is what a mesh is there to show.
func responders(m *measurement.Checked, agents []fleet.Agent) (found []destination) {
	for _, a := range agents {
		group, ok := groupOf(m, a)
		if !ok || a.Responder == "" || a.State == fleet.Gossiped || !m.Probed.Matches(a.Name, a.Labels) {
			continue
		}
		if t, err := probe.TargetAt(a.Name, a.Responder); err == nil { // checked when it connected
			found = append(found, destination{group, t})
		}
	}
	return found
}

// groupOf returns the group that an agent is in; false if it takes no part.
func groupOf(m *measurement.Checked, a fleet.Agent) (string, bool) {
	label := m.Between + m.Within // one of them is empty
	if label == "" {
		return "", true
	}
	value, ok := a.Labels[label]
	return value, ok
}

// of returns the groups that an agent probes.
func (d *destinations) of(m *measurement.Checked, a fleet.Agent) []int32 {
	own, ok := groupOf(m, a)
	at, known := d.index[own]
	switch {
	case m.Mesh && !ok:
		return nil
	case m.Between == "" && !known:
		return nil
	case m.Between == "":
		return []int32{at}
	}
	groups := make([]int32, 0, len(d.groups))
	for g := range int32(len(d.groups)) {
		if !known || g != at {
			groups = append(groups, g)
		}
	}
	return groups
}
