package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	"github.com/synmesh/synmesh/controller/fleet"
	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

func mesh(name, sources, probed string) *synmeshv1.Measurement {
	return &synmeshv1.Measurement{Name: name, Sources: sources,
		Destination: &synmeshv1.Measurement_Mesh{Mesh: &synmeshv1.Mesh{Selector: probed}}}
}

func targets(name, sources string, texts ...string) *synmeshv1.Measurement {
	return &synmeshv1.Measurement{Name: name, Sources: sources,
		Destination: &synmeshv1.Measurement_Targets{Targets: &synmeshv1.TargetList{Targets: texts}}}
}

func parse(t testing.TB, ms ...*synmeshv1.Measurement) (parsed []Measurement) {
	t.Helper()
	for _, m := range ms {
		p, err := Parse(m)
		if err != nil {
			t.Fatal(err)
		}
		parsed = append(parsed, p)
	}
	return parsed
}

func agent(name string, state fleet.State) fleet.Agent {
	return fleet.Agent{Name: name, Labels: map[string]string{"dc": name[:3]}, Responder: "10.0.0.1:7401", State: state}
}

func TestParseRefusesWhatCannotBeMeasured(t *testing.T) {
	tests := []struct {
		name   string
		change func(*synmeshv1.Measurement)
		want   string
	}{
		{"a name with a space", func(m *synmeshv1.Measurement) { m.Name = "a b" }, `measurement: name "a b": ' ' is not allowed`},
		{"a bad selector of sources", func(m *synmeshv1.Measurement) { m.Sources = "dc==" }, `measurement "web": selector "dc==": at 5`},
		{"a bad selector of a mesh", func(m *synmeshv1.Measurement) { *m = *mesh("web", "", "!") }, `measurement "web": selector "!"`},
		{"neither targets nor a mesh", func(m *synmeshv1.Measurement) { m.Destination = nil }, "no target; name at least one"},
		{"an empty list of targets", func(m *synmeshv1.Measurement) { *m = *targets("web", "") }, "no target; name at least one"},
		{"a target without a port", func(m *synmeshv1.Measurement) { *m = *targets("web", "", "db.fra") }, `"db.fra": no port`},
		{"an interval of nothing", func(m *synmeshv1.Measurement) { m.Interval = durationpb.New(0) }, "interval 0s is outside 1ms to 24h0m0s"},
		{"a timeout beyond a minute", func(m *synmeshv1.Measurement) { m.Timeout = durationpb.New(time.Hour) }, "timeout 1h0m0s is outside"},
		{"fewer flows than none", func(m *synmeshv1.Measurement) { m.Flows = -1 }, "-1 flows are outside 1 to 256"},
		{"too many flows of a mesh", func(m *synmeshv1.Measurement) { *m = *mesh("web", "", ""); m.Flows = 257 }, "257 flows are outside 1 to 256"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := targets("web", "", "db.fra:5432")
			tt.change(m)
			_, err := Parse(m)
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want one line with %q", err, tt.want)
			}
		})
	}
}

func TestWhatAMeasurementLeavesOutIsFilledIn(t *testing.T) {
	m := targets("web", "", "db.fra:5432,5433", "[2001:db8::1]:443")
	plain := parse(t, m)[0].spec
	if plain.Interval != time.Second || plain.Timeout != 3*time.Second || plain.Flows != 1 || plain.Family != probe.AnyFamily || plain.Count != 0 {
		t.Errorf("got %+v", plain)
	}
	if len(plain.Targets) != 3 || plain.Targets[1].Name != "db.fra:5433" || plain.Targets[2].Host != "2001:db8::1" {
		t.Errorf("got the targets %v", plain.Targets)
	}
	m.Interval, m.Timeout, m.Flows, m.Family = durationpb.New(time.Minute), durationpb.New(time.Second), 4, synmeshv1.AddressFamily_ADDRESS_FAMILY_IPV6
	full := parse(t, m)[0].spec
	if full.Interval != time.Minute || full.Timeout != time.Second || full.Flows != 4 || full.Family != probe.IPv6 {
		t.Errorf("got %+v", full)
	}
}

// show writes tables in a way that can be read.
func show(tables map[string]*synmeshv1.Timetable) (lines []string) {
	for name, table := range tables {
		for _, e := range table.GetEntries() {
			line := name + " " + strings.TrimPrefix(e.GetSource(), Prefix) + ":"
			for _, t := range e.GetSpec().GetTargets() {
				line += " " + t.GetName() + "@" + t.GetAddress()
			}
			lines = append(lines, line)
		}
		if len(table.GetEntries()) == 0 {
			lines = append(lines, name+" nothing")
		}
	}
	slices.Sort(lines)
	return lines
}

