package results

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/synmesh/synmesh/controller/api/apitest"
	"github.com/synmesh/synmesh/controller/fleet"
	"github.com/synmesh/synmesh/controller/history"
	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// measured is a history of ten minutes: of each minute, pairs of agents have results with these round trips.
func measured(t *testing.T) (b *stored, begin time.Time) {
	t.Helper()
	b = onDisk(t, history.Config{Dir: t.TempDir()})
	for _, name := range []string{"fra-1", "nyc-1"} {
		b.fleet.Connect(fleet.Agent{Name: name, Labels: map[string]string{"dc": name[:3]}}, &synmeshv1.SessionResponse{})
	}
	begin = time.Now().Add(-20 * time.Minute).Truncate(time.Minute)
	for minute := range 10 {
		at := begin.Add(time.Duration(minute) * time.Minute)
		for agent, target := range map[string]string{"fra-1": "nyc-1", "nyc-1": "fra-1", "gone": "nyc-1"} {
			all := append(found(target, 1, 2, 3, -1, -2, -3, -4), apitest.Results("runs/a", "db:1", at, 2)...)
			for i := range all {
				all[i].Time = at.Add(time.Duration(i) * time.Second)
				all[i].LocalPort = uint16(61000 + i%2)
			}
			b.append(t, agent, uint64(minute+1), all)
		}
	}
	return b, begin
}

func (b *stored) query(t *testing.T, req *synmeshv1.QueryRequest) (all []*synmeshv1.SeriesSummary, pages int) {
	t.Helper()
	req = proto.CloneOf(req)
	for {
		resp, err := b.client.Query(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(resp.GetSeries()); req.PageSize > 0 && n > int(req.PageSize) || proto.Size(resp) > maxMessage {
			t.Fatalf("a page of %d series and %d bytes", n, proto.Size(resp))
		}
		all, pages = append(all, resp.GetSeries()...), pages+1
		if resp.GetNextPageToken() == "" {
			return all, pages
		}
		req.PageToken = resp.GetNextPageToken()
	}
}

func seriesNames(all []*synmeshv1.SeriesSummary) string {
	var names []string
	for _, s := range all {
		sent := int64(0)
		for _, step := range s.GetSteps() {
			sent += step.GetSent()
		}
		name := fmt.Sprintf("%s:%s>%s", strings.TrimPrefix(s.GetSource(), "measurements/"), s.GetAgent(), s.GetTarget())
		if s.GetLocalPort() > 0 {
			name += fmt.Sprintf("/%d", s.GetLocalPort())
		}
		names = append(names, fmt.Sprintf("%s=%d*%d", name, len(s.GetSteps()), sent))
	}
	return strings.Join(names, " ")
}

func TestQueriesSayWhatIsAskedFor(t *testing.T) {
	b, begin := measured(t)
	from, to := timestamppb.New(begin), timestamppb.New(begin.Add(10*time.Minute))
	minutes := func(n time.Duration) *durationpb.Duration { return durationpb.New(n * time.Minute) }
	for _, tt := range []struct {
		name string
		req  *synmeshv1.QueryRequest
		want string
	}{
		{"everything of the last hour", &synmeshv1.QueryRequest{},
			"mesh:fra-1>nyc-1=1*70 mesh:gone>nyc-1=1*70 mesh:nyc-1>fra-1=1*70 runs/a:fra-1>db:1=1*20 runs/a:gone>db:1=1*20 runs/a:nyc-1>db:1=1*20"},
		{"one source", &synmeshv1.QueryRequest{Filter: &synmeshv1.SeriesFilter{Source: "runs/a"}},
			"runs/a:fra-1>db:1=1*20 runs/a:gone>db:1=1*20 runs/a:nyc-1>db:1=1*20"},
		{"agents by label", &synmeshv1.QueryRequest{Filter: &synmeshv1.SeriesFilter{Source: mesh, Agents: "dc=fra"}}, "mesh:fra-1>nyc-1=1*70"},
		{"an agent that is gone, by name", &synmeshv1.QueryRequest{Filter: &synmeshv1.SeriesFilter{Source: mesh, Agents: "gone"}}, "mesh:gone>nyc-1=1*70"},
		{"targets, by name or label", &synmeshv1.QueryRequest{Filter: &synmeshv1.SeriesFilter{Agents: "dc=nyc", Targets: []string{"db:1"}, TargetAgents: "dc=fra"}},
			"mesh:nyc-1>fra-1=1*70 runs/a:nyc-1>db:1=1*20"},
		{"steps", &synmeshv1.QueryRequest{Filter: &synmeshv1.SeriesFilter{Source: mesh, Agents: "gone"}, StartTime: from, EndTime: to, Step: minutes(3)}, "mesh:gone>nyc-1=4*70"},
		{"a stretch of it", &synmeshv1.QueryRequest{Filter: &synmeshv1.SeriesFilter{Source: mesh, Agents: "gone"},
			StartTime: timestamppb.New(begin.Add(90 * time.Second)), EndTime: timestamppb.New(begin.Add(150 * time.Second))}, "mesh:gone>nyc-1=1*14"},
		{"seconds of it", &synmeshv1.QueryRequest{Filter: &synmeshv1.SeriesFilter{Source: mesh, Agents: "gone"}, Step: durationpb.New(time.Second),
			StartTime: timestamppb.New(begin.Add(2 * time.Second)), EndTime: timestamppb.New(begin.Add(62 * time.Second))}, "mesh:gone>nyc-1=7*7"},
		{"flows", &synmeshv1.QueryRequest{Filter: &synmeshv1.SeriesFilter{Source: mesh, Agents: "gone"}, ByFlow: true}, "mesh:gone>nyc-1/61000=1*40 mesh:gone>nyc-1/61001=1*30"},
		{"one flow by itself", &synmeshv1.QueryRequest{Filter: &synmeshv1.SeriesFilter{Source: mesh, Agents: "gone", LocalPort: 61001}, ByFlow: true}, "mesh:gone>nyc-1/61001=1*30"},
		{"nobody", &synmeshv1.QueryRequest{Filter: &synmeshv1.SeriesFilter{Agents: "nobody"}}, ""},
		{"no time", &synmeshv1.QueryRequest{StartTime: from, EndTime: from}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, _ := b.query(t, tt.req); seriesNames(got) != tt.want {
				t.Errorf("got %s\nwant %s", seriesNames(got), tt.want)
			}
			for size := int32(1); size < 4; size++ {
				req := proto.CloneOf(tt.req)
				req.PageSize = size
				if got, pages := b.query(t, req); seriesNames(got) != tt.want || pages < len(got)/int(size) {
					t.Errorf("in %d pages of %d: got %s\nwant %s", pages, size, seriesNames(got), tt.want)
				}
			}
		})
	}
}

