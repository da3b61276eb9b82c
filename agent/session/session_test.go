package session

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/synmesh/synmesh/agent/spool"
	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is a controller that does with each session what the test says.
type server struct {
	synmeshv1.UnimplementedAgentServiceServer
	session func(n int, s serverStream) error // n counts from 1
	mu      sync.Mutex
	n       int
}

type serverStream = grpc.BidiStreamingServer[synmeshv1.SessionRequest, synmeshv1.SessionResponse]

func (s *server) Session(st serverStream) error {
	s.mu.Lock()
	s.n++
	n := s.n
	s.mu.Unlock()
	return s.session(n, st)
}

// welcome receives the hello and sends the welcome.
func welcome(s serverStream, sequence uint64) error {
	m, err := s.Recv()
	if err != nil {
		return err
	}
	if m.GetHello().GetName() != "fra-1" {
		return fmt.Errorf("the first message is %v; a hello of fra-1 was expected", m)
	}
	return s.Send(&synmeshv1.SessionResponse{Message: &synmeshv1.SessionResponse_Welcome{Welcome: &synmeshv1.Welcome{Sequence: sequence}}})
}

func acknowledge(s serverStream, sequence uint64) error {
	return s.Send(&synmeshv1.SessionResponse{Message: &synmeshv1.SessionResponse_Acknowledge{Acknowledge: &synmeshv1.Acknowledge{Sequence: sequence}}})
}

// stay receives until the agent goes.
func stay(s serverStream) error {
	for {
		if _, err := s.Recv(); err != nil {
			return err
		}
	}
}

// tasks writes down what it is told.
type tasks struct {
	mu   sync.Mutex
	told []string
}

func (k *tasks) note(format string, args ...any) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.told = append(k.told, fmt.Sprintf(format, args...))
}

func (k *tasks) SetTimetable(m *synmeshv1.Timetable) { k.note("timetable %d", m.GetVersion()) }
func (k *tasks) StartRun(m *synmeshv1.StartRun)      { k.note("start %s", m.GetRun()) }
func (k *tasks) CancelRun(run string)                { k.note("cancel %s", run) }
func (k *tasks) Connected()                          { k.note("connected") }
func (k *tasks) Disconnected()                       { k.note("disconnected") }

func (k *tasks) all() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.told)
}

// bench is an agent's session and its controller, in a bubble of synctest.
type bench struct {
	t        *testing.T
	server   *server
	spool    *spool.Spool
	tasks    tasks
	log      bytes.Buffer // to be read when all is at rest
	began    time.Time
	attempts []time.Duration // when a controller was asked for
	known    func(attempt int) []string
	dial     func(context.Context) (net.Conn, error) // nil reaches the controller
	stop     func()
}

const address = "passthrough:///controller"

// run runs a session; begin is called before it.
func run(t *testing.T, session func(n int, s serverStream) error, begin, do func(*bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t, server: &server{session: session}, spool: spool.New(5), began: time.Now(),
			known: func(int) []string { return []string{address} }}
		if begin != nil {
			begin(b)
		}
		pipe := bufconn.Listen(64 << 10)
		if b.dial == nil {
			b.dial = pipe.DialContext
		}
		g := grpc.NewServer(grpc.WaitForHandlers(true))
		synmeshv1.RegisterAgentServiceServer(g, b.server)
		served := make(chan error, 1)
		go func() { served <- g.Serve(pipe) }()
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() {
			ran <- Run(ctx, Config{
				Hello: &synmeshv1.Hello{Name: "fra-1", Epoch: 5}, Controllers: b.controllers, Spool: b.spool, Tasks: &b.tasks,
				Logger: slog.New(slog.NewTextHandler(&b.log, nil)),
				DialOptions: []grpc.DialOption{
					grpc.WithTransportCredentials(insecure.NewCredentials()),
					grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return b.dial(ctx) }),
				},
			})
		}()
		b.stop = sync.OnceFunc(func() {
			cancel()
			stopped := time.Now()
			if err := <-ran; err != nil {
				t.Errorf("Run: %v", err)
			}
			if took := time.Since(stopped); took > 0 {
				t.Errorf("Run took %v to return", took)
			}
			synctest.Wait() // until the controller has seen it
		})
		do(b)
		b.stop()
		g.Stop()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
}

func (b *bench) controllers() []string {
	b.attempts = append(b.attempts, time.Since(b.began))
	return b.known(len(b.attempts))
}

func (b *bench) told(want ...string) {
	b.t.Helper()
	synctest.Wait()
	if got := b.tasks.all(); !slices.Equal(got, want) {
		b.t.Errorf("the tasks were told %q, want %q", got, want)
	}
}

