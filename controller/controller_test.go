package controller

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/synmesh/synmesh/controller/api/apitest"
	"github.com/synmesh/synmesh/internal/gossip"
	"github.com/synmesh/synmesh/internal/identity"
	"github.com/synmesh/synmesh/internal/identity/contexts"
	"github.com/synmesh/synmesh/internal/measurement"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// What memberlist asks of a member that has gone ends with the time for it, 5 s.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"))
}

// patience is how long anything may take.
const patience = 10 * time.Second

var loopback = netip.MustParseAddr("127.0.0.1")

func config(dir string) Config {
	return Config{
		Name: "controller-1", DataDir: dir, Listen: "127.0.0.1:0", Advertise: loopback,
		Gossip: gossip.Config{Listen: netip.AddrPortFrom(loopback, 0)},
	}
}

// running is a controller and a connection to it.
type running struct {
	*Controller
	admin  *identity.Credentials
	agents map[string]*identity.Credentials
	conn   *grpc.ClientConn // the admin's
	stop   func()           // once
}

// start runs a controller until the test ends or stop is called.
func start(t *testing.T, cfg Config) *running {
	t.Helper()
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- c.Run(ctx) }()
	r := &running{Controller: c, agents: make(map[string]*identity.Credentials)}
	r.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ran:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			t.Error("the controller does not end")
		}
	})
	t.Cleanup(r.stop)
	saved, err := contexts.Read(filepath.Join(cfg.DataDir, "operator.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if r.admin, err = saved.Credentials(); err != nil {
		t.Fatal(err)
	}
	r.conn = apitest.DialAs(t, c.Addr().String(), r.admin)
	return r
}

func (r *running) join(t *testing.T, name string) (*apitest.Agent, uint64) {
	t.Helper()
	if r.agents[name] == nil {
		r.agents[name] = apitest.Enrol(t, r.Addr().String(), r.admin, name)
	}
	return apitest.Join(t, apitest.DialAs(t, r.Addr().String(), r.agents[name]), &synmeshv1.Hello{Name: name, Labels: map[string]string{"dc": name[:3]}, Epoch: 5, Responder: "10.0.0.1:7401"})
}

// list returns the results stored of a source.
func (r *running) list(t *testing.T, source string) int {
	t.Helper()
	resp, err := synmeshv1.NewResultServiceClient(r.conn).ListResults(t.Context(), &synmeshv1.ListResultsRequest{Source: source})
	if err != nil {
		t.Fatal(err)
	}
	return len(resp.GetResults())
}

func TestNewSaysWhatIsWrongWithAConfiguration(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	tests := []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"files of an own PKI that are not there", func(c *Config) { c.TLS.Certificate = "/nowhere/tls.crt" }, "/nowhere/tls.crt: no such file"},
		{"nowhere to keep the data", func(c *Config) { c.DataDir = "" }, "name one with --data"},
		{"a port that is taken", func(c *Config) { c.Listen = taken.Addr().String() }, taken.Addr().String() + ": bind: address already in use"},
		{"a name that cannot be told", func(c *Config) { c.Name = "controller 1" }, "' ' is not allowed"},
		{"a seed that is no address", func(c *Config) { c.Gossip.Seeds = []string{"seed"} }, "seed"},
		{"a retention of less than nothing", func(c *Config) { c.History.Retention = -time.Hour }, "it cannot be negative"},
		{"a folder that is a file", func(c *Config) { c.DataDir = "/dev/null" }, "/dev/null"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := config(t.TempDir())
			tt.change(&cfg)
			_, err := New(cfg)
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want one line with %q", err, tt.want)
			}
		})
	}
}

func TestOneFolderIsOneControllers(t *testing.T) {
	t.Parallel() // it waits for a lock
	dir := t.TempDir()
	start(t, config(dir))
	cfg := config(dir)
	if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("got %v, want that %s is in use", err, dir)
	}
}

func TestRunSaysWhenItCannotGossip(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	cfg := config(t.TempDir())
	cfg.Gossip.Listen = taken.Addr().(*net.TCPAddr).AddrPort()
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "gossip") || !strings.Contains(err.Error(), taken.Addr().String()) {
		t.Errorf("got %v, want that gossip's %v is taken", err, taken.Addr())
	}
}

// What is acknowledged is there after a restart, and is not taken in again.
func TestWhatIsStoredOutlivesTheController(t *testing.T) {
	dir := t.TempDir()
	c := start(t, config(dir))
	a, sequence := c.join(t, "fra-1")
	if sequence != 0 {
		t.Errorf("the first welcome says %d", sequence)
	}
	if a.Recv().GetTimetable() == nil {
		t.Error("no timetable has come")
	}
	for n := range uint64(3) {
		a.Report(apitest.Report(5, n+1, apitest.Results("runs/a", "db.fra:5432", time.Now(), 10)))
		if got := a.Acknowledged(); got != n+1 {
			t.Errorf("report %d is acknowledged, want %d", got, n+1)
		}
	}
	c.stop()
	if _, err := a.End(); err == nil {
		t.Error("the session has not ended")
	}

	before := c.agents
	c = start(t, config(dir))
	c.agents = before
	if a, sequence = c.join(t, "fra-1"); sequence != 3 {
		t.Errorf("the welcome after the restart says %d, want 3", sequence)
	}
	if a.Recv().GetTimetable() == nil {
		t.Error("no timetable has come")
	}
	for _, n := range []uint64{3, 4} {
		a.Report(apitest.Report(5, n, apitest.Results("runs/a", "db.fra:5432", time.Now(), 10)))
		a.Acknowledged()
	}
	if n := c.list(t, "runs/a"); n != 40 {
		t.Errorf("%d results are stored, want 40", n)
	}
}

