package session

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

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
	return s.Send(&synmeshv1.SessionResponse{Message: &synmeshv1.SessionResponse_Welcome{
		Welcome: &synmeshv1.Welcome{Sequence: sequence, OlderSequences: make([]uint64, len(m.GetHello().GetOlderEpochs())), Credit: 1 << 20}}})
}

func acknowledge(s serverStream, r *synmeshv1.Report) error {
	return s.Send(&synmeshv1.SessionResponse{Message: &synmeshv1.SessionResponse_Acknowledge{
		Acknowledge: &synmeshv1.Acknowledge{Epoch: r.GetEpoch(), Sequence: r.GetSequence()}}})
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
func (k *tasks) StartRun(m *synmeshv1.StartRun, at time.Time) {
	if at.IsZero() {
		k.note("start %s", m.GetRun())
	} else {
		k.note("start %s in %v", m.GetRun(), time.Until(at))
	}
}
func (k *tasks) CancelRun(run string) { k.note("cancel %s", run) }
func (k *tasks) Refused() []*synmeshv1.Refusal {
	return []*synmeshv1.Refusal{{Source: "measurements/fast", Reason: "too fast"}}
}
func (k *tasks) Connected()    { k.note("connected") }
func (k *tasks) Disconnected() { k.note("disconnected") }

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
	log      record
	began    time.Time
	attempts []time.Duration // when a controller was asked for; for when all has ended
	known    func(attempt int) []string
	dial     func(context.Context) (net.Conn, error) // nil reaches the controller
	wrap     func(net.Conn) net.Conn
	stop     func()
}

// record is a log that may be read while it is written.
type record struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (r *record) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(b)
}

// String implements fmt.Stringer.
func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

const address = "passthrough:///controller"

