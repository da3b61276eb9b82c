package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/synmesh/synmesh/controller/api/apitest"
	"github.com/synmesh/synmesh/controller/catalogue"
	"github.com/synmesh/synmesh/controller/feed"
	"github.com/synmesh/synmesh/controller/fleet"
	"github.com/synmesh/synmesh/controller/history"
	"github.com/synmesh/synmesh/controller/plan"
	"github.com/synmesh/synmesh/internal/gossip"
	"github.com/synmesh/synmesh/internal/identity"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench is the whole server, in a bubble of synctest.
type bench struct {
	*testing.T
	fleet   *fleet.Fleet
	history *apitest.History
	members *apitest.Members
	pipe    *bufconn.Listener
	conn    *grpc.ClientConn // an admin's
	log     strings.Builder  // to be read when all is at rest
	stop    func()
	rotated chan struct{} // closed when there are other keys for the gossip
}

func bubble(t *testing.T, f func(*bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{T: t, fleet: fleet.New(), history: &apitest.History{}, rotated: make(chan struct{})}
		b.serve(b.history)
		f(b)
	})
}

func (b *bench) serve(h History) {
	b.Helper()
	b.members = apitest.NewMembers(b)
	s, err := New(b.config(h))
	if err != nil {
		b.Fatal(err)
	}
	b.pipe = bufconn.Listen(64 << 10)
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx, b.pipe) }()
	b.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ran; err != nil {
			b.Errorf("Run: %v", err)
		}
	})
	b.Cleanup(b.stop)
	b.conn = b.as(b.members.User(identity.Admin, 0))
}

func (b *bench) config(h History) Config {
	return Config{
		Fleet: b.fleet, Feed: feed.New(), History: h, Logger: slog.New(slog.NewTextHandler(&b.log, nil)),
		Catalogue: catalogue.New(nil, b.members.Registry), Plan: func() *plan.Plan { return &plan.Plan{} },
		Identity: b.members.Self, Registry: b.members.Registry, Roots: b.members.CA.Roots(),
		Files: func() (map[string][]byte, error) { return map[string][]byte{"gossip.json": []byte("{}")}, nil },
		Sign: func(p gossip.Peer) (gossip.Announcement, error) {
			return gossip.Announce(p, b.members.CA.Fleet(), time.Now().Add(time.Hour), b.members.CA.Announcer())
		},
		Follow: func(ctx context.Context, _, version string) (string, map[string][]byte, error) {
			if version == "" {
				return "1", nil, nil
			}
			<-b.rotated
			return "2", map[string][]byte{"gossip.json": []byte("a secret")}, nil
		},
		Keys: keys{}, Backup: func(_ context.Context, _ identity.Identity, w io.Writer) error {
			_, err := w.Write(make([]byte, 1<<20))
			return err
		},
	}
}

// keys are those of a gossip that there is not.
type keys struct{}

// Change implements identities.Keys.
func (keys) Change(identity.Identity, string) (func(context.Context) (int, error), error) {
	return func(context.Context) (int, error) { return 0, nil }, nil
}

// as returns a connection of somebody.
func (b *bench) as(who *identity.Credentials) *grpc.ClientConn {
	b.Helper()
	return apitest.Connect(b, b.pipe, identity.ClientCredentials(identity.Fixed(who)))
}

// agent enrols an agent and returns its connection.
func (b *bench) agent(name string) *grpc.ClientConn {
	b.Helper()
	return b.as(b.members.Agent(name))
}

func (b *bench) join(name string) *apitest.Agent {
	b.Helper()
	a, _ := apitest.Join(b, b.agent(name), &synmeshv1.Hello{Name: name, Labels: map[string]string{"dc": name[:3]}, Epoch: 5, Responder: "10.0.0.1:7401"})
	return a
}

func wantStatus(t testing.TB, err error, code codes.Code, words string) {
	t.Helper()
	if s := status.Convert(err); s.Code() != code || !strings.Contains(s.Message(), words) {
		t.Errorf("got %v, want %v with %q", err, code, words)
	}
}

