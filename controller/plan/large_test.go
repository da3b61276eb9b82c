package plan

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/synmesh/synmesh/controller/fleet"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// What an agent spends does not grow with the fleet, and nothing is probed by
// many more than that.
func TestTheRateOfAnAgentStaysFlatAsTheFleetGrows(t *testing.T) {
	for name, m := range shapes {
		for _, n := range []int{10, 100, 1000, 4000} {
			p := Make(time.Time{}, parse(t, m), crowd(n, 20))
			s := p.Status("m")
			want := 50.0
			if s.PossiblePairs < n*50 { // all of them, then
				want = float64(s.PossiblePairs) / float64(n)
			}
			if got := s.Rate / float64(n); got != want || s.MaxAgentRate > 50 || s.MaxTargetRate > 100 {
				t.Errorf("%s, %d agents: %v probes a second and agent, %v at the most, want %v; %v to one target",
					name, n, got, s.MaxAgentRate, want, s.MaxTargetRate)
			}
		}
	}
}

func TestEveryGroupIsProbedAlike(t *testing.T) {
	agents := crowd(2000, 20)
	p := Make(time.Time{}, parse(t, between("m", "dc")), agents)
	for _, table := range p.Tables() {
		count := make(map[string]int)
		for _, target := range table.Message().GetEntries()[0].GetSpec().GetTargets() {
			count[target.GetName()[:3]]++
		}
		least, most := 50, 0
		for _, n := range count {
			least, most = min(least, n), max(most, n)
		}
		if len(count) != 19 || count[table.Agent[:3]] != 0 || most-least > 1 {
			t.Fatalf("%s probes %v", table.Agent, count)
		}
	}
}

func TestAnAgentThatJoinsAThousandMovesItsOwnShareOnly(t *testing.T) {
	for name, m := range shapes {
		agents := crowd(1001, 20)
		ms := parse(t, m)
		for _, i := range []int{0, 500, 1000} {
			joins := agents[i].Name
			was := Make(time.Time{}, ms, slices.Delete(slices.Clone(agents), i, i+1))
			is := Make(time.Time{}, ms, agents)
			before, after := pairs(was), pairs(is)
			var own, into, begun, ended int
			for p := range after {
				switch {
				case p.agent == joins:
					own++
				case p.target == joins:
					into++
				case !before[p]:
					begun++
				}
			}
			for p := range before {
				if !after[p] {
					ended++
				}
			}
			changed := 0
			old := make(map[string]uint64)
			for _, t := range was.Tables() {
				old[t.Agent] = t.Digest
			}
			for _, t := range is.Tables() {
				if d, known := old[t.Agent]; known && d != t.Digest {
					changed++
				}
			}
			t.Logf("%s: %s probes %d and is probed by %d; of %d pairs of others %d ended and %d began; %d timetables changed",
				name, joins, own, into, len(before), ended, begun, changed)
			if begun != 0 || ended > into || changed != into || own > 50 || into > 100 {
				t.Errorf("%s: %s probes %d and is probed by %d; %d others ended, %d began, %d timetables changed", name, joins, own, into, ended, begun, changed)
			}
		}
	}
}

// A few that a crowd would probe are spared, and the crowd shares them.
func TestFewTargetsAreSharedByACrowd(t *testing.T) {
	agents := make([]fleet.Agent, 1010)
	for i := range agents {
		dc := "nyc"
		if i < 10 {
			dc = "fra"
		}
		agents[i] = agent(fmt.Sprintf("%s-%04d", dc, i), fleet.Connected)
	}
	ms := parse(t, mesh("m", "dc=nyc", "dc=fra"))
	p := Make(time.Time{}, ms, agents)
	s := p.Status("m")
	if s.Pairs != 1000 || s.MaxTargetRate != 100 || s.PossiblePairs != 10_000 {
		t.Errorf("got %+v, want 1000 pairs, 100 to each", s)
	}
	if s.Agents < 900 {
		t.Errorf("%d of 1000 agents probe anything; each could have one", s.Agents)
	}
	// Where targets are at their bound, one more lets others in.
	before, after := pairs(Make(time.Time{}, ms, agents[1:])), pairs(p)
	own, moved := 0, 0
	for pair := range after {
		if strings.HasPrefix(pair.target, agents[0].Name) {
			own++
		} else if !before[pair] {
			moved++
		}
	}
	t.Logf("%s is probed by %d; %d other pairs began", agents[0].Name, own, moved)
	if moved > 2*own {
		t.Errorf("%d pairs of others began for %d of its own", moved, own)
	}
}

