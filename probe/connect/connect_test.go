package connect

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/synmesh/synmesh/probe"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// acceptAll does something to each connection that comes until the test ends.
func acceptAll(t testing.TB, l net.Listener, with func(net.Conn)) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			with(c)
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
}

// listen accepts and closes on the address until the test ends.
func listen(t *testing.T, address string) string {
	t.Helper()
	l, err := net.Listen("tcp", address)
	must(t, err)
	acceptAll(t, l, func(c net.Conn) { c.Close() })
	return l.Addr().String()
}

func closedPort(t *testing.T, address string) string {
	t.Helper()
	l, err := net.Listen("tcp", address)
	must(t, err)
	defer l.Close()
	return l.Addr().String()
}

func spec(t testing.TB, count int, addresses ...string) probe.Spec {
	t.Helper()
	s := probe.Spec{Mode: probe.Connect, Count: count, Interval: 10 * time.Millisecond, Timeout: 900 * time.Millisecond, Flows: 1}
	for _, a := range addresses {
		ts, err := probe.ParseTargets(a)
		must(t, err)
		s.Targets = append(s.Targets, ts...)
	}
	return s
}

func do(t *testing.T, s probe.Spec) []probe.Result {
	t.Helper()
	var rs []probe.Result
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	must(t, New(Config{}).Do(ctx, s, func(r *probe.Result) { rs = append(rs, *r) }))
	return rs
}

// byTarget counts the results of each target, and has check look at each.
func byTarget(rs []probe.Result, check func(*probe.Result)) map[string]int {
	n := make(map[string]int)
	for i := range rs {
		n[rs[i].Target]++
		check(&rs[i])
	}
	return n
}

func TestOpenAndClosedPortsAreToldApart(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(address, func(t *testing.T) {
			open, closed := listen(t, address), closedPort(t, address)
			began := time.Now()
			n := byTarget(do(t, spec(t, 5, open, closed)), func(r *probe.Result) {
				want, stamp := probe.Open, nativeStamp
				if r.Target == closed {
					want, stamp = probe.Closed, probe.StampUser
				}
				if r.Outcome != want || r.Stamp != stamp {
					t.Errorf("%s: %v by %v (%s), want %v by %v", r.Target, r.Outcome, r.Stamp, r.Err, want, stamp)
				}
				if r.RTT <= 0 || r.RTT > time.Second || r.Attempts != 1 || r.Retry != nil || r.Remote.String() != r.Target {
					t.Errorf("implausible result %+v", r)
				}
				if r.Time.Before(began.Round(0)) || r.Time.After(time.Now()) {
					t.Errorf("the SYN left at %v", r.Time)
				}
				if (r.HostDelay > 0) != (stamp == probe.StampTCPInfo) {
					t.Errorf("%v: host delay %v", r.Outcome, r.HostDelay)
				}
				if r.SynAck != nil || r.SYN != 0 {
					t.Errorf("a SYN-ACK that nobody saw: %+v", r.SynAck)
				}
			})
			if n[open] != 5 || n[closed] != 5 || len(n) != 2 {
				t.Errorf("results %v", n)
			}
		})
	}
}

func TestWhatIsSaidOfNamesAndFamilies(t *testing.T) {
	port := listen(t, "127.0.0.1:0")
	port = port[strings.LastIndexByte(port, ':'):]
	s := spec(t, 1, "localhost"+port, "[::1]"+port)
	s.Family = probe.IPv4
	n := byTarget(do(t, s), func(r *probe.Result) {
		switch {
		case r.Target == "localhost"+port && r.Outcome == probe.Open && r.Remote.String() == "127.0.0.1"+port:
		case r.Target == "[::1]"+port && r.Outcome == probe.Error && r.Err == "::1 is not an IPv4 address" && r.Attempts == 0:
		default:
			t.Errorf("%+v", r)
		}
	})
	if len(n) != 2 {
		t.Errorf("results %v", n)
	}
}

func TestWhatCannotBeDoneIsRefused(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*probe.Spec)
		want   string
	}{
		{"no target", func(s *probe.Spec) { s.Targets = nil }, "no target; name at least one, as in db.fra:5432"},
		{"another mode", func(s *probe.Spec) { s.Mode = probe.HalfOpen }, "mode half-open is not this engine's"},
		{"flows", func(s *probe.Spec) { s.Flows = 2 }, "mode connect cannot keep source ports; use half-open or full, or --flows 1"},
		{"ECN", func(s *probe.Spec) { s.Sending.ECN = true }, "mode connect cannot offer ECN, the host's settings decide about that; use half-open or full"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := spec(t, 1, "127.0.0.1:9")
			tt.change(&s)
			if err := New(Config{}).Do(context.Background(), s, nil); err == nil || err.Error() != tt.want {
				t.Errorf("error %v, want %s", err, tt.want)
			}
		})
	}
}

func TestDoEndsWithItsContext(t *testing.T) {
	s := spec(t, 0, listen(t, "127.0.0.1:0"))
	ctx, cancel := context.WithCancel(context.Background())
	n := 0
	err := New(Config{}).Do(ctx, s, func(*probe.Result) {
		if n++; n == 3 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || n < 3 {
		t.Errorf("%v after %d results", err, n)
	}
	if err := New(Config{}).Do(ctx, s, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestAnAnswerToOneOfSeveralSYNsHasNoRoundTrip(t *testing.T) {
	for _, outcome := range []probe.Outcome{probe.Open, probe.Closed} {
		f := flight{target: &target{}, tries: 2, syns: 3, waited: 3 * time.Second, found: found{outcome: outcome, rtt: time.Microsecond, syns: 2}}
		r := f.result()
		if r.Outcome != probe.Error || r.RTT != 0 || r.Err != errAmbiguous.Error() || r.Attempts != 3 ||
			r.Retry == nil || *r.Retry != (probe.Retry{Waited: 3 * time.Second}) {
			t.Errorf("%+v", r)
		}
	}
}
