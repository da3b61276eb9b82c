//go:build linux

package engine

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/probe/rawsock"
)

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

// acceptAll accepts and closes until the test ends.
func acceptAll(t *testing.T, l net.Listener) {
	t.Helper()
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
}

// listen accepts and closes on the address until the test ends.
func listen(t *testing.T, address string) string {
	t.Helper()
	l, err := net.Listen("tcp", address)
	must(t, err)
	acceptAll(t, l)
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
	host := oneHost(t)
	for _, stamping := range []Stamping{Quiet, Tap} {
		for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
			t.Run(stamping.String()+" "+address, func(t *testing.T) {
				inside(t, host, func() { tellApart(t, stamping, address) })
			})
		}
	}
}

func tellApart(t *testing.T, stamping Stamping, address string) {
	e := start(t, Config{Stamping: stamping})
	open, closed := listen(t, address), closedPort(t, address)
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
		if r.RTT <= 0 || r.RTT > time.Second || r.HostDelay <= 0 || r.Attempts != 1 || r.Stamp != probe.StampKernel {
			t.Errorf("implausible result %+v", r)
		}
		if want == probe.Open && (r.SynAck == nil || !r.SynAck.SACKPermitted || r.SynAck.MSS == 0) {
			t.Errorf("SYN-ACK %+v", r.SynAck)
		}
	}
}

// The kernel begins to stamp packets some time after it was asked to.
func TestTheVeryFirstProbeHasTrueStamps(t *testing.T) {
	inside(t, oneHost(t), func() {
		open := listen(t, "127.0.0.1:0")
		for i := range 40 {
			ctx, stop := context.WithCancel(context.Background())
			e, err := New(Config{Stamping: Stamping(i % 2)})
			must(t, err)
			ran := make(chan error, 1)
			go func() { ran <- e.Run(ctx) }()
			for _, r := range do(t, e, spec(t, 1, open)) {
				if r.Outcome != probe.Open || r.RTT > 50*time.Millisecond {
					t.Errorf("engine %d: %v %s %v", i, r.Outcome, r.Err, r.RTT)
				}
			}
			stop()
			must(t, <-ran)
		}
	})
}

func TestATargetThatDropsSYNsTimesOut(t *testing.T) {
	n := twoHosts(t)
	inside(t, n.to, func() { swallow(t, n.from) })
	inside(t, n.from, func() {
		s := spec(t, 3, n.to.Addr4().String()+":443")
		s.Timeout = 50 * time.Millisecond
		for _, r := range do(t, start(t, Config{}), s) {
			if r.Outcome != probe.Timeout || r.RTT != 0 || r.Attempts != 1 {
				t.Errorf("%+v", r)
			}
		}
	})
}

func TestWhatARouterSaysIsUnreachable(t *testing.T) {
	n := twoHosts(t)
	// The router has no route to these.
	for _, c := range []struct {
		address   string
		typ, code uint8
	}{{"10.99.0.1:443", 3, 0}, {"[fd99::1]:443", 1, 0}} {
		t.Run(c.address, func(t *testing.T) {
			inside(t, n.from, func() {
				defaultRoutes(t)
				rs := do(t, start(t, Config{}), spec(t, 1, c.address)) // the kernel limits how many errors it sends
				for _, r := range rs {
					if r.Outcome != probe.Unreachable || r.ICMP == nil || r.ICMP.Type != c.typ || r.ICMP.Code != c.code || r.RTT != 0 {
						t.Errorf("%v %s %+v", r.Outcome, r.Err, r.ICMP)
					}
				}
			})
		})
	}
}

func TestATargetThatCannotBeReachedFromHereIsAnError(t *testing.T) {
	inside(t, oneHost(t), func() {
		rs := do(t, start(t, Config{}), spec(t, 2, "10.99.0.1:443", "127.0.0.1:9"))
		errors := 0
		for _, r := range rs {
			if r.Outcome == probe.Error && strings.Contains(r.Err, "no route from this host") {
				errors++
			}
		}
		if len(rs) != 4 || errors != 2 {
			t.Errorf("%d results, %d errors: %+v", len(rs), errors, rs)
		}
	})
}