func TestMeasurementsTogetherKeepToTheTotal(t *testing.T) {
	a, b := mesh("a", "", ""), mesh("b", "", "")
	a.Budget, b.Budget = 700, 700
	p := Make(time.Time{}, parse(t, a, b), crowd(900, 20))
	if first, second := p.Status("a").MaxAgentRate, p.Status("b").MaxAgentRate; first != 700 || second != 300 {
		t.Errorf("got %v and %v probes a second, want 700 and what is left of %d", first, second, totalBudget)
	}
}

// Another process, and another version of this one, have to plan alike.
func TestWeightsAreWhatTheyAlwaysWere(t *testing.T) {
	if got := hashOf("measurements/mesh").with(hashOf("fra-1")).with(hashOf("nyc-1")); got != 0xf8a133cac57adce2 {
		t.Errorf("got %#x", uint64(got))
	}
}

func TestAgentsDoNotBeginAtOnce(t *testing.T) {
	tenths := make([]int, 10)
	for _, table := range Make(time.Time{}, parse(t, mesh("m", "", "")), crowd(1000, 20)).Tables() {
		phase := table.Message().GetEntries()[0].GetSpec().GetPhase().AsDuration()
		tenths[int(phase*10/time.Second)]++
	}
	for i, n := range tenths {
		if n < 60 || n > 140 {
			t.Errorf("%d of 1000 agents begin in tenth %d of the interval", n, i)
		}
	}
}

// Where the budget is not enough for every group, groups are covered alike.
func TestFewTargetsForManyGroupsAreSpread(t *testing.T) {
	m := between("m", "dc")
	m.Budget = 5
	count, pairs := make(map[string]int), 0
	for _, table := range Make(time.Time{}, parse(t, m), crowd(1000, 20)).Tables() {
		groups := make(map[string]bool)
		probed := table.Message().GetEntries()[0].GetSpec().GetTargets()
		for _, target := range probed {
			groups[target.GetName()[:3]] = true
			count[target.GetName()[:3]]++
		}
		if pairs += len(probed); len(groups) != len(probed) {
			t.Fatalf("%s probes %d groups with %d targets", table.Agent, len(groups), len(probed))
		}
	}
	if pairs < 4950 { // a few are too much for their target
		t.Errorf("there are %d pairs; 5 for each of 1000 agents were wanted", pairs)
	}
	for dc, n := range count {
		if n < 175 || n > 325 {
			t.Errorf("%s is probed by %d agents; 250 would be its share", dc, n)
		}
	}
}

// A timetable stays small enough to send, whatever the budget.
func TestLongIntervalsDoNotMakeLongTimetables(t *testing.T) {
	m, w := mesh("m", "", ""), targets("w", "d00-00000", "db.fra:1-20000")
	m.Interval, w.Interval = durationpb.New(time.Hour), durationpb.New(time.Hour)
	p := Make(time.Time{}, parse(t, m, w), crowd(1100, 20))
	if mesh, given := p.Status("m"), p.Status("w"); mesh.Pairs != 1100*maxPeers || given.Pairs != maxGiven {
		t.Errorf("got %d pairs of the mesh and %d given, want %d and %d", mesh.Pairs, given.Pairs, 1100*maxPeers, maxGiven)
	}
}

// However many measurements there are, their timetable can be sent: agents take
// messages of 4 MiB, and one that gets a longer one loses its session, again and again.
func TestManyLongMeasurementsFitIntoAMessage(t *testing.T) {
	var ms []*synmeshv1.Measurement
	for i := range 20 {
		m := targets(fmt.Sprintf("w-%02d", i), "", strings.Repeat("a", 60)+"."+strings.Repeat("b", 60)+".example:1-20000")
		m.Interval = durationpb.New(time.Hour)
		ms = append(ms, m)
	}
	p := Make(time.Time{}, parse(t, ms...), crowd(2, 1))
	for _, table := range p.Tables() {
		message := table.Message()
		n := 0
		for _, e := range message.GetEntries() {
			n += len(e.GetSpec().GetTargets())
		}
		if size := proto.Size(message); size > maxTable || n < maxGiven {
			t.Errorf("the timetable of %s has %d bytes, for %d targets; at most %d are wanted", table.Agent, size, n, maxTable)
		}
	}
}
