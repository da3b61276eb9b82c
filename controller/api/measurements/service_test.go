package measurements

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/synmesh/synmesh/controller/api/apitest"
	"github.com/synmesh/synmesh/controller/catalogue"
	"github.com/synmesh/synmesh/controller/fleet"
	"github.com/synmesh/synmesh/controller/plan"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func mesh(name string) *synmeshv1.Measurement {
	return &synmeshv1.Measurement{Name: name, Destination: &synmeshv1.Measurement_Mesh{Mesh: &synmeshv1.Mesh{}}}
}

// serve serves a catalogue of one measurement in the file, called "file", and
// those in the store, to a fleet of fra-1, nyc-1 and sin-1, of which the last is away.
func serve(t *testing.T, ms ...*synmeshv1.Measurement) (synmeshv1.MeasurementServiceClient, *apitest.Measurements) {
	t.Helper()
	store := apitest.NewMeasurements(ms...)
	c := catalogue.New([]*synmeshv1.Measurement{mesh("file")}, store)
	agents := []fleet.Agent{{Name: "fra-1", State: fleet.Connected}, {Name: "nyc-1", State: fleet.Connected}, {Name: "sin-1", State: fleet.Disconnected}}
	for i := range agents {
		agents[i].Responder = "10.0.0.1:7401"
	}
	planned := func() *plan.Plan {
		checked, err := c.Checked()
		if err != nil {
			t.Error(err)
		}
		return plan.Make(time.Now(), checked, agents)
	}
	f := fleet.New()
	for _, a := range agents {
		session := f.Connect(a, &synmeshv1.SessionResponse{})
		session.Heard(&synmeshv1.Heartbeat{Refused: []*synmeshv1.Refusal{{Source: "measurements/few", Reason: "policy"}}})
		if a.State != fleet.Connected {
			session.End("gone")
		}
	}
	conn := apitest.Dial(t, func(r grpc.ServiceRegistrar) { Register(r, Config{Catalogue: c, Plan: planned, Fleet: f}) })
	return synmeshv1.NewMeasurementServiceClient(conn), store
}

func TestApplyTellsWhatItDid(t *testing.T) {
	client, store := serve(t, mesh("a"), mesh("b"), mesh("c"))
	other := mesh("b")
	other.Flows = 2
	req := &synmeshv1.ApplyMeasurementsRequest{Measurements: []*synmeshv1.Measurement{mesh("d"), other, mesh("a")}, Prune: true, ValidateOnly: true}
	want := []*synmeshv1.MeasurementChange{
		{Name: "a", Action: synmeshv1.MeasurementAction_MEASUREMENT_ACTION_UNCHANGED, Before: mesh("a"), After: mesh("a")},
		{Name: "b", Action: synmeshv1.MeasurementAction_MEASUREMENT_ACTION_CHANGED, Before: mesh("b"), After: other},
		{Name: "c", Action: synmeshv1.MeasurementAction_MEASUREMENT_ACTION_REMOVED, Before: mesh("c")},
		{Name: "d", Action: synmeshv1.MeasurementAction_MEASUREMENT_ACTION_CREATED, After: mesh("d")},
	}
	for _, only := range []bool{true, false} {
		req.ValidateOnly = only
		resp, err := client.ApplyMeasurements(t.Context(), req)
		if d := cmp.Diff(want, resp.GetChanges(), protocmp.Transform()); err != nil || d != "" {
			t.Errorf("%v (-want +got):\n%s", err, d)
		}
		if _, revision, _ := store.Measurements(); (revision == 0) != only {
			t.Errorf("validate_only %v: the store was changed %d times", only, revision)
		}
	}
	resp, err := client.ListMeasurements(t.Context(), &synmeshv1.ListMeasurementsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range resp.GetMeasurements() {
		names = append(names, m.GetMeasurement().GetName())
	}
	if got := strings.Join(names, " "); got != "a b d file" {
		t.Errorf("there is %s", got)
	}
}

func TestGetTellsHowItIsCarriedOut(t *testing.T) {
	ended := mesh("ended")
	ended.ExpireTime = timestamppb.New(time.Unix(100, 0))
	few := mesh("few")
	few.Budget = 1
	client, _ := serve(t, ended, few)
	tests := []struct {
		name string
		want *synmeshv1.MeasurementStatus
	}{
		{"file", &synmeshv1.MeasurementStatus{ReadOnly: true, Agents: 2, Pairs: 4, PossiblePairs: 4, Rate: 4, MaxAgentRate: 2, MaxTargetRate: 2}},
		{"ended", &synmeshv1.MeasurementStatus{Expired: true}},
		{"few", &synmeshv1.MeasurementStatus{Agents: 2, Pairs: 2, PossiblePairs: 4, Rate: 2, MaxAgentRate: 1,
			RefusingAgents: 2, Refusals: []*synmeshv1.MeasurementRefusal{{Agent: "fra-1", Reason: "policy"}, {Agent: "nyc-1", Reason: "policy"}}}},
	}
	for _, tt := range tests {
		resp, err := client.GetMeasurement(t.Context(), &synmeshv1.GetMeasurementRequest{Name: tt.name})
		if err != nil {
			t.Fatal(err)
		}
		got := resp.GetMeasurement().GetStatus()
		if tt.name == "few" { // which one is up to the weights, and no more than twice
			if got.MaxTargetRate < 1 || got.MaxTargetRate > 2 {
				t.Errorf("one target gets %v probes a second", got.MaxTargetRate)
			}
			got.MaxTargetRate = 0
		}
		if d := cmp.Diff(tt.want, got, protocmp.Transform()); d != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, d)
		}
	}
}