func (b *bench) logged(want string) {
	b.t.Helper()
	synctest.Wait()
	if !strings.Contains(b.log.String(), want) {
		b.t.Errorf("the log does not say %q:\n%s", want, &b.log)
	}
}

// produce has a run find a result and end: that is one report.
func (b *bench) produce() {
	b.spool.Add(&probe.Result{Time: time.Now(), Source: "runs/a", Target: "db.fra:5432", Outcome: probe.Open, RTT: 1})
	b.spool.EndRun(&synmeshv1.RunEnd{Run: "runs/a", Produced: 1})
	synctest.Wait()
}

func TestWhatTheControllerAsksForReachesTheTasksInOrder(t *testing.T) {
	run(t, func(_ int, s serverStream) error {
		if err := welcome(s, 0); err != nil {
			return err
		}
		for _, m := range []*synmeshv1.SessionResponse{
			{Message: &synmeshv1.SessionResponse_Timetable{Timetable: &synmeshv1.Timetable{Version: 7}}},
			{Message: &synmeshv1.SessionResponse_StartRun{StartRun: &synmeshv1.StartRun{Run: "runs/a"}}},
			{}, // a kind of message that this agent does not know
			{Message: &synmeshv1.SessionResponse_CancelRun{CancelRun: &synmeshv1.CancelRun{Run: "runs/a"}}},
		} {
			if err := s.Send(m); err != nil {
				return err
			}
		}
		return stay(s)
	}, nil, func(b *bench) {
		b.told("connected", "timetable 7", "start runs/a", "cancel runs/a")
		b.logged("message not understood")
		b.stop()
		b.told("connected", "timetable 7", "start runs/a", "cancel runs/a", "disconnected")
	})
}

func TestReportsAreSentAgainUntilTheyAreStored(t *testing.T) {
	var got [][]uint64 // sequences, by session
	run(t, func(n int, s serverStream) error {
		stored := []uint64{0, 1, 3}[n-1]
		got = append(got, nil)
		if err := welcome(s, stored); err != nil {
			return err
		}
		for {
			m, err := s.Recv()
			if err != nil {
				return err
			}
			r := m.GetReport()
			if r == nil {
				continue
			}
			got[n-1] = append(got[n-1], r.GetSequence())
			switch {
			case n < 3 && r.GetSequence() == 3:
				return status.Error(codes.Unavailable, "the disk is full")
			case n == 3:
				if err := acknowledge(s, r.GetSequence()); err != nil {
					return err
				}
			}
		}
	}, nil, func(b *bench) {
		for range 3 {
			b.produce()
		}
		time.Sleep(time.Minute)
		b.produce()
		b.stop()
		if want := "[[1 2 3] [2 3] [4]]"; fmt.Sprint(got) != want {
			b.t.Errorf("the sessions were sent %v, want %s", got, want)
		}
		if held, dropped := b.spool.Counts(); held != 0 || dropped != 0 {
			b.t.Errorf("%d results are held and %d dropped, and all are stored", held, dropped)
		}
		b.logged("the disk is full")
	})
}

func TestHeartbeatsTellWhatIsHeldAndLost(t *testing.T) {
	var beats []string
	run(t, func(_ int, s serverStream) error {
		began := time.Now()
		if err := welcome(s, 0); err != nil {
			return err
		}
		for {
			m, err := s.Recv()
			if err != nil {
				return err
			}
			if h := m.GetHeartbeat(); h != nil {
				beats = append(beats, fmt.Sprintf("%v: %d held, %d dropped", time.Since(began), h.GetBacklog(), h.GetDropped()))
			}
		}
	}, nil, func(b *bench) {
		time.Sleep(7 * time.Second)
		b.produce()
		time.Sleep(5 * time.Second)
		b.stop()
		if want := []string{"5s: 0 held, 0 dropped", "10s: 1 held, 0 dropped"}; !slices.Equal(beats, want) {
			b.t.Errorf("got the heartbeats %q, want %q", beats, want)
		}
	})
}

