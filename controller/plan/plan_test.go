package plan

import (
	"cmp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/synmesh/synmesh/controller/fleet"
	"github.com/synmesh/synmesh/internal/measurement"
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

func parse(t testing.TB, ms ...*synmeshv1.Measurement) (parsed []*measurement.Checked) {
	t.Helper()
	for _, m := range ms {
		p, err := measurement.Check(m)
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

// messages are the timetables of all that are connected.
func messages(p *Plan) map[string]*synmeshv1.Timetable {
	tables := make(map[string]*synmeshv1.Timetable)
	for _, t := range p.Tables() {
		tables[t.Agent] = t.Message()
	}
	return tables
}

// show writes tables in a way that can be read.
func show(tables map[string]*synmeshv1.Timetable) (lines []string) {
	for name, table := range tables {
		for _, e := range table.GetEntries() {
			line := name + " " + strings.TrimPrefix(e.GetSource(), measurement.Prefix) + ":"
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

func rack(name, rack string) fleet.Agent {
	a := agent("fra", fleet.Connected)
	a.Name, a.Labels = name, map[string]string{"rack": rack}
	return a
}

func ends(name string, at int64) *synmeshv1.Measurement {
	m := targets(name, "", "db.fra:5432")
	m.ExpireTime = timestamppb.New(time.Unix(at, 0))
	return m
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
		{"a mesh between groups leaves out one's own, and those in none", []*synmeshv1.Measurement{between("m", "rack")},
			[]fleet.Agent{rack("a-1", "1"), rack("a-2", "1"), rack("b-1", "2"), agent("fra-1", fleet.Connected)},
			[]string{"a-1 m: b-1@10.0.0.1:7401", "a-2 m: b-1@10.0.0.1:7401", "b-1 m: a-1@10.0.0.1:7401 a-2@10.0.0.1:7401", "fra-1 nothing"}},
		{"a mesh within groups keeps to one's own", []*synmeshv1.Measurement{within("m", "rack")},
			[]fleet.Agent{rack("a-1", "1"), rack("a-2", "1"), rack("b-1", "2"), agent("fra-1", fleet.Connected)},
			[]string{"a-1 m: a-2@10.0.0.1:7401", "a-2 m: a-1@10.0.0.1:7401", "b-1 nothing", "fra-1 nothing"}},
		{"what has expired is left out", []*synmeshv1.Measurement{ends("a", 99), ends("b", 100), ends("c", 101)}, []fleet.Agent{fra},
			[]string{"fra-1 c: db.fra:5432@db.fra:5432"}},
		{"measurements keep their order", []*synmeshv1.Measurement{targets("z", "", "a:1"), mesh("m", "", "")}, []fleet.Agent{fra, gone},
			[]string{"fra-1 m: sin-1@[2001:db8::3]:7401", "fra-1 z: a:1@a:1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := show(messages(Make(time.Unix(100, 0), parse(t, tt.measurements...), tt.agents))); !slices.Equal(got, tt.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
		})
	}
}

// drawAgents draws a fleet in the order of names, as fleet.Fleet tells it.
func drawAgents(t *rapid.T) (agents []fleet.Agent) {
	states := []fleet.State{fleet.Connected, fleet.Connected, fleet.Disconnected, fleet.Gossiped}
	least := rapid.SampledFrom([]int{0, 10, 30}).Draw(t, "at least") // few draws are long by themselves
	names := rapid.SliceOfNDistinct(rapid.StringMatching(`(fra|nyc|sin|lhr)-[0-9]{1,2}`), least, 60, rapid.ID).Draw(t, "names")
	for _, name := range names {
		a := agent(name, rapid.SampledFrom(states).Draw(t, "state"))
		a.Responder = rapid.SampledFrom([]string{"", "10.0.0.1:7401", "[2001:db8::1]:7401"}).Draw(t, "responder")
		agents = append(agents, a)
	}
	slices.SortFunc(agents, func(a, b fleet.Agent) int { return cmp.Compare(a.Name, b.Name) })
	return agents
}
