package measurement

import (
	"math"
	"strings"
	"testing"
	"time"

	"buf.build/go/protovalidate"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

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

func check(t *testing.T, m *synmeshv1.Measurement) *Checked {
	t.Helper()
	c, err := Check(m)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCheckRefusesWhatCannotBeMeasured(t *testing.T) {
	tests := []struct {
		name   string
		change func(*synmeshv1.Measurement)
		want   string
	}{
		{"a name with a space", func(m *synmeshv1.Measurement) { m.Name = "a b" }, `measurement: name "a b": ' ' is not allowed`},
		{"a bad selector of sources", func(m *synmeshv1.Measurement) { m.Sources = "dc==" }, `measurement "web": selector "dc==": at 5`},
		{"a bad selector of a mesh", func(m *synmeshv1.Measurement) { *m = *mesh("web", "", "!") }, `measurement "web": selector "!"`},
		{"a name that is a folder's", func(m *synmeshv1.Measurement) { m.Name = ".." }, `measurement: name "..": choose one with a letter`},
		{"both between and within", func(m *synmeshv1.Measurement) {
			*m = *mesh("web", "", "")
			m.GetMesh().Between, m.GetMesh().Within = "dc", "rack"
		},
			`measurement "web": mesh: between and within are both given; a mesh has one of them, or neither`},
		{"a label to group by that is none", func(m *synmeshv1.Measurement) { *m = *mesh("web", "", ""); m.GetMesh().Between = "d c" },
			`measurement "web": mesh: the label to group by: name "d c": ' ' is not allowed`},
		{"names to group by", func(m *synmeshv1.Measurement) { *m = *mesh("web", "", ""); m.GetMesh().Within = "name" }, "mesh: name is not a label; group by one that agents have"},
		{"too many targets", func(m *synmeshv1.Measurement) { m.GetTargets().Targets = make([]string, 10_001) }, "10001 targets; 10000 are allowed"},
		{"a budget that is no number", func(m *synmeshv1.Measurement) { m.Budget = math.NaN() }, "budget NaN is outside 0 to 1000 probes a second and agent"},
		{"a budget of less than nothing", func(m *synmeshv1.Measurement) { m.Budget = -1 }, "budget -1 is outside 0 to 1000"},
		{"too large a budget", func(m *synmeshv1.Measurement) { m.Budget = 1001 }, "budget 1001 is outside 0 to 1000"},
		{"one target that goes beyond the budget", func(m *synmeshv1.Measurement) { m.Flows, m.Budget = 5, 4 },
			"one target with 5 flows takes 5 probes a second, and the budget is 4; lengthen the interval, or raise the budget"},
		{"too much jitter", func(m *synmeshv1.Measurement) { m.Jitter = 0.6 }, "jitter 0.6 is outside 0 to 0.5"},
		{"an end that is no time", func(m *synmeshv1.Measurement) { m.ExpireTime = &timestamppb.Timestamp{Nanos: -1} }, "expire_time is no time"},
		{"an unknown mode", func(m *synmeshv1.Measurement) { m.Mode = 9 }, "mode: 9 is none"},
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
			_, err := Check(m)
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want one line with %q", err, tt.want)
			}
		})
	}
}

func TestWhatAMeasurementLeavesOutIsFilledIn(t *testing.T) {
	m := targets("web", "", "db.fra:5432,5433", "[2001:db8::1]:443")
	plain := check(t, m).Spec
	if plain.Interval != time.Second || plain.Timeout != 3*time.Second || plain.Flows != 1 || plain.Family != probe.AnyFamily || plain.Count != 0 {
		t.Errorf("got %+v", plain)
	}
	if len(plain.Targets) != 3 || plain.Targets[1].Name != "db.fra:5433" || plain.Targets[2].Host != "2001:db8::1" {
		t.Errorf("got the targets %v", plain.Targets)
	}
	m.Interval, m.Timeout, m.Flows, m.Family = durationpb.New(time.Minute), durationpb.New(time.Second), 4, synmeshv1.AddressFamily_ADDRESS_FAMILY_IPV6
	full := check(t, m).Spec
	if full.Interval != time.Minute || full.Timeout != time.Second || full.Flows != 4 || full.Family != probe.IPv6 {
		t.Errorf("got %+v", full)
	}
}

func TestWhenAMeasurementEnds(t *testing.T) {
	m := targets("web", "", "db.fra:5432")
	if check(t, m).Expired(time.Now()) {
		t.Error("what has no end has ended")
	}
	m.ExpireTime = timestamppb.New(time.Unix(100, 0))
	c := check(t, m)
	if c.Expired(time.Unix(99, 999_999_999)) || !c.Expired(time.Unix(100, 0)) {
		t.Error("the end is not at 100 s")
	}
}

// draw draws a measurement, each field of which may be wrong, though seldom.
func draw(t *rapid.T) *synmeshv1.Measurement {
	selectors := mostly([]string{"", "dc=fra", "!a,b", strings.Repeat("a,", 499) + "a"}, strings.Repeat("a,", 500)+"a", "==")
	hosts := rapid.SliceOfN(mostly([]string{"db.fra:5432", "[::1]:1-3"}, "x"), mostly([]int{1}, 0).Draw(t, "fewest"), 3)
	m := targets(mostly([]string{"web", "a.b_c-9", strings.Repeat("n", 63)}, "..", "", "a b", strings.Repeat("n", 64)).Draw(t, "name"),
		selectors.Draw(t, "sources"), hosts.Draw(t, "targets")...)
	if rapid.Bool().Draw(t, "mesh") {
		m = mesh(m.GetName(), m.GetSources(), selectors.Draw(t, "probed"))
		labels := mostly([]string{"", "", "", "dc", "name"}, "d c", strings.Repeat("l", 64))
		m.GetMesh().Between, m.GetMesh().Within = labels.Draw(t, "between"), labels.Draw(t, "within")
	}
	m.Budget = mostly([]float64{0, 1, 1000}, 1001, -1, math.NaN(), math.Inf(1)).Draw(t, "budget")
	m.Jitter = mostly([]float64{0, 0.5}, 0.6, -1, math.NaN()).Draw(t, "jitter")
	m.Family = synmeshv1.AddressFamily(mostly([]int32{0, 1, 2}, 3, 4).Draw(t, "family"))
	m.Mode = synmeshv1.Mode(mostly([]int32{0, 1, 2}, 3, 4, 5).Draw(t, "mode"))
	return m
}

// mostly draws one of the right values, and one of the wrong ones now and then.
func mostly[T any](right []T, wrong ...T) *rapid.Generator[T] {
	return rapid.Custom(func(t *rapid.T) T {
		if rapid.IntRange(0, 9).Draw(t, "wrong") == 9 {
			return rapid.SampledFrom(wrong).Draw(t, "value")
		}
		return rapid.SampledFrom(right).Draw(t, "value")
	})
}

// The API has rules of its own in measurement.proto. What passes here passes
// there, so that a file that probectl takes is not refused later.
func TestWhatIsTakenHereKeepsTheRulesOfTheAPI(t *testing.T) {
	taken := 0
	rapid.Check(t, func(t *rapid.T) {
		m := draw(t)
		if _, err := Check(m); err != nil {
			return
		}
		taken++
		if err := protovalidate.Validate(m); err != nil {
			t.Fatalf("%v is taken here, and there: %v", m, err)
		}
	})
	if taken < 5 {
		t.Errorf("%d were taken, which proves little", taken)
	}
}

func TestWhatIsWrittenIsReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var want []*synmeshv1.Measurement
		for _, name := range []string{"a", "b"} {
			m := draw(t)
			m.Name = name
			if _, err := Check(m); err == nil {
				want = append(want, m)
			}
		}
		text, err := Format(want...)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Read(text)
		if err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		if d := cmp.Diff(want, got, protocmp.Transform()); d != "" {
			t.Fatalf("(-want +got):\n%s", d)
		}
	})
}

func TestAMeasurementIsWrittenAsPeopleWriteIt(t *testing.T) {
	m := mesh("web", "dc=fra", "")
	m.GetMesh().Between = "dc"
	m.Interval, m.Budget, m.ExpireTime = durationpb.New(500*time.Millisecond), 20, timestamppb.New(time.Unix(1e9, 0))
	want := `measurements:
- name: web
  sources: dc=fra
  mesh:
    between: dc
  interval: 0.500s
  budget: 20
  expire_time: "2001-09-09T01:46:40Z"
`
	if got, err := Format(m); err != nil || string(got) != want {
		t.Errorf("got %v and\n%s\nwant\n%s", err, got, want)
	}
}