func TestTheReasonOfAnEndIsToldAndTheAgentComesBack(t *testing.T) {
	tests := []struct {
		name    string
		session func(s serverStream) error
		reason  string
		began   bool // a session did
	}{
		{"when the controller refuses the hello", func(serverStream) error {
			return status.Error(codes.InvalidArgument, "hello: responder \"x\" is not address:port")
		}, "is not address:port", false},
		{"when the controller begins with something else", func(s serverStream) error {
			if err := acknowledge(s, 1); err != nil {
				return err
			}
			return stay(s)
		}, "a welcome was expected", false},
		{"when the controller says nothing at all", stay, "it did not answer the hello within 10s", false},
		{"when the controller hangs up", func(s serverStream) error { return welcome(s, 0) }, "the controller ended the session", true},
		{"when the controller stops", func(s serverStream) error {
			if err := welcome(s, 0); err != nil {
				return err
			}
			return status.Error(codes.Unavailable, "the controller is stopping; connect again later")
		}, "the controller is stopping", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			run(t, func(n int, s serverStream) error {
				if n == 1 {
					return tt.session(s)
				}
				if err := welcome(s, 0); err != nil {
					return err
				}
				return stay(s)
			}, nil, func(b *bench) {
				time.Sleep(30 * time.Second)
				b.logged(tt.reason)
				b.logged("controller " + address)
				if tt.began {
					b.told("connected", "disconnected", "connected")
				} else {
					b.told("connected")
				}
			})
		})
	}
}

func TestAttemptsComeApartUpToHalfAMinute(t *testing.T) {
	run(t, func(int, serverStream) error { return errors.New("go away") }, nil, func(b *bench) {
		time.Sleep(10 * time.Minute)
		b.stop()
		most := 500 * time.Millisecond
		for i := range b.attempts[1:] {
			wait := b.attempts[i+1] - b.attempts[i]
			if wait < most/2 || wait >= most {
				b.t.Errorf("attempt %d comes %v after the one before, want %v to %v", i+2, wait, most/2, most)
			}
			most = min(2*most, 30*time.Second)
		}
		if n := len(b.attempts); n < 20 {
			b.t.Errorf("%d attempts in ten minutes, want at least 20", n)
		}
	})
}

func TestALongSessionForgivesTheFailuresBeforeIt(t *testing.T) {
	run(t, func(n int, s serverStream) error {
		if n != 8 {
			return errors.New("go away")
		}
		if err := welcome(s, 0); err != nil {
			return err
		}
		time.Sleep(time.Hour)
		return nil
	}, nil, func(b *bench) {
		time.Sleep(90 * time.Minute)
		b.stop()
		if wait := b.attempts[8] - b.attempts[7] - time.Hour; wait >= 500*time.Millisecond {
			b.t.Errorf("the attempt after the session came after %v, want less than half a second", wait)
		}
	})
}

func TestAControllerIsLookedForBeforeEveryAttempt(t *testing.T) {
	run(t, func(_ int, s serverStream) error {
		if err := welcome(s, 0); err != nil {
			return err
		}
		return stay(s)
	}, func(b *bench) {
		b.known = func(attempt int) []string {
			if attempt < 4 {
				return nil
			}
			return []string{address}
		}
	}, func(b *bench) {
		time.Sleep(10 * time.Second)
		b.logged("gossip has told of no controller yet")
		b.told("connected")
	})
}

func TestAnAddressThatDoesNotAnswerIsGivenUp(t *testing.T) {
	run(t, func(_ int, s serverStream) error { return stay(s) }, func(b *bench) {
		b.dial = func(ctx context.Context) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
	}, func(b *bench) {
		time.Sleep(time.Minute)
		b.stop()
		if n := len(b.attempts); n < 3 {
			b.t.Errorf("%d attempts in a minute, want 3 at least", n)
		}
		b.told()
	})
}

func TestAllControllersGetTheirTurn(t *testing.T) {
	run(t, func(int, serverStream) error { return errors.New("go away") }, func(b *bench) {
		b.known = func(int) []string { return []string{"passthrough:///a", "passthrough:///b", "passthrough:///c"} }
	}, func(b *bench) {
		time.Sleep(time.Hour)
		for _, c := range b.known(0) {
			b.logged("controller " + c)
		}
	})
}

// The herd of a controller that restarts is spread evenly.
func TestBackoffIsSpread(t *testing.T) {
	for failures, most := range map[int]time.Duration{0: 500 * time.Millisecond, 3: 4 * time.Second, 6: 30 * time.Second, 1000: 30 * time.Second} {
		var quarters [4]int
		for range 4000 {
			d := backoff(failures) - most/2
			if d < 0 || d >= most/2 {
				t.Fatalf("after %d failures: %v, want %v to %v", failures, d+most/2, most/2, most)
			}
			quarters[d*4/(most/2)]++
		}
		for i, n := range quarters {
			if n < 800 || n > 1200 {
				t.Errorf("after %d failures, %d of 4000 are in quarter %d", failures, n, i+1)
			}
		}
	}
}
