package fleets

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/synmesh/synmesh/controller/api/apitest"
	"github.com/synmesh/synmesh/controller/fleet"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func serve(t *testing.T) (*fleet.Fleet, synmeshv1.FleetServiceClient) {
	t.Helper()
	f := fleet.New()
	return f, synmeshv1.NewFleetServiceClient(apitest.Dial(t, func(r grpc.ServiceRegistrar) { Register(r, f) }))
}

func connect(f *fleet.Fleet, a fleet.Agent) *fleet.Session {
	return f.Connect(a, &synmeshv1.SessionResponse{})
}

func TestListAgentsTellsWhatIsKnown(t *testing.T) {
	f, client := serve(t)
	f.Recall([]fleet.Agent{{Name: "old-1", Responder: "10.0.0.4:7401", LastSeen: time.Now()}})
	s := connect(f, fleet.Agent{Name: "fra-1", Labels: map[string]string{"dc": "fra"}, Version: "v1", Responder: "10.0.0.1:7401", Stamping: "tap"})
	s.Heard(&synmeshv1.Heartbeat{Dropped: 3, Backlog: 4})
	connect(f, fleet.Agent{Name: "nyc-1"}).End("gone")
	f.SetGossiped([]fleet.Agent{{Name: "sin-1", Responder: "10.0.0.3:7401"}})
	resp, err := client.ListAgents(t.Context(), &synmeshv1.ListAgentsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var states []synmeshv1.AgentState
	for _, a := range resp.GetAgents() {
		states = append(states, a.GetState())
	}
	if want := []synmeshv1.AgentState{synmeshv1.AgentState_AGENT_STATE_CONNECTED, synmeshv1.AgentState_AGENT_STATE_DISCONNECTED,
		synmeshv1.AgentState_AGENT_STATE_DISCONNECTED, synmeshv1.AgentState_AGENT_STATE_GOSSIPED}; !slices.Equal(states, want) {
		t.Fatalf("got the states %v, want %v", states, want)
	}
	fra, old, sin := resp.GetAgents()[0], resp.GetAgents()[2], resp.GetAgents()[3]
	if fra.GetName() != "fra-1" || fra.GetLabels()["dc"] != "fra" || fra.GetVersion() != "v1" || fra.GetResponder() != "10.0.0.1:7401" ||
		fra.GetStamping() != "tap" || fra.GetDropped() != 3 || fra.GetBacklog() != 4 || fra.GetConnectTime() == nil || fra.GetLastSeenTime() == nil {
		t.Errorf("got %v", fra)
	}
	if old.GetConnectTime() != nil || old.GetLastSeenTime() == nil || old.GetResponder() != "10.0.0.4:7401" {
		t.Errorf("of one that was there before a restart it tells %v", old)
	}
	if sin.GetConnectTime() != nil || sin.GetLastSeenTime() != nil || sin.GetResponder() != "10.0.0.3:7401" {
		t.Errorf("gossip told more than it could: %v", sin)
	}
}

func TestListAgentsInPages(t *testing.T) {
	f, client := serve(t)
	var all []string
	for i := range 25 {
		name := fmt.Sprintf("fra-%02d", i)
		connect(f, fleet.Agent{Name: name, Labels: map[string]string{"odd": fmt.Sprint(i % 2)}})
		all = append(all, name)
	}
	tests := []struct {
		name, selector string
		size           int32
		want           []string
		pages          int
	}{
		{"all at once by default", "", 0, all, 1},
		{"in pages that divide evenly", "", 5, all, 5},
		{"in pages that do not", "", 7, all, 4},
		{"one by one", "", 1, all, 25},
		{"of those that match", "odd=1", 5, everyOther(all[1:]), 3},
		{"of those that match, if that is nobody", "odd=2", 5, nil, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			req, pages := &synmeshv1.ListAgentsRequest{Selector: tt.selector, PageSize: tt.size}, 0
			for more := true; more; more = req.PageToken != "" {
				resp, err := client.ListAgents(t.Context(), req)
				if err != nil {
					t.Fatal(err)
				}
				for _, a := range resp.GetAgents() {
					got = append(got, a.GetName())
				}
				req.PageToken = resp.GetNextPageToken()
				pages++
			}
			if !slices.Equal(got, tt.want) || pages != tt.pages {
				t.Errorf("got %d pages with %q, want %d with %q", pages, got, tt.pages, tt.want)
			}
		})
	}
}

func everyOther(all []string) (some []string) {
	for i := 0; i < len(all); i += 2 {
		some = append(some, all[i])
	}
	return some
}

// Nobody is told of twice or left out because others come and go meanwhile.
func TestAPageGoesOnBehindTheLastNameThoughThatAgentHasLeft(t *testing.T) {
	f, client := serve(t)
	f.SetGossiped([]fleet.Agent{{Name: "a"}, {Name: "b"}, {Name: "c"}, {Name: "d"}})
	resp, err := client.ListAgents(t.Context(), &synmeshv1.ListAgentsRequest{PageSize: 2})
	if err != nil {
		t.Fatal(err)
	}
	f.SetGossiped([]fleet.Agent{{Name: "a"}, {Name: "aa"}, {Name: "c"}, {Name: "d"}})
	resp, err = client.ListAgents(t.Context(), &synmeshv1.ListAgentsRequest{PageSize: 2, PageToken: resp.GetNextPageToken()})
	if err != nil {
		t.Fatal(err)
	}
	if as := resp.GetAgents(); len(as) != 2 || as[0].GetName() != "c" || as[1].GetName() != "d" || resp.GetNextPageToken() != "" {
		t.Errorf("got %v, want c and d", resp)
	}
}

func TestABadSelectorIsRefusedWithItsPlace(t *testing.T) {
	_, client := serve(t)
	_, err := client.ListAgents(t.Context(), &synmeshv1.ListAgentsRequest{Selector: "dc="})
	if s := status.Convert(err); s.Code() != codes.InvalidArgument || !strings.Contains(s.Message(), "at 4: a value is missing") {
		t.Errorf("got %v", err)
	}
}
