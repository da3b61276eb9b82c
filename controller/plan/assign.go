package plan

import (
	"cmp"
	"math"
	"slices"

	"github.com/synmesh/synmesh/controller/fleet"
	"github.com/synmesh/synmesh/internal/measurement"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// totalBudget is how many probes a second an agent may spend on all
// measurements together. Whatever comes last, in the order of names, gets what is left.
const totalBudget = 1000

// How many targets an agent probes in one measurement, whatever the budget: a
// mesh is there to see paths, and a timetable has to be small enough to send.
const (
	maxPeers = 1000
	maxGiven = 10_000
)

// maxTable bounds the bytes of a timetable, all measurements together: agents take
// messages of 4 MiB, and one with a longer one could not stay connected. Whatever
// comes last gets the room that is left.
const maxTable = 3 << 20

// What a target and an entry take in a timetable, at most, beside their strings.
const (
	targetWeight = 16
	entryWeight  = 512
)

// spent is what the measurements of an agent have taken already.
type spent struct {
	rate  float64 // probes a second
	bytes int     // of its timetable, at most
}

// assignment is which agent probes what in one measurement.
type assignment struct {
	*measurement.Checked
	destinations *destinations
	digest       hash       // of the measurement
	chosen       [][]choice // by agent; those of a group lie together
	possible     []int      // how many there were to choose from
	incoming     []int32    // sources, by target
}

// assign lets every source choose, and takes what is too much for a target
// away again. before is what other measurements took of each agent; what this
// one takes is added.
func assign(m *measurement.Checked, agents []fleet.Agent, before []spent) *assignment {
	d := newDestinations(m, agents)
	a := &assignment{Checked: m, destinations: d, digest: digestOf(m),
		chosen: make([][]choice, len(agents)), possible: make([]int, len(agents)), incoming: make([]int32, len(d.targets))}
	seed := hashOf(m.Source())
	for i, agent := range agents {
		if agent.State == fleet.Gossiped || !m.Sources.Matches(agent.Name, agent.Labels) {
			continue
		}
		own := -1
		if at, ok := d.own[agent.Name]; ok {
			own = at
		}
		groups := d.of(m, agent)
		for _, g := range groups {
			a.possible[i] += d.groups[g].others(own)
		}
		n := min(a.possible[i], a.peers(min(m.Budget, totalBudget-before[i].rate)), before[i].room(d.widest))
		a.chosen[i] = d.choose(seed.with(hashOf(agent.Name)), groups, own, n)
	}
	a.relieve()
	for i, chosen := range a.chosen {
		if len(chosen) == 0 {
			continue
		}
		before[i].rate += a.rate(len(chosen))
		before[i].bytes += entryWeight
		for _, c := range chosen {
			before[i].bytes += weightOf(d.targets[c.target])
		}
	}
	return a
}

// room returns how many targets there is room for in the timetable, none of
// which takes more than so many bytes.
func (s spent) room(widest int) int {
	return max(0, maxTable-s.bytes-entryWeight) / max(1, widest)
}

// weightOf returns the bytes that a target takes in a timetable, at most.
func weightOf(t *synmeshv1.Target) int {
	return targetWeight + len(t.GetName()) + len(t.GetAddress())
}

// peers returns how many targets can be probed within a budget.
func (a *assignment) peers(budget float64) int {
	n := int(math.Floor(max(0, budget)/a.Spec.Rate() + 1e-9))
	if a.Mesh {
		return min(n, maxPeers)
	}
	return min(n, maxGiven)
}

func (a *assignment) rate(targets int) float64 { return float64(targets) * a.Spec.Rate() }

// source tells which agent made a choice.
type source struct {
	agent int
	choice
}

// relieve holds every target to twice what an agent may spend. Where more have
// chosen it, those keep it who ranked it highest: they have the least to put in its place.
func (a *assignment) relieve() {
	bound := int32(2 * a.peers(a.Budget))
	for _, chosen := range a.chosen {
		for _, c := range chosen {
			a.incoming[c.target]++
		}
	}
	crowds := make(map[int32][]source)
	for i, chosen := range a.chosen {
		for _, c := range chosen {
			if a.incoming[c.target] > bound {
				crowds[c.target] = append(crowds[c.target], source{i, c})
			}
		}
	}
	refused := make(map[[2]int32]bool)
	for target, crowd := range crowds {
		slices.SortFunc(crowd, func(a, b source) int {
			return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.weight, b.weight), cmp.Compare(a.agent, b.agent))
		})
		for _, s := range crowd[bound:] {
			refused[[2]int32{int32(s.agent), target}] = true
		}
		a.incoming[target] = bound
	}
	if len(refused) == 0 {
		return
	}
	for i := range a.chosen {
		a.chosen[i] = slices.DeleteFunc(a.chosen[i], func(c choice) bool { return refused[[2]int32{int32(i), c.target}] })
	}
}
