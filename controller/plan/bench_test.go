package plan

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/synmesh/synmesh/controller/fleet"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// crowd is a fleet of n agents in so many groups, in the order of their names.
func crowd(n, groups int) []fleet.Agent {
	agents := make([]fleet.Agent, n)
	for i := range agents {
		dc := fmt.Sprintf("d%02d", i%groups)
		agents[i] = fleet.Agent{Name: fmt.Sprintf("%s-%05d", dc, i), Labels: map[string]string{"dc": dc},
			Responder: fmt.Sprintf("10.%d.%d.%d:7401", i>>16, i>>8&255, i&255), State: fleet.Connected}
	}
	slices.SortFunc(agents, func(a, b fleet.Agent) int { return strings.Compare(a.Name, b.Name) })
	return agents
}

func between(name, label string) *synmeshv1.Measurement {
	m := mesh(name, "", "")
	m.GetMesh().Between = label
	return m
}

func within(name, label string) *synmeshv1.Measurement {
	m := mesh(name, "", "")
	m.GetMesh().Within = label
	return m
}

var shapes = map[string]*synmeshv1.Measurement{"all": mesh("m", "", ""), "between": between("m", "dc"), "within": within("m", "dc")}

// Planning, and comparing each timetable with the one before.
func BenchmarkPlan(b *testing.B) {
	for _, shape := range []string{"all", "between", "within"} {
		for _, n := range []int{10, 100, 1000, 10_000} {
			b.Run(fmt.Sprintf("%s/agents=%d", shape, n), func(b *testing.B) {
				agents, ms := crowd(n, 20), parse(b, shapes[shape])
				b.ReportAllocs()
				var s Status
				for b.Loop() {
					p := Make(time.Time{}, ms, agents)
					p.Tables()
					s = p.Status("m")
				}
				b.ReportMetric(s.Rate/float64(s.Agents), "probes/s/agent")
				b.ReportMetric(s.MaxTargetRate, "most-probes/s/target")
			})
		}
	}
}

// Making every timetable of a fleet into a message, as at the start.
func BenchmarkMessages(b *testing.B) {
	p := Make(time.Time{}, parse(b, between("m", "dc")), crowd(10_000, 20))
	b.ReportAllocs()
	for b.Loop() {
		for _, t := range p.Tables() {
			t.Message()
		}
	}
}