// run runs a session; begin is called before it.
func run(t *testing.T, session func(n int, s serverStream) error, begin, do func(*bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s, err := spool.Open(spool.Config{Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		b := &bench{t: t, server: &server{session: session}, spool: s, began: time.Now(),
			known: func(int) []string { return []string{address} }}
		keep, release := context.WithCancel(context.Background())
		spooled := make(chan error, 1)
		go func() { spooled <- s.Run(keep) }()
		defer func() {
			release()
			if err := <-spooled; err != nil {
				t.Error(err)
			}
		}()
		if begin != nil {
			begin(b)
		}
		pipe := bufconn.Listen(64 << 10)
		if b.dial == nil {
			b.dial = pipe.DialContext
		}
		if dial := b.dial; b.wrap != nil {
			b.dial = func(ctx context.Context) (net.Conn, error) {
				c, err := dial(ctx)
				if err != nil {
					return nil, err
				}
				return b.wrap(c), nil
			}
		}
		g := grpc.NewServer(grpc.WaitForHandlers(true))
		synmeshv1.RegisterAgentServiceServer(g, b.server)
		served := make(chan error, 1)
		go func() { served <- g.Serve(pipe) }()
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() {
			ran <- Run(ctx, Config{
				Hello: &synmeshv1.Hello{Name: "fra-1"}, Controllers: b.controllers, Spool: b.spool, Tasks: &b.tasks,
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

func TestARunBeginsByTheControllersClock(t *testing.T) {
	run(t, func(_ int, s serverStream) error {
		if err := welcome(s, 0); err != nil {
			return err
		}
		startIn := func(d time.Duration) error {
			at := time.Now().Add(-2 * time.Minute).Add(d) // by a clock that is two minutes behind
			return s.Send(&synmeshv1.SessionResponse{Message: &synmeshv1.SessionResponse_StartRun{
				StartRun: &synmeshv1.StartRun{Run: "runs/a", StartTime: timestamppb.New(at)}}})
		}
		if err := startIn(100 * time.Millisecond); err != nil { // which the agent does not know yet
			return err
		}
		m, err := s.Recv()
		if err == nil {
			err = s.Send(&synmeshv1.SessionResponse{Message: &synmeshv1.SessionResponse_Echo{Echo: &synmeshv1.Echo{
				HeartbeatTime: m.GetHeartbeat().GetTime(), Time: timestamppb.New(time.Now().Add(-2 * time.Minute))}}})
		}
		if err == nil {
			err = startIn(100 * time.Millisecond)
		}
		if err != nil {
			return err
		}
		return stay(s)
	}, nil, func(b *bench) {
		b.told("connected", "start runs/a", "start runs/a in 100ms")
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
				if err := acknowledge(s, r); err != nil {
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
		if st := b.spool.Status(); st.Held != 0 || st.Dropped.Sum() != 0 || st.Produced != 4 {
			b.t.Errorf("%+v, and all are stored", st)
		}
		b.logged("the disk is full")
	})
}

func TestPreviewsAreForControllersThatKnowThem(t *testing.T) {
	var got []string
	var s *spool.Spool
	run(t, func(n int, st serverStream) error {
		if _, err := st.Recv(); err != nil {
			return err
		}
		if err := st.Send(&synmeshv1.SessionResponse{Message: &synmeshv1.SessionResponse_Welcome{Welcome: &synmeshv1.Welcome{Credit: 1 << 20, Previews: n == 2}}}); err != nil {
			return err
		}
		for {
			m, err := st.Recv()
			switch {
			case err != nil:
				return err
			case m.GetPreview() != nil:
				got = append(got, fmt.Sprintf("session %d preview %d of %s", n, m.GetPreview().GetNumber(), m.GetPreview().GetBlocks()[0].GetSource()))
			case m.GetHeartbeat() == nil:
				got = append(got, fmt.Sprintf("session %d %v", n, m))
			case n == 1 && m.GetHeartbeat().GetProduced() > 0:
				return errors.New("make place for a newer controller")
			}
		}
	}, func(b *bench) {
		var err error
		if s, err = spool.Open(spool.Config{Dir: t.TempDir()}); err != nil { // it does not run: nothing gets to the disk
			t.Fatal(err)
		}
		b.spool = s
	}, func(b *bench) {
		b.spool.Add(&probe.Result{Time: time.Now(), Source: "runs/a", Target: "db.fra:5432", Outcome: probe.Open, RTT: 1})
		time.Sleep(time.Minute)
		b.stop()
		if want := "[session 2 preview 1 of runs/a]"; fmt.Sprint(got) != want {
			b.t.Errorf("sent was %v, want %s", got, want)
		}
		if err := s.Close(); err != nil {
			b.t.Error(err)
		}
	})
}

func TestACreditBeyondAllNumbersIsACredit(t *testing.T) {
	var got []uint64
	run(t, func(_ int, s serverStream) error {
		if err := s.Send(&synmeshv1.SessionResponse{Message: &synmeshv1.SessionResponse_Welcome{Welcome: &synmeshv1.Welcome{Credit: math.MaxUint64}}}); err != nil {
			return err
		}
		for {
			m, err := s.Recv()
			if err != nil {
				return err
			}
			if r := m.GetReport(); r != nil {
				got = append(got, r.GetSequence())
			}
			if len(got) == 2 && m.GetReport() != nil {
				a := &synmeshv1.Acknowledge{Epoch: m.GetReport().GetEpoch(), Sequence: 1, Credit: math.MaxUint64}
				if err := s.Send(&synmeshv1.SessionResponse{Message: &synmeshv1.SessionResponse_Acknowledge{Acknowledge: a}}); err != nil {
					return err
				}
			}
		}
	}, nil, func(b *bench) {
		for range 4 {
			b.produce()
		}
		if want := "[1 2 3 4]"; fmt.Sprint(got) != want {
			b.t.Errorf("%v were sent without waiting, want %s", got, want)
		}
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
				beats = append(beats, fmt.Sprintf("%v: %d of %d held, %d dropped, %v refused, at %v, clock %v +- %v", time.Since(began), h.GetBacklog(), h.GetProduced(),
					h.GetDropped(), h.GetRefused()[0].GetSource(), h.GetTime().AsTime().Sub(began), h.GetClockOffset().AsDuration(), h.GetClockError().AsDuration()))
				// The controller's clock is two minutes behind.
				if err := s.Send(&synmeshv1.SessionResponse{Message: &synmeshv1.SessionResponse_Echo{Echo: &synmeshv1.Echo{
					HeartbeatTime: h.GetTime(), Time: timestamppb.New(time.Now().Add(-2 * time.Minute))}}}); err != nil {
					return err
				}
			}
		}
	}, nil, func(b *bench) {
		time.Sleep(7 * time.Second)
		b.produce()
		time.Sleep(5 * time.Second)
		b.stop()
		want := []string{
			"0s: 0 of 0 held, 0 dropped, measurements/fast refused, at 0s, clock 0s +- 0s",
			"0s: 0 of 0 held, 0 dropped, measurements/fast refused, at 0s, clock 2m0s +- 0s", // at once, as the clock is known now
			"5s: 0 of 0 held, 0 dropped, measurements/fast refused, at 5s, clock 2m0s +- 250µs",
			"10s: 1 of 1 held, 0 dropped, measurements/fast refused, at 10s, clock 2m0s +- 250µs",
		}
		if !slices.Equal(beats, want) {
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
			if err := acknowledge(s, nil); err != nil {
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
				time.Sleep(45 * time.Second)
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
			if wait >= most {
				b.t.Errorf("attempt %d comes %v after the one before, want %v at most", i+2, wait, most)
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
		// It failed again, and that counts as the first time.
		if wait := b.attempts[9] - b.attempts[8]; wait >= 500*time.Millisecond {
			b.t.Errorf("the second attempt after the session came after %v, want less than half a second", wait)
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
func TestAttemptsAreSpread(t *testing.T) {
	later := status.New(codes.ResourceExhausted, "many agents are just connecting")
	later, err := later.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(7 * time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	plain := errors.New("connection refused")
	tests := []struct {
		name         string
		failures     int // before
		err          error
		session      bool // there was one
		others       bool
		least, most  time.Duration
		left         string
		failuresThen int
	}{
		{"after the first attempt of all", 0, plain, false, false, 0, 500 * time.Millisecond, "", 1},
		{"after more attempts", 3, plain, false, false, 0, 4 * time.Second, "", 4},
		{"after many", 1000, plain, false, false, 0, 30 * time.Second, "", 1001},
		{"after a session", 5, plain, true, false, 0, 30 * time.Second, "", 0},
		{"when the controller says when", 0, fmt.Errorf("controller a: %w", later.Err()), false, false, 7 * time.Second, 7 * time.Second, "", 0},
		{"when it is drained and alone", 0, fmt.Errorf("controller a: %w", &drained{delay: 9 * time.Second}), true, false, 9 * time.Second, 9 * time.Second, "a", 0},
		{"when it is drained, and another is there", 0, &drained{delay: 9 * time.Second}, true, true, 0, 500 * time.Millisecond, "a", 0},
		{"when it is to come back at once", 0, &drained{}, true, false, minDelay, minDelay, "a", 0},
		{"when a controller exaggerates", 0, &drained{delay: time.Hour}, true, false, maxDelay, maxDelay, "a", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var quarters [4]int
			for range 4000 {
				r := retry{spread: 30 * time.Second, failures: tt.failures}
				d := r.after(tt.err, "a", tt.session, tt.others)
				if d < tt.least || d > tt.most || r.left != tt.left || r.failures != tt.failuresThen {
					t.Fatalf("%v, want %v to %v; then %+v", d, tt.least, tt.most, r)
				}
				if tt.least < tt.most {
					quarters[(d-tt.least)*4/(tt.most-tt.least+1)]++
				}
			}
			for i, n := range quarters {
				if tt.least < tt.most && (n < 800 || n > 1200) {
					t.Errorf("%d of 4000 are in quarter %d", n, i+1)
				}
			}
		})
	}
}

func TestARefusedReportIsDroppedAndTheSessionGoesOn(t *testing.T) {
	var got []string
	run(t, func(n int, s serverStream) error {
		if err := welcome(s, 0); err != nil {
			return err
		}
		for {
			m, err := s.Recv()
			if err != nil {
				return err
			}
			if r := m.GetResume(); r != nil {
				got = append(got, "resume")
			}
			r := m.GetReport()
			if r == nil {
				continue
			}
			got = append(got, fmt.Sprint(r.GetSequence()))
			if r.GetSequence() == 2 {
				err = s.Send(&synmeshv1.SessionResponse{Message: &synmeshv1.SessionResponse_Reject{
					Reject: &synmeshv1.Reject{Epoch: r.GetEpoch(), Sequence: 2, Reason: "blocks[0]: rtts"}}})
			} else {
				err = acknowledge(s, r)
			}
			if err != nil {
				return err
			}
		}
	}, nil, func(b *bench) {
		for range 3 {
			b.produce()
		}
		b.stop()
		if st := b.spool.Status(); st.Dropped[spool.Rejected] != 1 || st.Held != 0 || st.Produced != 3 {
			b.t.Errorf("%+v, want one of three rejected", st)
		}
		if n := strings.Count(b.log.String(), "blocks[0]: rtts"); n != 1 {
			b.t.Errorf("the log tells of it %d times", n)
		}
		b.told("connected", "disconnected")
		if want := "[1 2 resume 3]"; fmt.Sprint(got) != want {
			b.t.Errorf("sent was %v, want %s", got, want)
		}
	})
}

func TestADrainedSessionEndsWhenAllIsAcknowledged(t *testing.T) {
	ended, reports := make(chan time.Duration, 2), make(chan uint64, 2)
	run(t, func(n int, s serverStream) error {
		began := time.Now()
		if err := welcome(s, 0); err != nil {
			return err
		}
		for {
			m, err := s.Recv()
			if errors.Is(err, io.EOF) {
				ended <- time.Since(began)
				return nil
			}
			if err != nil {
				return err
			}
			r := m.GetReport()
			if r == nil {
				continue
			}
			reports <- r.GetSequence()
			if err := s.Send(&synmeshv1.SessionResponse{Message: &synmeshv1.SessionResponse_Drain{
				Drain: &synmeshv1.Drain{Reason: "the controller is stopping", RetryDelay: durationpb.New(7 * time.Second)}}}); err != nil {
				return err
			}
			time.Sleep(time.Second)
			if err := acknowledge(s, r); err != nil {
				return err
			}
		}
	}, nil, func(b *bench) {
		b.produce()
		time.Sleep(500 * time.Millisecond)
		b.produce() // is kept
		time.Sleep(5 * time.Second)
		if len(ended) != 1 || len(reports) != 1 {
			b.t.Errorf("%d sessions have ended, and %d reports came, want one of each", len(ended), len(reports))
		}
		if after := <-ended; after != time.Second {
			b.t.Errorf("the session ended after %v, want a second", after)
		}
		b.logged("the controller is stopping")
		time.Sleep(3500 * time.Millisecond)
		b.stop()
		if len(b.attempts) != 2 || b.attempts[1] != 8*time.Second {
			b.t.Errorf("attempts at %v, want the second 7 s after the end of the first session", b.attempts)
		}
	})
}

// A connection that swallows everything looks like one on which nothing happens.
func TestAPeerThatIsNotHeardIsGivenUpInTime(t *testing.T) {
	var dark atomic.Bool
	run(t, func(n int, s serverStream) error {
		if err := welcome(s, 0); err != nil {
			return err
		}
		return stay(s)
	}, func(b *bench) {
		b.wrap = func(c net.Conn) net.Conn { return &swallowing{c, &dark} }
	}, func(b *bench) {
		time.Sleep(time.Minute)
		b.told("connected")
		dark.Store(true)
		began := time.Now()
		for len(b.tasks.all()) == 1 && time.Since(began) < time.Hour {
			time.Sleep(time.Second)
			synctest.Wait()
		}
		if took := time.Since(began); took > 45*time.Second {
			b.t.Errorf("it took %v to notice", took)
		} else {
			b.t.Logf("it took %v to notice", took)
		}
		b.told("connected", "disconnected")
	})
}

// swallowing is a connection of which nothing comes through while it is dark.
type swallowing struct {
	net.Conn
	dark *atomic.Bool
}

func (s *swallowing) Write(b []byte) (int, error) {
	if s.dark.Load() {
		return len(b), nil
	}
	return s.Conn.Write(b)
}

func (s *swallowing) Read(b []byte) (int, error) {
	for {
		n, err := s.Conn.Read(b)
		if err != nil || !s.dark.Load() {
			return n, err
		}
	}
}
