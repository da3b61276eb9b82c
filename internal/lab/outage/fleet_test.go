//go:build linux

package outage_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/synmesh/synmesh/internal/identity"
	"github.com/synmesh/synmesh/internal/identity/contexts"
	"github.com/synmesh/synmesh/internal/lab"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// bench is a controller in the middle, and agents at the ends of links.
type bench struct {
	*testing.T
	lab      *lab.Lab
	home     *lab.Node // of the controller
	folder   string    // of the controller
	operator *grpc.ClientConn
	agents   map[string]*agentHost
}

// agentHost is an agent and its way to the controller.
type agentHost struct {
	node  *lab.Node
	link  *lab.Link
	state string // its folder
}

func newBench(t *testing.T, agents ...string) *bench {
	l, err := lab.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	b := &bench{T: t, lab: l, folder: t.TempDir(), agents: make(map[string]*agentHost)}
	b.home, err = l.Router("controller")
	b.must(err)
	for _, name := range agents {
		a := &agentHost{state: t.TempDir()}
		a.node, err = l.Host(name)
		b.must(err)
		a.link, err = l.Link(a.node, b.home, lab.Impairment{Delay: 5 * time.Millisecond})
		b.must(err)
		b.agents[name] = a
	}
	b.must(l.Route())
	b.start(b.home, "controller", b.folder, b.home.Addr4().String())
	b.connect()
	for name, a := range b.agents {
		b.enrol(name, a)
		b.start(a.node, "agent", a.state, b.address())
	}
	return b
}

func (b *bench) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func (b *bench) address() string { return net.JoinHostPort(b.home.Addr4().String(), "7400") }

// start starts a program, which ends with the test.
func (b *bench) start(on *lab.Node, program string, args ...string) *exec.Cmd {
	b.Helper()
	self, err := os.Executable()
	b.must(err)
	c := exec.Command(self, args...)
	c.Env = append(os.Environ(), asProgram+"="+program)
	c.Stderr = os.Stderr
	b.must(on.Start(c))
	b.Cleanup(func() {
		if c.ProcessState == nil {
			_ = c.Process.Signal(syscall.SIGTERM) // it may have ended
			_ = c.Wait()
		}
	})
	return c
}

// connect makes the operator's connection, from the controller's own host.
func (b *bench) connect() {
	b.Helper()
	var who *identity.Credentials
	b.until("the controller knows its operator", time.Minute, func() bool {
		saved, err := contexts.Read(filepath.Join(b.folder, "operator.yaml"))
		if errors.Is(err, fs.ErrNotExist) {
			return false
		}
		b.must(err)
		who, err = saved.Credentials()
		return err == nil // or it is being written
	})
	dial := func(ctx context.Context, address string) (c net.Conn, err error) {
		err = b.home.Do(func() error {
			c, err = (&net.Dialer{}).DialContext(ctx, "tcp", address)
			return err
		})
		return c, err
	}
	var err error
	b.operator, err = grpc.NewClient("passthrough:///"+b.address(), grpc.WithContextDialer(dial),
		grpc.WithTransportCredentials(identity.ClientCredentials(identity.Fixed(who))))
	b.must(err)
	b.Cleanup(func() { b.must(b.operator.Close()) })
}

func (b *bench) enrol(name string, a *agentHost) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	made, err := synmeshv1.NewIdentityServiceClient(b.operator).CreateToken(ctx, &synmeshv1.CreateTokenRequest{Agent: name}, grpc.WaitForReady(true))
	b.must(err)
	b.must(b.start(a.node, "enrol", a.state, b.address(), made.GetText()).Wait())
}

// until waits for something to be so, and returns how long that took.
func (b *bench) until(what string, patience time.Duration, so func() bool) time.Duration {
	b.Helper()
	began := time.Now()
	for !so() {
		if time.Since(began) > patience {
			b.Fatalf("after %v it is still not so that %s", patience, what)
		}
		time.Sleep(50 * time.Millisecond)
	}
	return time.Since(began)
}

// listed returns what the controller knows of the agents.
func (b *bench) listed() []*synmeshv1.Agent {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	resp, err := synmeshv1.NewFleetServiceClient(b.operator).ListAgents(ctx, &synmeshv1.ListAgentsRequest{})
	b.must(err)
	return resp.GetAgents()
}

// lastSeen returns when an agent was heard.
func (b *bench) lastSeen(name string) (at time.Time) {
	b.Helper()
	for _, a := range b.listed() {
		if a.GetName() == name {
			at = a.GetLastSeenTime().AsTime()
		}
	}
	return at
}

// sessions returns when the session of each agent began that holds one.
func (b *bench) sessions() map[string]time.Time {
	b.Helper()
	began := make(map[string]time.Time)
	for _, a := range b.listed() {
		if a.GetState() == synmeshv1.AgentState_AGENT_STATE_CONNECTED {
			began[a.GetName()] = a.GetConnectTime().AsTime()
		}
	}
	return began
}

// gathered waits until all agents hold a session.
func (b *bench) gathered(patience time.Duration) time.Duration {
	b.Helper()
	return b.until("all agents hold a session", patience, func() bool { return len(b.sessions()) == len(b.agents) })
}

// gaveUp returns when an agent was without a session after a time, as its log tells, or
// the zero Time if it was not.
func (b *bench) gaveUp(a *agentHost, after time.Time) time.Time {
	b.Helper()
	text, err := os.ReadFile(filepath.Join(a.state, "log"))
	b.must(err)
	for line := range bytes.Lines(text) {
		var entry struct {
			Time    time.Time
			Message string `json:"msg"`
		}
		if json.Unmarshal(line, &entry) == nil && entry.Message == "no session with a controller" && entry.Time.After(after) {
			return entry.Time
		}
	}
	return time.Time{}
}