func TestListMeasurementsInPages(t *testing.T) {
	var ms []*synmeshv1.Measurement
	for i := range 24 {
		ms = append(ms, mesh(fmt.Sprintf("m%02d", i)))
	}
	client, _ := serve(t, ms...)
	for size, want := range map[int32]int{0: 1, 1: 25, 5: 5, 7: 4, 24: 2, 25: 1} {
		seen, pages := make(map[string]bool), 0
		req := &synmeshv1.ListMeasurementsRequest{PageSize: size}
		for more := true; more; more = req.PageToken != "" {
			resp, err := client.ListMeasurements(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range resp.GetMeasurements() {
				seen[m.GetMeasurement().GetName()] = true
			}
			req.PageToken = resp.GetNextPageToken()
			pages++
		}
		if len(seen) != 25 || pages != want {
			t.Errorf("pages of %d: %d pages with %d measurements, want %d with 25", size, pages, len(seen), want)
		}
	}
}

func TestAPageIsNoLargerThanAMessageMayBe(t *testing.T) {
	long := make([]string, 10_000)
	for i := range long {
		long[i] = fmt.Sprintf("a-long-name-of-a-host-in-some-data-centre-%05d.example:443", i)
	}
	var ms []*synmeshv1.Measurement
	for i := range 12 {
		ms = append(ms, &synmeshv1.Measurement{Name: fmt.Sprint("m", i),
			Destination: &synmeshv1.Measurement_Targets{Targets: &synmeshv1.TargetList{Targets: long}}})
	}
	client, _ := serve(t, ms...)
	n := 0
	req := &synmeshv1.ListMeasurementsRequest{}
	for more := true; more; more = req.PageToken != "" {
		resp, err := client.ListMeasurements(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		n += len(resp.GetMeasurements())
		req.PageToken = resp.GetNextPageToken()
	}
	if n != 13 {
		t.Errorf("got %d measurements, want 13", n)
	}
}

func TestATimetableIsThatOfTheAgent(t *testing.T) {
	client, _ := serve(t)
	for _, name := range []string{"fra-1", "sin-1"} { // whether connected or not
		resp, err := client.GetTimetable(t.Context(), &synmeshv1.GetTimetableRequest{Agent: name})
		if es := resp.GetTimetable().GetEntries(); err != nil || len(es) != 1 || len(es[0].GetSpec().GetTargets()) != 2 {
			t.Errorf("%s: got %v and %v", name, resp, err)
		}
	}
}

func TestWhatIsWrongIsSaidWithItsCode(t *testing.T) {
	client, store := serve(t, mesh("a"))
	apply := func(ms ...*synmeshv1.Measurement) func() error {
		return func() error {
			_, err := client.ApplyMeasurements(t.Context(), &synmeshv1.ApplyMeasurementsRequest{Measurements: ms})
			return err
		}
	}
	wrong, fixed := mesh("b"), mesh("file")
	wrong.Sources, fixed.Flows = "==", 2
	tests := []struct {
		name string
		do   func() error
		code codes.Code
		says string
	}{
		{"a selector that is none", apply(wrong), codes.InvalidArgument, `measurement "b": selector "=="`},
		{"a measurement of the file", apply(fixed), codes.FailedPrecondition, "change it there"},
		{"deleting what is not there", func() error {
			_, err := client.DeleteMeasurements(t.Context(), &synmeshv1.DeleteMeasurementsRequest{Names: []string{"a", "x"}})
			return err
		}, codes.NotFound, `measurement "x": no such measurement; see probectl get measurements`},
		{"asking for what is not there", func() error {
			_, err := client.GetMeasurement(t.Context(), &synmeshv1.GetMeasurementRequest{Name: "x"})
			return err
		}, codes.NotFound, `measurement "x": no such measurement`},
		{"a timetable of nobody", func() error {
			_, err := client.GetTimetable(t.Context(), &synmeshv1.GetTimetableRequest{Agent: "x"})
			return err
		}, codes.NotFound, `agent "x": no such agent; see probectl get agents`},
		{"a store that fails", func() error {
			store.Err = errors.New("the disk is gone")
			_, err := client.DeleteMeasurements(t.Context(), &synmeshv1.DeleteMeasurementsRequest{Names: []string{"a"}})
			return err
		}, codes.Unavailable, "the disk is gone"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if s := status.Convert(tt.do()); s.Code() != tt.code || !strings.Contains(s.Message(), tt.says) || strings.Contains(s.Message(), "\n") {
				t.Errorf("got %v, want %v with %q", s, tt.code, tt.says)
			}
		})
	}
}
