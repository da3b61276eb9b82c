package engine

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/synmesh/synmesh/probe"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start runs an engine for the length of the test.
func start(t *testing.T, cfg Config) *Engine {
	t.Helper()
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ran; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return e
}

// listen accepts and closes on the address until the test ends.
func listen(t *testing.T, address string) string {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

func closedPort(t *testing.T, address string) string {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func spec(t *testing.T, count int, addresses ...string) probe.Spec {
	t.Helper()
	s := probe.Spec{Count: count, Interval: 10 * time.Millisecond, Timeout: time.Second, Flows: 1}
	for _, a := range addresses {
		ts, err := probe.ParseTargets(a)
		if err != nil {
			t.Fatal(err)
		}
		s.Targets = append(s.Targets, ts...)
	}
	return s
}

func do(t *testing.T, e *Engine, s probe.Spec) []probe.Result {
	t.Helper()
	var rs []probe.Result
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := e.Do(ctx, s, func(r *probe.Result) { rs = append(rs, *r) }); err != nil {
		t.Fatal(err)
	}
	return rs
}

func TestOpenAndClosedPortsAreToldApart(t *testing.T) {
	for _, stamping := range []Stamping{Quiet, Tap} {
		for _, host := range []string{"127.0.0.1:0", "[::1]:0"} {
			t.Run(stamping.String()+" "+host, func(t *testing.T) {
				e := start(t, Config{Stamping: stamping})
				open, closed := listen(t, host), closedPort(t, host)
				rs := do(t, e, spec(t, 5, open, closed))
				if len(rs) != 10 {
					t.Fatalf("%d results, want 10", len(rs))
				}
				for _, r := range rs {
					want := probe.Open
					if r.Target == closed {
						want = probe.Closed
					}
					if r.Outcome != want {
						t.Errorf("%s: %v (%s), want %v", r.Target, r.Outcome, r.Err, want)
					}
					if r.RTT <= 0 || r.RTT > time.Second || r.HostDelay <= 0 || r.Attempts != 1 {
						t.Errorf("implausible result %+v", r)
					}
					if want == probe.Open && (r.SynAck == nil || !r.SynAck.SACKPermitted || r.SynAck.MSS == 0) {
						t.Errorf("SYN-ACK %+v", r.SynAck)
					}
				}
			})
		}
	}
}

func TestABadSpecIsRefused(t *testing.T) {
	e := start(t, Config{})
	err := e.Do(context.Background(), probe.Spec{}, nil)
	if err == nil || !strings.Contains(err.Error(), "no target") {
		t.Errorf("error %v", err)
	}
}
