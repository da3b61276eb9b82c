//go:build linux

package swarm_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/synmesh/synmesh/internal/identity"
	"github.com/synmesh/synmesh/internal/identity/contexts"
	"github.com/synmesh/synmesh/internal/lab"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// patience is how long anything may take.
const patience = 2 * time.Minute

// bench is a controller, its agents and its operator.
type bench struct {
	*testing.T
	size       size
	folder     string // of the controller
	states     string // of the agents
	address    string
	controller *exec.Cmd
	agents     *exec.Cmd // the last of their processes
	stopAgents func()    // stops it
	home       *lab.Node // of the controller; nil: here
	operator   *grpc.ClientConn
	diary      diary
}

// size is that of an exercise.
type size struct {
	agents int
	spread time.Duration // over which agents come back
	watch  time.Duration // for how long processors are watched
	rates  []float64     // results a second of one agent
}

// diary is what the agents have written, by what it is: when each did that last.
type diary struct {
	mu sync.Mutex
	at map[string]map[string]time.Time
}

func newBench(t *testing.T, s size) *bench {
	b := &bench{T: t, size: s, folder: t.TempDir(), states: stateFolder(t), address: freeAddress(t), diary: diary{at: make(map[string]map[string]time.Time)}}
	b.Cleanup(b.stopController)
	return b
}

// stateFolder is in memory where that can be: agents have disks of their own elsewhere.
func stateFolder(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "swarm")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// freeAddress is where the controller listens, also after its restart.
func freeAddress(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (b *bench) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func (b *bench) program(name string, args ...string) *exec.Cmd {
	self, err := os.Executable()
	b.must(err)
	c := exec.Command(self, args...)
	c.Env = append(os.Environ(), asProgram+"="+name)
	c.Stderr = os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return c
}

// launch starts a program on a node; nil: here.
func (b *bench) launch(on *lab.Node, c *exec.Cmd) {
	b.Helper()
	if on == nil {
		b.must(c.Start())
	} else {
		b.must(on.Start(c))
	}
}

// dial connects to the controller from where it is itself.
func (b *bench) dial(ctx context.Context, address string) (c net.Conn, err error) {
	dial := func() (err error) {
		c, err = (&net.Dialer{}).DialContext(ctx, "tcp", address)
		return err
	}
	if b.home == nil {
		return c, dial()
	}
	return c, b.home.Do(dial)
}

// stopController stops it in good order, if it runs.
func (b *bench) stopController() {
	if b.controller == nil || b.controller.ProcessState != nil {
		return
	}
	_ = b.controller.Process.Signal(syscall.SIGTERM) // it may have ended
	if err := b.controller.Wait(); err != nil {
		b.Errorf("the controller has ended: %v", err)
	}
}

// startController returns when it answers.
func (b *bench) startController() {
	b.Helper()
	b.controller = b.program("controller", b.folder, b.address)
	b.launch(b.home, b.controller)
	b.until("the controller answers", func(ctx context.Context) bool {
		if b.operator == nil {
			saved, err := contexts.Read(filepath.Join(b.folder, "data", "operator.yaml"))
			if errors.Is(err, fs.ErrNotExist) {
				return false
			}
			b.must(err)
			who, err := saved.Credentials()
			if err != nil {
				return false // it is being written
			}
			b.operator, err = grpc.NewClient("passthrough:///"+b.address, grpc.WithContextDialer(b.dial), grpc.WithTransportCredentials(identity.ClientCredentials(identity.Fixed(who))),
				grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1, MaxDelay: 20 * time.Millisecond}}))
			b.must(err)
			b.Cleanup(func() { b.must(b.operator.Close()) })
		}
		_, err := synmeshv1.NewIdentityServiceClient(b.operator).WhoAmI(ctx, &synmeshv1.WhoAmIRequest{}, grpc.WaitForReady(true))
		return err == nil
	})
}

// until waits for something to be so, and returns how long that took.
func (b *bench) until(what string, so func(context.Context) bool) time.Duration {
	b.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeout(b.Context(), patience)
	defer cancel()
	for !so(ctx) {
		if ctx.Err() != nil {
			b.Fatalf("after %v it is still not so that %s", patience, what)
		}
		time.Sleep(b.pace())
	}
	return time.Since(began)
}

// pace is how long to wait between two looks: who looks all the time at a large fleet
// keeps its controller busy.
func (b *bench) pace() time.Duration {
	return 20*time.Millisecond + time.Duration(b.size.agents)*200*time.Microsecond
}

// enrol has every agent enrol with a token of its own.
func (b *bench) enrol() time.Duration {
	b.Helper()
	began := time.Now()
	g, ctx := errgroup.WithContext(b.Context())
	g.SetLimit(16)
	for i := range b.size.agents {
		g.Go(func() error {
			text, err := b.token(ctx, i)
			if err != nil {
				return err
			}
			// Some dozens behind each address, which may not ask too often.
			from := &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+i/40))}
			for {
				err := enrolFrom(ctx, from, b.state(i), b.address, text)
				if status.Code(err) != codes.ResourceExhausted {
					return err
				}
				time.Sleep(200 * time.Millisecond)
			}
		})
	}
	b.must(g.Wait())
	return time.Since(began)
}