func TestAStepSaysWhatWasFound(t *testing.T) {
	b, begin := measured(t)
	got, _ := b.query(t, &synmeshv1.QueryRequest{Filter: &synmeshv1.SeriesFilter{Source: mesh, Agents: "gone"}, Quantiles: []float64{0, 0.5, 1}, Step: durationpb.New(time.Minute)})
	s := got[0].GetSteps()[1]
	ms := func(d *durationpb.Duration) float64 { return float64(d.AsDuration().Round(50*time.Microsecond)) / 1e6 }
	text := fmt.Sprint(s.GetStartTime().AsTime().Sub(begin), s.GetSent(), s.GetOpen(), s.GetClosed(), s.GetUnreachable(), s.GetTimeout(), s.GetError(), s.GetLoss(), s.GetTimed(),
		ms(s.GetMin()), ms(s.GetMean()), ms(s.GetMax()), ms(s.GetDelayVariation()), ms(s.GetQuantiles()[0]), ms(s.GetQuantiles()[1]), ms(s.GetQuantiles()[2]))
	// 1, 2, 3 and 9 ms of 6 that did not fail on our side
	if want := fmt.Sprint(time.Minute, 7, 3, 1, 1, 1, 1, 1.0/3, 4, 1.0, 3.75, 9.0, 8.0, 1.0, 2.0, 9.0); text != want {
		t.Errorf("got %s, want %s", text, want)
	}
	b.append(t, "failing", 1, found("nyc-1", -2))
	got, _ = b.query(t, &synmeshv1.QueryRequest{Filter: &synmeshv1.SeriesFilter{Agents: "failing"}, EndTime: timestamppb.New(time.Now().Add(time.Hour)), Quantiles: []float64{0.5}})
	if s := got[0].GetSteps()[0]; s.Loss != nil || s.Min != nil || s.Mean != nil || s.Max != nil || s.DelayVariation != nil || len(s.GetQuantiles()) != 0 || s.GetError() != 1 {
		t.Errorf("got %v", s)
	}
}

// A series whose steps are more than a message takes goes on in the next response.
func TestAQueryOfManyStepsHasSeveralPages(t *testing.T) {
	b := onDisk(t, history.Config{Dir: t.TempDir()})
	begin := time.Now().Add(-time.Hour).Truncate(time.Minute)
	const seconds = 3000
	for i, target := range []string{"v:1", "w:1", "x:1", "y:1", "z:1"} {
		var all []probe.Result
		for n := range seconds {
			all = append(all, apitest.Results(mesh, target, begin.Add(time.Duration(n)*time.Second), 1)...)
		}
		b.append(t, "fra-1", uint64(i+1), all)
	}
	got, pages := b.query(t, &synmeshv1.QueryRequest{StartTime: timestamppb.New(begin), Step: durationpb.New(time.Second),
		Quantiles: []float64{0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99}})
	steps := map[string]int{}
	last := time.Time{}
	for _, s := range got {
		for _, step := range s.GetSteps() {
			steps[s.GetTarget()]++
			if at := step.GetStartTime().AsTime(); !at.After(last) && steps[s.GetTarget()] > 1 {
				t.Fatalf("%v comes after %v", at, last)
			} else {
				last = at
			}
		}
	}
	if fmt.Sprint(steps) != "map[v:1:3000 w:1:3000 x:1:3000 y:1:3000 z:1:3000]" || pages < 2 {
		t.Errorf("got %v in %d pages", steps, pages)
	}
}

func TestQueriesThatAreTooLargeSayWhatToAskFor(t *testing.T) {
	b, begin := measured(t)
	for _, tt := range []struct {
		req  *synmeshv1.QueryRequest
		code codes.Code
		want string
	}{
		{&synmeshv1.QueryRequest{Step: durationpb.New(time.Millisecond)}, codes.InvalidArgument, "steps of 1ms; ask for 100000 at most"},
		{&synmeshv1.QueryRequest{PageToken: "x"}, codes.InvalidArgument, "use next_page_token as it came"},
		{&synmeshv1.QueryRequest{StartTime: timestamppb.New(begin), EndTime: timestamppb.New(begin.Add(-1))}, codes.InvalidArgument, "is after end_time"},
		{&synmeshv1.QueryRequest{Filter: &synmeshv1.SeriesFilter{Agents: "a,,b"}}, codes.InvalidArgument, "filter.agents: selector"},
	} {
		_, err := b.client.Query(t.Context(), tt.req)
		if s := status.Convert(err); s.Code() != tt.code || !strings.Contains(s.Message(), tt.want) {
			t.Errorf("%v: got %v, want %s", tt.req, err, tt.want)
		}
	}
}