func TestPlan(t *testing.T) {
	fra, nyc, sin := agent("fra-1", fleet.Connected), agent("nyc-1", fleet.Connected), agent("sin-1", fleet.Connected)
	nyc.Responder, sin.Responder = "10.0.0.2:7401", "[2001:db8::3]:7401"
	gone, told, mute := sin, sin, sin
	gone.State, told.State, mute.Responder = fleet.Disconnected, fleet.Gossiped, ""
	tests := []struct {
		name         string
		measurements []*synmeshv1.Measurement
		agents       []fleet.Agent
		want         []string
	}{
		{"nothing to measure is a timetable too", nil, []fleet.Agent{fra, nyc}, []string{"fra-1 nothing", "nyc-1 nothing"}},
		{"a mesh has each probe the others", []*synmeshv1.Measurement{mesh("m", "", "")}, []fleet.Agent{fra, nyc, sin}, []string{
			"fra-1 m: nyc-1@10.0.0.2:7401 sin-1@[2001:db8::3]:7401", "nyc-1 m: fra-1@10.0.0.1:7401 sin-1@[2001:db8::3]:7401",
			"sin-1 m: fra-1@10.0.0.1:7401 nyc-1@10.0.0.2:7401"}},
		{"a mesh of one has nothing to do", []*synmeshv1.Measurement{mesh("m", "", "")}, []fleet.Agent{fra}, []string{"fra-1 nothing"}},
		{"selectors say who probes whom", []*synmeshv1.Measurement{mesh("m", "dc=fra", "dc in (fra,nyc)")}, []fleet.Agent{fra, nyc, sin},
			[]string{"fra-1 m: nyc-1@10.0.0.2:7401", "nyc-1 nothing", "sin-1 nothing"}},
		{"whoever lost its session is probed but told nothing", []*synmeshv1.Measurement{mesh("m", "", "")}, []fleet.Agent{fra, gone},
			[]string{"fra-1 m: sin-1@[2001:db8::3]:7401"}},
		{"whoever only gossip tells of is left out", []*synmeshv1.Measurement{mesh("m", "", "")}, []fleet.Agent{fra, told}, []string{"fra-1 nothing"}},
		{"whoever has no responder probes but is not probed", []*synmeshv1.Measurement{mesh("m", "", "")}, []fleet.Agent{fra, mute},
			[]string{"fra-1 nothing", "sin-1 m: fra-1@10.0.0.1:7401"}},
		{"targets outside the fleet are probed by all sources", []*synmeshv1.Measurement{targets("w", "!sin-1", "db.fra:5432")}, []fleet.Agent{fra, nyc, sin},
			[]string{"fra-1 w: db.fra:5432@db.fra:5432", "nyc-1 w: db.fra:5432@db.fra:5432", "sin-1 nothing"}},
		{"measurements keep their order", []*synmeshv1.Measurement{targets("z", "", "a:1"), mesh("m", "", "")}, []fleet.Agent{fra, gone},
			[]string{"fra-1 m: sin-1@[2001:db8::3]:7401", "fra-1 z: a:1@a:1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := show(Plan(parse(t, tt.measurements...), tt.agents)); !slices.Equal(got, tt.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
		})
	}
}

// drawAgents draws a fleet in the order of names, as fleet.Fleet tells it.
func drawAgents(t *rapid.T) (agents []fleet.Agent) {
	states := []fleet.State{fleet.Connected, fleet.Connected, fleet.Disconnected, fleet.Gossiped}
	names := rapid.SliceOfDistinct(rapid.StringMatching(`(fra|nyc|sin)-[0-9]{1,2}`), rapid.ID).Draw(t, "names")
	for _, name := range names {
		a := agent(name, rapid.SampledFrom(states).Draw(t, "state"))
		a.Responder = rapid.SampledFrom([]string{"", "10.0.0.1:7401", "[2001:db8::1]:7401"}).Draw(t, "responder")
		agents = append(agents, a)
	}
	slices.SortFunc(agents, func(a, b fleet.Agent) int { return cmp.Compare(a.Name, b.Name) })
	return agents
}