func TestMeasurementsReachTheAgents(t *testing.T) {
	ms, err := measurement.Read([]byte(`measurements:
- name: mesh
  mesh: {}
- name: web
  sources: dc in (fra,nyc),!canary
  targets: {targets: ["db.fra:5432", "10.0.0.2:22,80"]}
- name: some
  mesh: {selector: dc=fra}
`))
	if err != nil {
		t.Fatal(err)
	}
	cfg := config(t.TempDir())
	cfg.Measurements = ms
	c := start(t, cfg)
	a, _ := c.join(t, "fra-1")
	c.join(t, "nyc-1")
	for {
		sources := make(map[string]int)
		m := a.Recv()
		for _, e := range m.GetTimetable().GetEntries() {
			sources[e.GetSource()] = len(e.GetSpec().GetTargets())
		}
		if sources[measurement.Prefix+"mesh"] == 0 { // planned before the other came
			continue
		}
		if len(sources) != 2 || sources[measurement.Prefix+"mesh"] != 1 || sources[measurement.Prefix+"web"] != 3 {
			t.Errorf("fra-1 is to do %v", sources)
		}
		return
	}
}

// What is applied reaches the agents, and is there after a restart.
func TestStoredMeasurementsOutliveTheController(t *testing.T) {
	dir := t.TempDir()
	c := start(t, config(dir))
	a, _ := c.join(t, "fra-1")
	given := &synmeshv1.Measurement{Name: "web", Destination: &synmeshv1.Measurement_Targets{Targets: &synmeshv1.TargetList{Targets: []string{"db.fra:5432"}}}}
	request := &synmeshv1.ApplyMeasurementsRequest{Measurements: []*synmeshv1.Measurement{given}}
	if _, err := synmeshv1.NewMeasurementServiceClient(c.conn).ApplyMeasurements(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	told := func(a *apitest.Agent) {
		for {
			if es := a.Recv().GetTimetable().GetEntries(); len(es) == 1 && es[0].GetSource() == measurement.Prefix+"web" {
				return
			}
		}
	}
	told(a)
	c.stop()
	c = start(t, config(dir))
	a, _ = c.join(t, "fra-1")
	told(a)
}

func TestWhomGossipTellsOfIsShown(t *testing.T) {
	t.Parallel() // taking leave takes two seconds
	c := start(t, config(t.TempDir()))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	at, err := c.gossip.Addr(ctx)
	if err != nil {
		t.Fatal(err)
	}
	self := gossip.Peer{Name: "sin-1", Role: gossip.Agent, Labels: map[string]string{"dc": "sin"}, Responder: "10.0.0.3:7401"}
	enrolments := synmeshv1.NewEnrolmentServiceClient(apitest.DialAs(t, c.Addr().String(), apitest.Enrol(t, c.Addr().String(), c.admin, "sin-1")))
	keys, err := enrolments.Announce(ctx, &synmeshv1.AnnounceRequest{})
	if err != nil {
		t.Fatal(err)
	}
	secrets, err := gossip.DecodeSecrets(keys.GetFiles()[gossip.SecretsFile])
	if err != nil {
		t.Fatal(err)
	}
	g, err := gossip.New(gossip.Config{
		Self: self, Keys: secrets.Keys, Trusted: secrets.Trusted, Fleet: c.trust.self.Fleet,
		Listen: netip.AddrPortFrom(loopback, 0), Seeds: []string{at.String()}, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ran := make(chan error, 1)
	go func() { ran <- g.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ran; err != nil {
			t.Errorf("gossip: %v", err)
		}
	})
	mine, err := g.Addr(ctx)
	if err != nil {
		t.Fatal(err)
	}
	told, err := enrolments.Announce(ctx, &synmeshv1.AnnounceRequest{Gossip: mine.String(), Responder: self.Responder, Labels: self.Labels})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.SetAnnouncement(told.GetAnnouncement()); err != nil {
		t.Fatal(err)
	}
	peers, err := g.Wait(ctx, func(ps []gossip.Peer) bool { return len(ps) == 1 })
	if err != nil {
		t.Fatal(err)
	}
	if p := peers[0]; p.Role != gossip.Controller || p.Name != "controller-1" || p.GRPC != c.Addr().String() {
		t.Errorf("gossip tells of %+v; the controller listens on %v", p, c.Addr())
	}
	client := synmeshv1.NewFleetServiceClient(c.conn)
	for {
		resp, err := client.ListAgents(ctx, &synmeshv1.ListAgentsRequest{Selector: "dc=sin"})
		if err != nil {
			t.Fatal(err)
		}
		if as := resp.GetAgents(); len(as) == 1 {
			if as[0].GetState() != synmeshv1.AgentState_AGENT_STATE_GOSSIPED || as[0].GetResponder() != "10.0.0.3:7401" {
				t.Errorf("got %v", as[0])
			}
			return
		}
		select { // the controller may learn of it a moment later
		case <-c.gossip.Changed():
		case <-time.After(10 * time.Millisecond):
		}
	}
}