func (b *bench) state(i int) string { return filepath.Join(b.states, nameOf(i)) }

// token returns a new one for an agent.
func (b *bench) token(ctx context.Context, i int) (string, error) {
	made, err := synmeshv1.NewIdentityServiceClient(b.operator).CreateToken(ctx, &synmeshv1.CreateTokenRequest{Agent: nameOf(i)})
	return made.GetText(), err
}

// startAgents starts some agents on a node; nil: here. They connect by themselves.
func (b *bench) startAgents(on *lab.Node, first, end int) {
	b.Helper()
	c := b.program("agents", b.states, b.address, b.size.spread.String(), strconv.Itoa(first), strconv.Itoa(end))
	out, err := c.StdoutPipe()
	b.must(err)
	b.launch(on, c)
	read := make(chan struct{})
	go func() {
		defer close(read)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			b.diary.take(lines.Text())
		}
	}()
	b.agents = c
	b.stopAgents = sync.OnceFunc(func() {
		_ = c.Process.Signal(syscall.SIGTERM) // it may have ended
		late := time.AfterFunc(patience, func() { _ = c.Process.Kill() })
		defer late.Stop()
		<-read
		if err := c.Wait(); err != nil {
			b.Errorf("agents have ended: %v", err)
		}
	})
	b.Cleanup(b.stopAgents)
}

func (d *diary) take(line string) {
	words := strings.Fields(line)
	if len(words) != 3 {
		return
	}
	at, err := strconv.ParseInt(words[2], 10, 64)
	if err != nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.at[words[0]] == nil {
		d.at[words[0]] = make(map[string]time.Time)
	}
	d.at[words[0]][words[1]] = time.Unix(0, at)
}

// since returns when the agents did something last, of those that did after a time.
func (d *diary) since(what string, start time.Time) (all []time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, at := range d.at[what] {
		if at.After(start) {
			all = append(all, at)
		}
	}
	return all
}

// listed returns what the controller knows of the agents.
func (b *bench) listed(ctx context.Context) []*synmeshv1.Agent {
	resp, err := synmeshv1.NewFleetServiceClient(b.operator).ListAgents(ctx, &synmeshv1.ListAgentsRequest{PageSize: 10000})
	if err != nil {
		return nil
	}
	return resp.GetAgents()
}

// connected counts the sessions.
func (b *bench) connected(ctx context.Context) (n int) {
	for _, a := range b.listed(ctx) {
		if a.GetState() == synmeshv1.AgentState_AGENT_STATE_CONNECTED {
			n++
		}
	}
	return n
}

// usage is what a process has used: processor time, and memory now, in bytes.
type usage struct {
	cpu                 time.Duration
	resident, anonymous int64
	peak                int64 // resident, ever
}

func usageOf(c *exec.Cmd) (u usage, err error) {
	dir := filepath.Join("/proc", strconv.Itoa(c.Process.Pid))
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return u, err
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	for _, i := range []int{11, 12} { // utime and stime, in hundredths of a second
		ticks, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return u, err
		}
		u.cpu += time.Duration(ticks) * 10 * time.Millisecond
	}
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return u, err
	}
	for line := range strings.Lines(string(status)) {
		var kib int64
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kib); err == nil {
			u.resident = kib << 10
		}
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kib); err == nil {
			u.peak = kib << 10
		}
		if _, err := fmt.Sscanf(line, "RssAnon: %d kB", &kib); err == nil {
			u.anonymous = kib << 10
		}
	}
	return u, nil
}

// watch says what the controller uses for some time, and returns how long that was.
func (b *bench) watch(what string, length time.Duration) time.Duration {
	b.Helper()
	if os.Getenv(profiles) != "" {
		b.must(b.controller.Process.Signal(syscall.SIGUSR1))
	}
	before, err := usageOf(b.controller)
	b.must(err)
	agents, err := usageOf(b.agents)
	b.must(err)
	began := time.Now()
	time.Sleep(length)
	took := time.Since(began)
	after, err := usageOf(b.controller)
	b.must(err)
	agentsAfter, err := usageOf(b.agents)
	b.must(err)
	share := func(a, z usage) float64 { return 100 * (z.cpu - a.cpu).Seconds() / took.Seconds() }
	b.Logf("%s: controller %.1f MiB resident (%.1f MiB of it its own; %.1f MiB at most so far), %.1f %% of a processor; the agents' process %.1f MiB, %.1f %%", what,
		mib(after.resident), mib(after.anonymous), mib(after.peak), share(before, after), mib(agentsAfter.resident), share(agents, agentsAfter))
	return took
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }
