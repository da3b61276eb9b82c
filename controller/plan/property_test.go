package plan

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/synmesh/synmesh/controller/fleet"
	"github.com/synmesh/synmesh/internal/measurement"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

func drawMeasurements(t *rapid.T) (ms []*measurement.Checked) {
	selectors := rapid.SampledFrom([]string{"", "dc=fra", "dc in (nyc,sin)", "!fra-1", "dc!=sin"})
	for i := range rapid.IntRange(0, 4).Draw(t, "measurements") {
		m := targets(fmt.Sprint("m", i), selectors.Draw(t, "sources"), "db.fra:1-30")
		if rapid.Bool().Draw(t, "mesh") {
			m = mesh(m.GetName(), m.GetSources(), selectors.Draw(t, "probed"))
			m.GetMesh().Between = rapid.SampledFrom([]string{"", "dc"}).Draw(t, "between")
			if m.GetMesh().GetBetween() == "" {
				m.GetMesh().Within = rapid.SampledFrom([]string{"", "dc"}).Draw(t, "within")
			}
		}
		m.Flows = rapid.Int32Range(1, 4).Draw(t, "flows")
		m.Budget = float64(rapid.SampledFrom([]int{4, 5, 10, 20, 1000}).Draw(t, "budget"))
		c, err := measurement.Check(m)
		if err != nil {
			t.Fatal(err)
		}
		ms = append(ms, c)
	}
	return ms
}

// may tells whether one agent may probe another in a mesh.
func may(m *measurement.Checked, a, b fleet.Agent) bool {
	same := a.Labels["dc"] == b.Labels["dc"]
	return a.Name != b.Name && b.State != fleet.Gossiped && b.Responder != "" && m.Probed.Matches(b.Name, b.Labels) &&
		(m.Between == "" || !same) && (m.Within == "" || same)
}

func TestWhatHoldsOfEveryPlan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		agents, ms := drawAgents(t), drawMeasurements(t)
		known := make(map[string]fleet.Agent)
		var connected []string
		for _, a := range agents {
			known[a.Name] = a
			if a.State == fleet.Connected {
				connected = append(connected, a.Name)
			}
		}
		p := Make(time.Time{}, ms, agents)
		tables := messages(p)
		if names := slices.Sorted(maps.Keys(tables)); !slices.Equal(names, connected) {
			t.Fatalf("there are timetables of %v; %v are connected", names, connected)
		}
		incoming := make(map[string]float64) // by measurement and target
		for name, table := range tables {
			if table.GetVersion() != 0 || table.GetExpiry().AsDuration() <= 0 {
				t.Fatalf("the timetable of %s has version %d and expires after %v", name, table.GetVersion(), table.GetExpiry().AsDuration())
			}
			checkEntries(t, known, known[name], ms, table.GetEntries(), incoming)
		}
		for _, m := range ms {
			for key, rate := range incoming {
				if s := m.Source() + " "; len(key) > len(s) && key[:len(s)] == s && rate > 2*m.Budget {
					t.Fatalf("%s gets %v probes a second; the budget is %v", key, rate, m.Budget)
				}
			}
		}
		again := Make(time.Time{}, ms, agents)
		if !equal(tables, messages(again)) || !slices.Equal(digests(p), digests(again)) {
			t.Fatalf("the same was planned twice, as\n%v\nand\n%v", tables, messages(again))
		}
	})
}

// checkEntries looks at what one agent is told to do.
func checkEntries(t *rapid.T, known map[string]fleet.Agent, a fleet.Agent, ms []*measurement.Checked, entries []*synmeshv1.TimetableEntry, incoming map[string]float64) {
	next, total := 0, 0.0 // the entries come in the order of the measurements
	for _, e := range entries {
		for next < len(ms) && ms[next].Source() != e.GetSource() {
			next++
		}
		if next == len(ms) {
			t.Fatalf("%s is told to do %s out of turn", a.Name, e.GetSource())
		}
		m := ms[next]
		if !m.Sources.Matches(a.Name, a.Labels) {
			t.Fatalf("%s does %s and is none of its sources", a.Name, e.GetSource())
		}
		if len(e.GetSpec().GetTargets()) == 0 {
			t.Fatalf("%s does %s, which has nothing for it", a.Name, e.GetSource())
		}
		if phase := e.GetSpec().GetPhase().AsDuration(); phase < 0 || phase > m.Spec.Interval {
			t.Fatalf("%s begins %s after %v", a.Name, e.GetSource(), phase)
		}
		rate := float64(len(e.GetSpec().GetTargets())) * m.Spec.Rate()
		if total += rate; rate > m.Budget || total > totalBudget {
			t.Fatalf("%s spends %v probes a second on %s and %v in all; the budgets are %v and %v", a.Name, rate, e.GetSource(), total, m.Budget, totalBudget)
		}
		seen := make(map[string]bool)
		for _, target := range e.GetSpec().GetTargets() {
			incoming[m.Source()+" "+target.GetName()] += m.Spec.Rate()
			if b := known[target.GetName()]; m.Mesh && (!may(m, a, b) || b.Responder != target.GetAddress()) {
				t.Fatalf("%s probes %v in %s; known of that is %+v", a.Name, target, e.GetSource(), b)
			}
			if seen[target.GetName()] {
				t.Fatalf("%s probes %s twice in %s", a.Name, target.GetName(), e.GetSource())
			}
			seen[target.GetName()] = true
		}
	}
}

func equal(a, b map[string]*synmeshv1.Timetable) bool {
	return maps.EqualFunc(a, b, func(a, b *synmeshv1.Timetable) bool { return proto.Equal(a, b) })
}

func digests(p *Plan) (all []uint64) {
	for _, t := range p.Tables() {
		all = append(all, t.Digest)
	}
	return all
}

// Digests stand for timetables: they are equal if and only if these are.
func TestDigestsTellTimetablesApart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		agents, ms := drawAgents(t), drawMeasurements(t)
		other, changed := slices.Clone(agents), slices.Clone(ms)
		if len(agents) > 0 && rapid.Bool().Draw(t, "an agent changes") {
			other[rapid.IntRange(0, len(agents)-1).Draw(t, "which")].Responder = "10.0.0.9:7401"
		}
		if len(ms) > 0 && rapid.Bool().Draw(t, "a measurement changes") {
			m := *ms[0]
			m.Spec.Timeout += time.Second
			changed[0] = &m
		}
		before, after := Make(time.Time{}, ms, agents), Make(time.Time{}, changed, other)
		tables := after.Tables()
		for i, was := range before.Tables() {
			if same := proto.Equal(was.Message(), tables[i].Message()); same != (was.Digest == tables[i].Digest) {
				t.Fatalf("equal: %v; the digests are %x and %x of\n%v\nand\n%v", same, was.Digest, tables[i].Digest, was.Message(), tables[i].Message())
			}
		}
	})
}

// pair is who probes whom in what.
type pair struct{ source, agent, target string }

func pairs(p *Plan) map[pair]bool {
	all := make(map[pair]bool)
	for i, agent := range p.agents {
		for _, a := range p.assignments {
			for _, c := range a.chosen[i] {
				all[pair{a.Source(), agent.Name, a.destinations.targets[c.target].GetName()}] = true
			}
		}
	}
	return all
}

// crowded tells whether some target could be at its bound.
func crowded(p *Plan) bool {
	for _, a := range p.assignments {
		for _, n := range a.incoming {
			if int(n) >= 2*a.peers(a.Budget) {
				return true
			}
		}
	}
	return false
}

// An agent that joins brings its own pairs, and takes the place of one other
// with each agent that probes it. Nothing else moves.
func TestOneAgentMoreMovesItsOwnShareOnly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		agents, ms := drawAgents(t), drawMeasurements(t)
		if len(agents) == 0 {
			return
		}
		i := rapid.IntRange(0, len(agents)-1).Draw(t, "joins")
		joins := agents[i].Name
		without := Make(time.Time{}, ms, slices.Delete(slices.Clone(agents), i, i+1))
		with := Make(time.Time{}, ms, agents)
		if crowded(with) || crowded(without) {
			return
		}
		before, after := pairs(without), pairs(with)
		room := make(map[pair]int) // by measurement and agent
		for p := range after {
			if p.target == joins {
				room[pair{source: p.source, agent: p.agent}]++
			} else if p.agent != joins && !before[p] {
				t.Fatalf("%s joins, and %v begins", joins, p)
			}
		}
		for p := range before {
			if !after[p] {
				if room[pair{source: p.source, agent: p.agent}]--; room[pair{source: p.source, agent: p.agent}] < 0 {
					t.Fatalf("%s joins, and %v ends though nothing took its place", joins, p)
				}
			}
		}
	})
}