// Each result has to be of the engine's own probe: their SYN-ACKs are
// delayed apart, so that an answer taken by the wrong engine shows in its time.
func TestEnginesOnOneHostNeverTakeEachOthersReplies(t *testing.T) {
	n := twoHosts(t)
	listenOn(t, n.to, "tcp", ":443")
	s := spec(t, 200, n.to.Addr4().String()+":443", "["+n.to.Addr6().String()+"]:443")
	s.Interval, s.Flows = 4*time.Millisecond, 2
	var wire *wireCapture
	inside(t, n.from, func() { wire = captureWire(t, 0) })
	results := make([][]probe.Result, 2)
	strays := make([]uint64, 2)
	var g errgroup.Group
	for i := range results {
		g.Go(func() error {
			return n.from.Do(func() error {
				e := start(t, Config{Stamping: Stamping(i)}) // one of each kind
				results[i] = do(t, e, s)
				strays[i] = e.Stats().Strays
				return nil
			})
		})
	}
	must(t, g.Wait())
	wire.drain(t)
	ports := [2]map[uint16]bool{{}, {}}
	seen := make(map[uint32]bool)
	for i, rs := range results {
		if len(rs) != 200*2*2 {
			t.Fatalf("engine %d: %d results", i, len(rs))
		}
		for _, r := range rs {
			if r.Outcome != probe.Open {
				t.Fatalf("engine %d: %v %s", i, r.Outcome, r.Err)
			}
			ports[i][r.LocalPort] = true
			if seen[r.SynAck.Seq] {
				t.Fatalf("a SYN-ACK was taken twice: %+v", r)
			}
			seen[r.SynAck.Seq] = true
			if answer, ok := wire.answers[r.SynAck.Seq]; !ok || answer.port != r.LocalPort {
				t.Fatalf("engine %d took a SYN-ACK to port %d for one to port %d", i, answer.port, r.LocalPort)
			}
		}
		if strays[i] < 400 {
			t.Errorf("engine %d saw %d packets of the other; the test proves nothing", i, strays[i])
		}
	}
	for port := range ports[0] {
		if ports[1][port] {
			t.Errorf("both used port %d", port)
		}
	}
}

func TestABadSpecIsRefused(t *testing.T) {
	inside(t, oneHost(t), func() {
		e := start(t, Config{})
		err := e.Do(context.Background(), probe.Spec{}, nil)
		if err == nil || !strings.Contains(err.Error(), "no target") {
			t.Errorf("error %v", err)
		}
	})
}

func TestDoEndsWithItsContextAndWithTheEngine(t *testing.T) {
	n := twoHosts(t)
	inside(t, n.to, func() { swallow(t, n.from) })
	inside(t, n.from, func() {
		e, err := New(Config{})
		must(t, err)
		running, stop := context.WithCancel(context.Background())
		ran := make(chan error, 1)
		go func() { ran <- e.Run(running) }()
		s := spec(t, 0, n.to.Addr4().String()+":443")

		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		if err := e.Do(ctx, s, func(*probe.Result) {}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Do: %v", err)
		}
		time.AfterFunc(50*time.Millisecond, stop)
		if err := e.Do(context.Background(), s, func(*probe.Result) {}); !errors.Is(err, errStopped) {
			t.Errorf("Do: %v", err)
		}
		must(t, <-ran)
		if err := e.Do(context.Background(), s, func(*probe.Result) {}); !errors.Is(err, errStopped) {
			t.Errorf("Do after Run: %v", err)
		}
	})
}

func TestPortsInUseArePassedOverAndGivenBack(t *testing.T) {
	inside(t, oneHost(t), func() {
		taken, err := rawsock.HoldPort(61001)
		must(t, err)
		defer taken.Close()
		p := newPorts(rawsock.PortRange{First: 61000, Last: 61003})
		three, err := p.lease(3, true)
		must(t, err)
		if got := []uint16{three[0].Port, three[1].Port, three[2].Port}; !slices.Equal(got, []uint16{61000, 61002, 61003}) {
			t.Errorf("ports %v", got)
		}
		if _, err := p.lease(1, true); err == nil || err.Error() != "1 source ports are wanted, and only 0 of 61000-61003 are free" {
			t.Errorf("error %v", err)
		}
		must(t, p.release(three))
		again, err := p.lease(1, true)
		must(t, err)
		if again[0].Port != 61000 {
			t.Errorf("port %d", again[0].Port)
		}
		must(t, p.release(again))
	})
}

func TestAStepOfTheWallClockIsNoticed(t *testing.T) {
	before := reading{mono: 0, wall: 1000, min: 990, max: 1000}
	for _, c := range []struct {
		after reading
		bad   bool
	}{
		{reading{mono: 500, min: 995, max: 1005}, false},
		{reading{mono: 500, min: 1001, max: 1010}, true},
		{reading{mono: 500, min: 900, max: 989}, true},
		{reading{mono: 500, min: 900, max: 2000}, false},
	} {
		if err := c.after.steppedSince(before); (err != nil) != c.bad {
			t.Errorf("%+v: %v", c.after, err)
		}
	}
}