func spec(count int64, targets ...string) *synmeshv1.ProbeSpec {
	s := &synmeshv1.ProbeSpec{Count: count, Interval: durationpb.New(time.Second), Timeout: durationpb.New(time.Second), Flows: 1}
	for _, t := range targets {
		s.Targets = append(s.Targets, &synmeshv1.Target{Name: t})
	}
	return s
}

func TestRequestsAreHeldToTheRulesOfTheProtoFiles(t *testing.T) {
	session := func(first *synmeshv1.SessionRequest, more ...*synmeshv1.SessionRequest) func(context.Context, *bench) error {
		return func(ctx context.Context, b *bench) error {
			stream, err := synmeshv1.NewAgentServiceClient(b.agent("fra-1")).Session(ctx)
			if err != nil {
				return err
			}
			for _, m := range append([]*synmeshv1.SessionRequest{first}, more...) {
				if err := stream.Send(m); err != nil {
					break // Recv has the reason
				}
			}
			for {
				if _, err := stream.Recv(); err != nil {
					return err
				}
			}
		}
	}
	hello := func(h *synmeshv1.Hello) *synmeshv1.SessionRequest {
		return &synmeshv1.SessionRequest{Message: &synmeshv1.SessionRequest_Hello{Hello: h}}
	}
	labels := make(map[string]string)
	for i := range 33 {
		labels[fmt.Sprint("l", i)] = "x"
	}
	run := func(req *synmeshv1.RunRequest) func(context.Context, *bench) error {
		return func(ctx context.Context, b *bench) error {
			stream, err := synmeshv1.NewRunServiceClient(b.conn).Run(ctx, req)
			if err == nil {
				_, err = stream.Recv()
			}
			return err
		}
	}
	list := func(req *synmeshv1.ListResultsRequest) func(context.Context, *bench) error {
		return func(ctx context.Context, b *bench) error {
			_, err := synmeshv1.NewResultServiceClient(b.conn).ListResults(ctx, req)
			return err
		}
	}
	matrix := func(req *synmeshv1.MatrixRequest) func(context.Context, *bench) error {
		return func(ctx context.Context, b *bench) error {
			_, err := synmeshv1.NewResultServiceClient(b.conn).Matrix(ctx, req)
			return err
		}
	}
	token := func(agent string, ttl time.Duration) func(context.Context, *bench) error {
		return func(ctx context.Context, b *bench) error {
			_, err := synmeshv1.NewIdentityServiceClient(b.conn).CreateToken(ctx, &synmeshv1.CreateTokenRequest{Agent: agent, Ttl: durationpb.New(ttl)})
			return err
		}
	}
	user := func(name string, role synmeshv1.Role, ttl time.Duration) func(context.Context, *bench) error {
		return func(ctx context.Context, b *bench) error {
			_, err := synmeshv1.NewIdentityServiceClient(b.conn).CreateUser(ctx, &synmeshv1.CreateUserRequest{
				Name: name, Role: role, Ttl: durationpb.New(ttl), CertificateRequest: []byte("x")})
			return err
		}
	}
	const viewer, year = synmeshv1.Role_ROLE_VIEWER, 365 * 24 * time.Hour
	tests := []struct {
		name  string
		call  func(context.Context, *bench) error
		words string
	}{
		{"an agent with a bad name", session(hello(&synmeshv1.Hello{Name: "fra 1"})), "hello.name"},
		{"an agent without a name", session(hello(&synmeshv1.Hello{})), "hello.name"},
		{"an agent with too many labels", session(hello(&synmeshv1.Hello{Name: "fra-1", Labels: labels})), "hello.labels"},
		{"an agent that says nothing at first", session(&synmeshv1.SessionRequest{}), "message: exactly one field is required"},
		{"a report without a number", session(hello(&synmeshv1.Hello{Name: "fra-1"}), &synmeshv1.SessionRequest{
			Message: &synmeshv1.SessionRequest_Report{Report: &synmeshv1.Report{}}}), "report.sequence"},
		{"a run without a spec", run(&synmeshv1.RunRequest{}), "spec"},
		{"a run without an interval", run(&synmeshv1.RunRequest{Spec: &synmeshv1.ProbeSpec{Timeout: durationpb.New(time.Second)}}), "spec.interval"},
		{"a run with a target that has no name", run(&synmeshv1.RunRequest{Spec: spec(1, "")}), "spec.targets[0].name"},
		{"a run with an endless selector", run(&synmeshv1.RunRequest{Spec: spec(1, "a:1"), Selector: strings.Repeat("a", 1001)}), "selector"},
		{"a page that is too large", list(&synmeshv1.ListResultsRequest{PageSize: 10_001}), "page_size"},
		{"a page of less than nothing", list(&synmeshv1.ListResultsRequest{PageSize: -1}), "page_size"},
		{"a matrix of nothing", matrix(&synmeshv1.MatrixRequest{GroupBy: "dc"}), "source"},
		{"a matrix by nothing", matrix(&synmeshv1.MatrixRequest{Source: "runs/a"}), "group_by"},
		{"a matrix of three years", matrix(&synmeshv1.MatrixRequest{Source: "runs/a", GroupBy: "dc", Window: durationpb.New(3 * 365 * 24 * time.Hour)}), "window"},
		{"a matrix of no time", matrix(&synmeshv1.MatrixRequest{Source: "runs/a", GroupBy: "dc", Window: durationpb.New(0)}), "window"},
		{"a page of agents that is too large", func(ctx context.Context, b *bench) error {
			_, err := synmeshv1.NewFleetServiceClient(b.conn).ListAgents(ctx, &synmeshv1.ListAgentsRequest{PageSize: 10_001})
			return err
		}, "page_size"},
		{"a token for a bad name", token("fra 1", time.Hour), "agent: "},
		{"a token of no time", token("fra-1", time.Second-1), "ttl: "},
		{"a token of more than a week", token("fra-1", 7*24*time.Hour+1), "ttl: "},
		{"a person with a bad name", user("ada/admin", viewer, time.Hour), "name: "},
		{"a person without a role", user("ada", synmeshv1.Role_ROLE_UNSPECIFIED, time.Hour), "role: "},
		{"a person with a role that there is not", user("ada", 9, time.Hour), "role: "},
		{"a person of less than a minute", user("ada", viewer, time.Minute-1), "ttl: "},
		{"a person of more than a year", user("ada", viewer, year+1), "ttl: "},
		{"a person of a year with a bad request", user("ada", viewer, year), "certificate request: "},
		{"a ban without a reason", func(ctx context.Context, b *bench) error {
			_, err := synmeshv1.NewIdentityServiceClient(b.conn).BanAgent(ctx, &synmeshv1.BanAgentRequest{Agent: "nyc-1"})
			return err
		}, "reason: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(b *bench) {
				b.join("nyc-1")
				err := tt.call(b.Context(), b)
				wantStatus(t, err, codes.InvalidArgument, tt.words)
				if strings.Contains(status.Convert(err).Message(), "\n") {
					t.Errorf("the message has several lines: %v", err)
				}
			})
		})
	}
}

