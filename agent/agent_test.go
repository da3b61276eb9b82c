//go:build linux

package agent

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/synmesh/synmesh/controller/api/apitest"
	"github.com/synmesh/synmesh/controller/api/enrolments"
	"github.com/synmesh/synmesh/internal/convert"
	"github.com/synmesh/synmesh/internal/gossip"
	"github.com/synmesh/synmesh/internal/identity"
	"github.com/synmesh/synmesh/internal/lab"
	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/probe/engine"
	"github.com/synmesh/synmesh/probe/rawsock"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// The agents of these tests open raw sockets; what they send stays on the
// loopback interface.
func TestMain(m *testing.M) {
	err := lab.Enter()
	if err == nil {
		err = loopbackUp()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// loopbackUp is for namespaces that somebody else has made, as unshare does.
func loopbackUp() error {
	lo, err := netlink.LinkByName("lo")
	if err == nil && lo.Attrs().Flags&net.FlagUp == 0 {
		err = netlink.LinkSetUp(lo)
	}
	return err
}

// patience is how long anything may take.
const patience = 10 * time.Second

// config is that of fra-1, a member of the fleet.
func config(t *testing.T, m *apitest.Members) Config {
	t.Helper()
	dir := t.TempDir()
	if m != nil {
		enrol(t, m, dir)
	}
	return Config{
		StateDir: dir, Spread: 100 * time.Millisecond,
		Labels: map[string]string{"dc": "fra"}, Version: "v1", Controllers: []string{"127.0.0.1:1"},
		Responder: "127.0.0.1:0",
	}
}

// enrol puts a certificate of fra-1 into a state folder.
func enrol(t *testing.T, m *apitest.Members, dir string) {
	t.Helper()
	admin := identity.Identity{Fleet: m.CA.Fleet(), Kind: identity.User, Role: identity.Admin, Name: "alice"}
	token, _, err := m.CreateToken(admin, "fra-1", 0)
	if err != nil {
		t.Fatal(err)
	}
	f, err := identity.OpenFolder(identityFolder(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	key, err := f.Pending()
	if err != nil {
		t.Fatal(err)
	}
	e, err := m.Enrol(token.Hash(), "", &key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	files, err := files(m)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Accept(identity.Issued{Generation: e.Generation, Chain: e.Chain, Roots: m.CA.Roots(), Files: files}); err != nil {
		t.Fatal(err)
	}
}

// gossipKey is what the fleet of these tests gossips with.
var gossipKey = []byte("0123456789abcdef0123456789abcdef")

func files(m *apitest.Members) (map[string][]byte, error) {
	s := gossip.Secrets{Keys: gossip.Keys{Primary: gossipKey}, Trusted: []ed25519.PublicKey{m.CA.Announcer().Public().(ed25519.PublicKey)}}
	text, err := s.Encode()
	return map[string][]byte{gossip.SecretsFile: text}, err
}

func sign(m *apitest.Members, p gossip.Peer) (gossip.Announcement, error) {
	return gossip.Announce(p, m.CA.Fleet(), time.Now().Add(time.Hour), m.CA.Announcer())
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
		{"no certificate", func(c *Config) { c.StateDir = t.TempDir() }, "holds no certificate: make a token with `probectl token create --agent NAME`, and give it to `probe-agent enroll`"},
		{"files of an own PKI that are not there", func(c *Config) { c.TLS.Certificate = "/nowhere/tls.crt" }, "/nowhere/tls.crt: no such file"},
		{"nowhere to keep results", func(c *Config) { c.StateDir = "" }, "name one with --state"},
		{"a folder that is a file", func(c *Config) { c.StateDir = "/dev/null" }, "/dev/null: not a directory"},
		{"a label that stands for the name", func(c *Config) { c.Labels = map[string]string{"name": "x"} }, "stands for the agent's name"},
		{"nobody to talk to", func(c *Config) { c.Controllers = nil }, "name one with --controller or --join"},
		{"a controller that is no address", func(c *Config) { c.Controllers = []string{"127.0.0.1"} }, "127.0.0.1: missing port"},
		{"a responder's port that is taken", func(c *Config) { c.Responder = taken.Addr().String() }, taken.Addr().String() + ": bind: address already in use"},
		{"a seed that is no address", func(c *Config) {
			c.Gossip.Seeds, c.Advertise = []string{"seed"}, netip.MustParseAddr("127.0.0.1")
		}, `seed`},
		{"no source ports", func(c *Config) { c.Engine.Ports = rawsock.PortRange{First: 2, Last: 1} }, "port range 2-1 is empty"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := config(t, apitest.NewMembers(t))
			tt.change(&cfg)
			_, err := New(cfg)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want it to say %q", err, tt.want)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("the message has several lines: %q", err)
			}
		})
	}
}

func TestNewGivesThePortBackWhenItFails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := config(t, apitest.NewMembers(t))
	cfg.Responder = l.Addr().String()
	cfg.Engine.Ports = rawsock.PortRange{First: 2, Last: 1}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := New(cfg); err == nil {
		t.Fatal("an agent without source ports was made")
	}
	if l, err = net.Listen("tcp", cfg.Responder); err != nil {
		t.Fatalf("the responder's port is still taken: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

// controller is a controller that hands its sessions to the test.
type controller struct {
	synmeshv1.UnimplementedAgentServiceServer
	t         *testing.T
	members   *apitest.Members
	address   string
	sessions  chan *link
	receivers sync.WaitGroup
	follow    func(ctx context.Context, agent, version string) (string, map[string][]byte, error)
}

// link is the controller's end of a session, to be used by the test.
type link struct {
	t      *testing.T
	stream grpc.BidiStreamingServer[synmeshv1.SessionRequest, synmeshv1.SessionResponse]
	got    chan *synmeshv1.SessionRequest // closed at the end
	over   chan struct{}
}

func startController(t *testing.T) *controller {
	t.Helper()
	return startControllerOf(t, apitest.NewMembers(t))
}

func startControllerOf(t *testing.T, m *apitest.Members) *controller {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &controller{t: t, members: m, address: l.Addr().String(), sessions: make(chan *link)}
	c.follow = func(ctx context.Context, _, version string) (string, map[string][]byte, error) {
		<-ctx.Done()
		return version, nil, ctx.Err()
	}
	server := grpc.NewServer(grpc.WaitForHandlers(true), grpc.Creds(identity.ServerCredentials(c.members.Self)))
	enrolments.Register(server, enrolments.Config{
		Registry: c.members.Registry, Roots: c.members.CA.Roots(),
		Files: func() (map[string][]byte, error) { return files(c.members) },
		Sign:  func(p gossip.Peer) (gossip.Announcement, error) { return sign(c.members, p) },
		Follow: func(ctx context.Context, agent, version string) (string, map[string][]byte, error) {
			return c.follow(ctx, agent, version)
		},
	})
	synmeshv1.RegisterAgentServiceServer(server, c)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		c.receivers.Wait()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return c
}

func (c *controller) Session(st grpc.BidiStreamingServer[synmeshv1.SessionRequest, synmeshv1.SessionResponse]) error {
	s := &link{c.t, st, make(chan *synmeshv1.SessionRequest, 1000), make(chan struct{})}
	c.receivers.Go(func() { // until the stream ends
		defer close(s.got)
		for {
			m, err := st.Recv()
			if err != nil {
				return
			}
			s.got <- m
		}
	})
	select {
	case c.sessions <- s:
	case <-st.Context().Done():
	}
	select {
	case <-s.over:
	case <-st.Context().Done():
	}
	return nil
}

// hangUp ends the session.
func (s *link) hangUp() { close(s.over) }

// accept waits for an agent and welcomes it.
func (c *controller) accept() (*link, *synmeshv1.Hello) {
	c.t.Helper()
	select {
	case s := <-c.sessions:
		hello := s.recv().GetHello()
		s.send(&synmeshv1.SessionResponse{Message: &synmeshv1.SessionResponse_Welcome{Welcome: &synmeshv1.Welcome{}}})
		return s, hello
	case <-time.After(patience):
		c.t.Fatal("no agent has connected")
		return nil, nil
	}
}

func (s *link) send(m *synmeshv1.SessionResponse) {
	s.t.Helper()
	if err := s.stream.Send(m); err != nil {
		s.t.Fatalf("send: %v", err)
	}
}

func (s *link) recv() *synmeshv1.SessionRequest {
	s.t.Helper()
	select {
	case m, ok := <-s.got:
		if !ok {
			s.t.Fatal("the session has ended")
		}
		return m
	case <-time.After(patience):
		s.t.Fatal("nothing has come")
	}
	return nil
}

// report waits for the next report.
func (s *link) report() *synmeshv1.Report {
	s.t.Helper()
	for {
		if r := s.recv().GetReport(); r != nil {
			return r
		}
	}
}

// results acknowledges reports until there are so many results of the source,
// or the end of the run of that name.
func (s *link) results(source string, n int) (rs []probe.Result, end *synmeshv1.RunEnd) {
	s.t.Helper()
	for len(rs) < n && end == nil {
		r := s.recv().GetReport()
		if r == nil {
			continue
		}
		if err := convert.CheckReport(r); err != nil {
			s.t.Fatal(err)
		}
		for row := range convert.Rows("fra-1", r) {
			if row.Source == source {
				rs = append(rs, *row)
			}
		}
		for _, e := range r.GetRunEnds() {
			if e.GetRun() == source {
				end = e
			}
		}
		s.send(&synmeshv1.SessionResponse{Message: &synmeshv1.SessionResponse_Acknowledge{
			Acknowledge: &synmeshv1.Acknowledge{Epoch: r.GetEpoch(), Sequence: r.GetSequence()}}})
	}
	return rs, end
}

// start runs an agent until the test ends or stop is called.
func start(t *testing.T, cfg Config) (stop func()) {
	t.Helper()
	a, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- a.Run(ctx) }()
	var done bool
	stop = func() {
		if done {
			return
		}
		done = true
		cancel()
		select {
		case err := <-ran:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			t.Fatal("the agent does not end")
		}
	}
	t.Cleanup(stop)
	return stop
}

func spec(count int64, targets ...string) *synmeshv1.ProbeSpec {
	s := &synmeshv1.ProbeSpec{Count: count, Interval: durationpb.New(100 * time.Millisecond), Timeout: durationpb.New(time.Second), Flows: 1}
	for _, t := range targets {
		s.Targets = append(s.Targets, &synmeshv1.Target{Name: t})
	}
	return s
}

// The agent is real down to its sockets, and its targets are the kernel's.
func TestAnAgentCarriesOutWhatAControllerAsksFor(t *testing.T) {
	target, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	open := target.Addr().String()
	defer target.Close()
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := gone.Addr().String()
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}

	c := startController(t)
	cfg := config(t, c.members)
	cfg.Controllers = []string{c.address}
	cfg.Engine.Stamping = engine.Tap
	stop := start(t, cfg)
	s, hello := c.accept()
	responder := hello.GetResponder()
	if hello.GetName() != "fra-1" || hello.GetLabels()["dc"] != "fra" || hello.GetVersion() != "v1" || hello.GetStamping() != "tap" ||
		hello.GetEpoch() == 0 || !strings.HasPrefix(responder, "127.0.0.1:") {
		t.Errorf("the hello is %v", hello)
	}

	s.send(&synmeshv1.SessionResponse{Message: &synmeshv1.SessionResponse_Timetable{Timetable: &synmeshv1.Timetable{
		Version: 1, Expiry: durationpb.New(time.Minute),
		Entries: []*synmeshv1.TimetableEntry{{Source: "measurements/web", Spec: spec(0, open)}}}}})
	measured, _ := s.results("measurements/web", 3)
	for _, r := range measured {
		if r.Outcome != probe.Open || r.Target != open || r.Remote.String() != open || r.RTT <= 0 || r.RTT > time.Second || r.Stamp != probe.StampKernel {
			t.Errorf("of the measurement came %+v", r)
		}
	}

	s.send(&synmeshv1.SessionResponse{Message: &synmeshv1.SessionResponse_StartRun{StartRun: &synmeshv1.StartRun{
		Run: "runs/a", Spec: spec(2, closed, responder)}}})
	found, end := s.results("runs/a", 1000)
	outcomes := make(map[string]int)
	for _, r := range found {
		outcomes[r.Target+" "+r.Outcome.String()]++
	}
	if len(found) != 4 || outcomes[closed+" closed"] != 2 || outcomes[responder+" open"] != 2 || end.GetProduced() != 4 || end.GetError() != "" {
		t.Errorf("the run found %v and ended with %v", outcomes, end)
	}

	s.send(&synmeshv1.SessionResponse{Message: &synmeshv1.SessionResponse_StartRun{StartRun: &synmeshv1.StartRun{
		Run: "runs/b", Spec: spec(2, open, open)}}})
	if found, end = s.results("runs/b", 1000); len(found) != 0 || !strings.Contains(end.GetError(), "agents allow 10") {
		t.Errorf("a run beyond the ceiling found %v and ended with %v", found, end)
	}
	stop()
	if _, more := <-s.got; more {
		for range s.got { // what was under way
		}
	}
	if c, err := net.Dial("tcp", responder); err == nil {
		c.Close()
		t.Error("the responder outlives the agent")
	}
}

// What nobody has acknowledged is sent again, under the same numbers.
func TestAnAgentComesBackWithWhatIsNotStored(t *testing.T) {
	c := startController(t)
	cfg := config(t, c.members)
	cfg.Controllers = []string{c.address}
	start(t, cfg)
	s, hello := c.accept()
	s.send(&synmeshv1.SessionResponse{Message: &synmeshv1.SessionResponse_StartRun{StartRun: &synmeshv1.StartRun{Run: "runs/a", Spec: &synmeshv1.ProbeSpec{}}}})
	first := s.report()
	s.hangUp()

	s, again := c.accept()
	second := s.report()
	if first == nil || second.GetSequence() != first.GetSequence() || second.GetEpoch() != again.GetEpoch() || again.GetEpoch() != hello.GetEpoch() {
		t.Errorf("sent were %v, and in the next session %v", first, second)
	}
}

// startGossip is a controller's part in the gossip.
func startGossip(t *testing.T, c *controller) *gossip.Gossip {
	t.Helper()
	self := gossip.Peer{Name: "controller-1", Role: gossip.Controller, GRPC: c.address}
	g, err := gossip.New(gossip.Config{
		Self: self, Listen: netip.MustParseAddrPort("127.0.0.1:0"), Logger: slog.New(slog.DiscardHandler), Keys: gossip.Keys{Primary: gossipKey},
		Fleet: c.members.CA.Fleet(), Trusted: []ed25519.PublicKey{c.members.CA.Announcer().Public().(ed25519.PublicKey)},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- g.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ran; err != nil {
			t.Errorf("gossip: %v", err)
		}
	})
	if self.Addr, err = g.Addr(ctx); err != nil {
		t.Fatal(err)
	}
	announcement, err := sign(c.members, self)
	if err == nil {
		err = g.SetAnnouncement(announcement)
	}
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestAnAgentFindsItsControllerByGossip(t *testing.T) {
	c := startController(t)
	local := netip.MustParseAddr("127.0.0.1")
	g := startGossip(t, c)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	seed, err := g.Addr(ctx)
	if err != nil {
		t.Fatal(err)
	}
	cfg := config(t, c.members)
	cfg.Controllers = nil
	cfg.Gossip = gossip.Config{Listen: netip.AddrPortFrom(local, 0), Seeds: []string{seed.String()}}
	stop := start(t, cfg)
	_, hello := c.accept()
	peers, err := g.Wait(ctx, func(ps []gossip.Peer) bool { return len(ps) == 1 })
	if err != nil {
		t.Fatal(err)
	}
	if p := peers[0]; p.Role != gossip.Agent || p.Name != "fra-1" || p.Labels["dc"] != "fra" || p.Responder != hello.GetResponder() {
		t.Errorf("gossip tells of %+v, and the hello said %v", p, hello)
	}
	stop()
}