func drawMeasurements(t *rapid.T) (ms []Measurement) {
	selectors := rapid.SampledFrom([]string{"", "dc=fra", "dc in (nyc,sin)", "!fra-1", "dc!=sin"})
	for i := range rapid.IntRange(0, 4).Draw(t, "measurements") {
		m := targets(fmt.Sprint("m", i), selectors.Draw(t, "sources"), "db.fra:1-3")
		if rapid.Bool().Draw(t, "mesh") {
			m = mesh(m.GetName(), m.GetSources(), selectors.Draw(t, "probed"))
		}
		p, err := Parse(m)
		if err != nil {
			t.Fatal(err)
		}
		ms = append(ms, p)
	}
	return ms
}

func TestWhatHoldsOfEveryPlan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		agents, ms := drawAgents(t), drawMeasurements(t)
		tables := Plan(ms, agents)
		known := make(map[string]fleet.Agent)
		connected := 0
		for _, a := range agents {
			known[a.Name] = a
			if a.State == fleet.Connected {
				connected++
			}
		}
		if len(tables) != connected {
			t.Fatalf("%d timetables for %d agents that are connected", len(tables), connected)
		}
		for name, table := range tables {
			if known[name].State != fleet.Connected {
				t.Fatalf("%s is not connected and has a timetable", name)
			}
			if table.GetVersion() != 0 || table.GetExpiry().AsDuration() <= 0 {
				t.Fatalf("the timetable of %s has version %d and expires after %v", name, table.GetVersion(), table.GetExpiry().AsDuration())
			}
			checkEntries(t, known, known[name], ms, table.GetEntries())
		}
		if again := Plan(ms, agents); !equal(tables, again) {
			t.Fatalf("the same was planned twice, as\n%v\nand\n%v", tables, again)
		}
	})
}

// checkEntries looks at what one agent is told to do.
func checkEntries(t *rapid.T, known map[string]fleet.Agent, a fleet.Agent, ms []Measurement, entries []*synmeshv1.TimetableEntry) {
	next := 0 // the entries come in the order of the measurements
	for _, e := range entries {
		for next < len(ms) && ms[next].source != e.GetSource() {
			next++
		}
		if next == len(ms) {
			t.Fatalf("%s is told to do %s out of turn", a.Name, e.GetSource())
		}
		m := ms[next]
		if !m.sources.Matches(a.Name, a.Labels) {
			t.Fatalf("%s does %s and is none of its sources", a.Name, e.GetSource())
		}
		if len(e.GetSpec().GetTargets()) == 0 {
			t.Fatalf("%s does %s, which has nothing for it", a.Name, e.GetSource())
		}
		if !m.mesh {
			continue
		}
		for _, target := range e.GetSpec().GetTargets() {
			b, ok := known[target.GetName()]
			if !ok || b.Name == a.Name || b.State == fleet.Gossiped || b.Responder != target.GetAddress() || !m.probed.Matches(b.Name, b.Labels) {
				t.Fatalf("%s probes %v in %s; known of that is %+v", a.Name, target, e.GetSource(), b)
			}
		}
	}
}

func equal(a, b map[string]*synmeshv1.Timetable) bool {
	if len(a) != len(b) {
		return false
	}
	for name := range a {
		if !proto.Equal(a[name], b[name]) {
			return false
		}
	}
	return true
}

// An agent that joins or leaves changes only the entries that are about it.
func TestOneAgentMoreMovesNobodyElse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		agents, ms := drawAgents(t), drawMeasurements(t)
		if len(agents) == 0 {
			return
		}
		i := rapid.IntRange(0, len(agents)-1).Draw(t, "left")
		gone := agents[i].Name
		before := Plan(ms, agents)
		after := Plan(ms, slices.Delete(slices.Clone(agents), i, i+1))
		delete(before, gone)
		for _, table := range before {
			table.Entries = slices.DeleteFunc(table.Entries, func(e *synmeshv1.TimetableEntry) bool {
				e.Spec.Targets = slices.DeleteFunc(e.Spec.Targets, func(t *synmeshv1.Target) bool { return t.GetName() == gone })
				return len(e.Spec.Targets) == 0
			})
		}
		if !equal(before, after) {
			t.Fatalf("%s left, and the others have\n%v\nwant\n%v", gone, after, before)
		}
	})
}

func BenchmarkPlanMesh(b *testing.B) {
	var agents []fleet.Agent
	for i := range 300 {
		agents = append(agents, agent(fmt.Sprintf("fra-%03d", i), fleet.Connected))
	}
	ms := parse(b, mesh("m", "", ""))
	b.ReportAllocs()
	for b.Loop() {
		Plan(ms, agents)
	}
}