func TestAMessageThatIsTooLargeEndsTheSession(t *testing.T) {
	bubble(t, func(b *bench) {
		a := b.join("fra-1")
		a.Report(apitest.Report(5, 1, apitest.Results("runs/"+strings.Repeat("a", maxMessage), "a:1", time.Now(), 1)))
		_, err := a.End()
		wantStatus(b, err, codes.ResourceExhausted, "larger than max")
	})
}

// A run goes from a client through the controller to scripted agents and back.
func TestARunFromEndToEnd(t *testing.T) {
	bubble(t, func(b *bench) {
		fra, nyc := b.join("fra-1"), b.join("nyc-1")
		stream, err := synmeshv1.NewRunServiceClient(b.conn).Run(b.Context(), &synmeshv1.RunRequest{Spec: spec(2, "db.fra:5432", "nyc-1")})
		if err != nil {
			b.Fatal(err)
		}
		asked := fra.Recv().GetStartRun()
		nyc.Recv()
		run := asked.GetRun()
		if ts := asked.GetSpec().GetTargets(); len(ts) != 2 || ts[1].GetAddress() != "10.0.0.1:7401" {
			b.Errorf("the agent was asked to probe %v", ts)
		}
		fra.Report(apitest.Report(5, 1, apitest.Results(run, "db.fra:5432", time.Now(), 2)))
		fra.Acknowledged()
		fra.Report(apitest.Report(5, 2, apitest.Results(run, "nyc-1", time.Now(), 1), &synmeshv1.RunEnd{Run: run, Produced: 4}))
		fra.Acknowledged()
		synctest.Wait()
		nyc.Leave()
		var got []string
		for {
			m, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				b.Fatal(err)
			}
			if e := m.GetAgentEnded(); e != nil {
				got = append(got, fmt.Sprintf("%s ended, %d missing %s", e.GetAgent(), e.GetMissing(), e.GetError()))
			}
			for _, r := range m.GetResults().GetResults() {
				got = append(got, r.GetAgent()+" "+r.GetTarget())
			}
		}
		want := []string{"fra-1 db.fra:5432", "fra-1 db.fra:5432", "fra-1 nyc-1", "fra-1 ended, 1 missing ",
			"nyc-1 ended, 0 missing it was lost: its session ended in the middle of the run"}
		if !slices.Equal(got, want) {
			b.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		time.Sleep(time.Second) // until now is after them
		list, err := synmeshv1.NewResultServiceClient(b.conn).ListResults(b.Context(), &synmeshv1.ListResultsRequest{Source: run})
		if err != nil || len(list.GetResults()) != 3 {
			b.Errorf("%d results are stored, want 3; %v", len(list.GetResults()), err)
		}
	})
}

func TestAClientThatGoesAwayHasTheAgentsStop(t *testing.T) {
	bubble(t, func(b *bench) {
		fra := b.join("fra-1")
		ctx, cancel := context.WithCancel(b.Context())
		if _, err := synmeshv1.NewRunServiceClient(b.conn).Run(ctx, &synmeshv1.RunRequest{Spec: spec(0, "a:1")}); err != nil {
			b.Fatal(err)
		}
		run := fra.Recv().GetStartRun().GetRun()
		cancel()
		if got := fra.Recv().GetCancelRun().GetRun(); got != run || run == "" {
			b.Errorf("the agent is to cancel %q, want %q", got, run)
		}
	})
}

// broken is a history that makes the controller panic.
type broken struct{ *apitest.History }

func (broken) ScanSeries(context.Context, history.Filter, time.Time, time.Time, history.Cursor) iter.Seq2[history.Entry, error] {
	panic("a secret")
}

func (broken) Sequence(string, uint64) (uint64, error) { panic("a secret") }

func TestARequestThatPanicsTakesNothingElseAlong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{T: t, fleet: fleet.New()}
		b.serve(broken{&apitest.History{}})
		_, err := synmeshv1.NewResultServiceClient(b.conn).ListResults(t.Context(), &synmeshv1.ListResultsRequest{})
		wantStatus(t, err, codes.Internal, "the controller failed on this request; its log says where")
		a := apitest.Open(t, b.agent("fra-1"))
		a.Hello(&synmeshv1.Hello{Name: "fra-1"})
		_, err = a.End()
		wantStatus(t, err, codes.Internal, "the controller failed on this request; its log says where")
		if _, err := synmeshv1.NewFleetServiceClient(b.conn).ListAgents(t.Context(), &synmeshv1.ListAgentsRequest{}); err != nil {
			t.Errorf("the next request fails: %v", err)
		}
		synctest.Wait()
		if log := b.log.String(); strings.Count(log, "a secret") < 2 || !strings.Contains(log, "server_test.go") {
			t.Errorf("the log does not say what happened and where:\n%s", log)
		}
	})
}

func TestHealthAndReflectionAreServed(t *testing.T) {
	bubble(t, func(b *bench) {
		health := grpc_health_v1.NewHealthClient(b.conn)
		resp, err := health.Check(b.Context(), &grpc_health_v1.HealthCheckRequest{})
		if err != nil || resp.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
			b.Errorf("health: got %v, %v", resp.GetStatus(), err)
		}
		watch, err := health.Watch(b.Context(), &grpc_health_v1.HealthCheckRequest{})
		if err != nil {
			b.Fatal(err)
		}
		var seen []string
		watched := make(chan struct{})
		go func() {
			defer close(watched)
			for {
				m, err := watch.Recv()
				if err != nil {
					return
				}
				seen = append(seen, m.GetStatus().String())
			}
		}()

		info, err := grpc_reflection_v1.NewServerReflectionClient(b.conn).ServerReflectionInfo(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		if err := info.Send(&grpc_reflection_v1.ServerReflectionRequest{
			MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{}}); err != nil {
			b.Fatal(err)
		}
		m, err := info.Recv()
		if err != nil {
			b.Fatal(err)
		}
		services := make(map[string]bool)
		for _, s := range m.GetListServicesResponse().GetService() {
			services[s.GetName()] = true
		}
		for _, s := range []string{"AgentService", "EnrolmentService", "IdentityService", "MeasurementService", "RunService", "ResultService", "FleetService"} {
			if !services["synmesh.v1."+s] {
				b.Errorf("reflection does not tell of %s", s)
			}
		}
		if err := info.CloseSend(); err != nil {
			b.Fatal(err)
		}
		synctest.Wait() // until the watch has begun
		b.stop()
		<-watched
		if !slices.Equal(seen, []string{"SERVING", "NOT_SERVING"}) {
			b.Errorf("who watched the health saw %q", seen)
		}
	})
}

func TestRunEndsWithAllThatGoesOn(t *testing.T) {
	tests := []struct {
		name   string
		before func(*bench) (after func())
		within time.Duration
	}{
		{"at once, if nothing does", func(*bench) func() { return func() {} }, 0},
		{"after two seconds, with agents that do not leave by themselves and are told why", func(b *bench) func() {
			a := b.join("fra-1")
			return func() {
				_, err := a.End()
				wantStatus(b, err, codes.Unavailable, "the controller is stopping; connect again later")
			}
		}, 2 * time.Second},
		{"so too with runs whose agents are lost", func(b *bench) func() {
			a := b.join("fra-1")
			stream, err := synmeshv1.NewRunServiceClient(b.conn).Run(b.Context(), &synmeshv1.RunRequest{Spec: spec(0, "a:1")})
			if err != nil {
				b.Fatal(err)
			}
			a.Recv()
			return func() {
				for want := range slices.Values([]string{"", "it was lost"}) {
					m, err := stream.Recv()
					if err != nil || !strings.Contains(m.GetAgentEnded().GetError(), want) {
						b.Errorf("the run sees %v, %v", m, err)
					}
				}
				if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
					b.Errorf("the run ends with %v", err)
				}
			}
		}, 2 * time.Second},
		{"after three seconds, with those that do not end", func(b *bench) func() {
			a := apitest.Open(b, b.agent("fra-1")) // and no hello
			synctest.Wait()
			return func() {
				if _, err := a.End(); err == nil {
					b.Error("the stream goes on")
				}
			}
		}, stopWithin},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(b *bench) {
				after := tt.before(b)
				began := time.Now()
				b.stop()
				if took := time.Since(began); took > tt.within {
					t.Errorf("it took %v to stop, want %v", took, tt.within)
				}
				after()
			})
		})
	}
}

func TestRunSaysWhyItCannotServe(t *testing.T) {
	b := &bench{T: t, fleet: fleet.New(), members: apitest.NewMembers(t)}
	s, err := New(b.config(&apitest.History{}))
	if err != nil {
		t.Fatal(err)
	}
	pipe := bufconn.Listen(1)
	if err := pipe.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context(), pipe); err == nil {
		t.Error("a listener that is closed was served")
	}
}
