//go:build !386 && !s390x

package connect

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synmesh/synmesh/internal/lab"
	"github.com/synmesh/synmesh/probe"
)

func TestATargetThatDoesNotAnswerTimesOut(t *testing.T) {
	n := twoHosts(t, nil)
	inside(t, n.to, func() { swallow(t, n.from) })
	inside(t, n.from, func() {
		s := spec(t, 3, at(n.to.Addr4(), 443), at(n.to.Addr6(), 443))
		s.Timeout = 50 * time.Millisecond
		began := time.Now()
		count := byTarget(do(t, s), func(r *probe.Result) {
			if r.Outcome != probe.Timeout || r.RTT != 0 || r.Attempts != 1 || r.Err != "" || r.LocalPort == 0 {
				t.Errorf("%+v", r)
			}
		})
		if took := time.Since(began); took < 70*time.Millisecond || took > 800*time.Millisecond {
			t.Errorf("it took %v", took)
		}
		if count[s.Targets[0].Name] != 3 || count[s.Targets[1].Name] != 3 {
			t.Errorf("results %v", count)
		}
	})
}

// There is one probe for each network: from the second on, a router of Linux
// does not answer each packet that it has no route for.
func TestWhatARouterSaysIsUnreachable(t *testing.T) {
	for _, tt := range []struct {
		address   string
		typ, code uint8
	}{{"10.99.0.1:443", 3, 0}, {"[fd99::1]:443", 1, 0}, {"10.99.0.2:443", 3, 13}, {"[fd99::2]:443", 1, 1}} {
		t.Run(tt.address, func(t *testing.T) {
			n := twoHosts(t, nil)
			inside(t, n.router, func() { // which has no route to the others
				route(t, "10.99.0.2/32", unix.RTN_PROHIBIT)
				route(t, "fd99::2/128", unix.RTN_PROHIBIT)
			})
			inside(t, n.from, func() {
				want := probe.ICMP{Type: tt.typ, Code: tt.code, From: n.router.Addr4()}
				if tt.address[0] == '[' {
					want.From = n.router.Addr6()
				}
				rs := do(t, spec(t, 1, tt.address))
				if len(rs) != 1 || rs[0].Outcome != probe.Unreachable || rs[0].ICMP == nil || *rs[0].ICMP != want ||
					rs[0].RTT != 0 || rs[0].Attempts != 1 || rs[0].Err != "" {
					t.Errorf("%+v, want %+v", rs, want)
				}
			})
		})
	}
}

// The kernel makes ECONNREFUSED of a port unreachable, as it does of a RST.
// Packet filters send it for ports that they guard.
func TestAPortUnreachableIsNoRST(t *testing.T) {
	n := twoHosts(t, nil)
	inside(t, n.router, func() {
		complain(t, n.router, "10.99.0.3/32", "fd99::3/128", map[bool]probe.ICMP{false: {Type: 3, Code: 3}, true: {Type: 1, Code: 4}})
	})
	inside(t, n.from, func() {
		count := byTarget(do(t, spec(t, 2, "10.99.0.3:443", "[fd99::3]:443")), func(r *probe.Result) {
			want := probe.ICMP{Type: 3, Code: 3, From: n.router.Addr4()}
			if r.Remote.Addr().Is6() {
				want = probe.ICMP{Type: 1, Code: 4, From: n.router.Addr6()}
			}
			if r.Outcome != probe.Unreachable || r.ICMP == nil || *r.ICMP != want {
				t.Errorf("%v %q %+v, want %+v", r.Outcome, r.Err, r.ICMP, want)
			}
		})
		if len(count) != 2 {
			t.Errorf("results %v", count)
		}
	})
}

func TestATargetThatCannotBeReachedFromHereIsAnError(t *testing.T) {
	inside(t, oneHost(t), func() {
		count := byTarget(do(t, spec(t, 2, "10.99.0.1:443", "[fd99::1]:443", "[fe80::1%nowhere]:443", "127.0.0.1:9")), func(r *probe.Result) {
			want := "no route from this host"
			switch {
			case r.Remote.Addr().Zone() != "":
				want = `zone "nowhere"`
			case r.Remote.Addr().IsLoopback():
				if r.Outcome != probe.Closed {
					t.Errorf("%+v", r)
				}
				return
			}
			if r.Outcome != probe.Error || !strings.Contains(r.Err, want) || r.Attempts != 0 || r.Stamp != probe.StampTCPInfo {
				t.Errorf("%+v", r)
			}
		})
		if len(count) != 4 {
			t.Errorf("results %v", count)
		}
	})
}

// The handshake was whole, whatever the target does with the connection.
func TestATargetThatResetsTheConnectionAtOnceIsOpen(t *testing.T) {
	inside(t, oneHost(t), func() {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		acceptAll(t, l, func(c net.Conn) {
			_, _ = c.Write([]byte("220 who is there?\r\n"))
			must(t, c.(*net.TCPConn).SetLinger(0))
			c.Close()
		})
		rs := do(t, spec(t, 20, l.Addr().String()))
		for _, r := range rs {
			if r.Outcome != probe.Open || r.Stamp != probe.StampTCPInfo || r.RTT <= 0 {
				t.Errorf("%+v", r)
			}
		}
		if len(rs) != 20 {
			t.Errorf("%d results", len(rs))
		}
	})
}

func TestALostSYNIsSentAgainAndTheRoundTripIsThatOfTheAnswered(t *testing.T) {
	t.Parallel()
	n := twoHosts(t, &lab.Impairment{Delay: 5 * time.Millisecond})
	listenOn(t, n.to, ":443")
	must(t, n.link.Down())
	mended := time.AfterFunc(500*time.Millisecond, func() { _ = n.link.Up() })
	defer mended.Stop()
	inside(t, n.from, func() {
		s := spec(t, 1, at(n.to.Addr4(), 443), at(n.to.Addr6(), 444))
		s.Retries = 1
		count := byTarget(do(t, s), func(r *probe.Result) {
			want := probe.Open
			if r.Remote.Port() == 444 {
				want = probe.Closed
			}
			if r.Outcome != want || r.Attempts != 2 || r.RTT < 10*time.Millisecond || r.RTT > 500*time.Millisecond {
				t.Errorf("%+v", r)
			}
			if r.Retry == nil || r.Retry.Answered != 2 || r.Retry.Lost != probe.LostUnknown ||
				r.Retry.Waited < 1010*time.Millisecond || r.Retry.Waited > 1500*time.Millisecond {
				t.Errorf("retry %+v", r.Retry)
			}
		})
		if len(count) != 2 {
			t.Errorf("results %v", count)
		}
	})
}

// This is why connections are given up before the kernel sends a second SYN.
func TestTheKernelDoesNotMeasureARoundTripAfterASecondSYN(t *testing.T) {
	t.Parallel()
	const rtt = 4500 * time.Microsecond
	n := twoHosts(t, &lab.Impairment{Delay: rtt / 2})
	listenOn(t, n.to, ":443")
	must(t, n.link.Down())
	mended := time.AfterFunc(500*time.Millisecond, func() { _ = n.link.Up() })
	defer mended.Stop()
	inside(t, n.from, func() {
		var conns []*conn
		for _, timestamps := range []string{"1", "0"} {
			setting(t, "ipv4/tcp_timestamps", timestamps)
			c, err := dial(netip.AddrPortFrom(n.to.Addr4(), 443), &probe.Sending{}, 2500*time.Millisecond)
			must(t, err)
			conns = append(conns, c)
		}
		for i, c := range conns {
			d := c.wait()
			t.Logf("timestamps %v: TCP_INFO says %v after %d SYNs, of a round trip of %v", i == 0, d.rtt, d.syns, rtt)
			f := flight{target: &target{}, began: c.called, tries: 1, syns: d.syns, found: d}
			if r := f.result(); d.syns != 2 || r.Outcome != probe.Error || r.RTT != 0 || r.Retry == nil {
				t.Errorf("%+v", r)
			}
		}
	})
}

func TestNoRoundTripIsWrongWhereALotIsLost(t *testing.T) {
	t.Parallel()
	n := twoHosts(t, &lab.Impairment{Delay: 5 * time.Millisecond, Loss: 0.2, Duplicate: 0.1})
	listenOn(t, n.to, ":443")
	inside(t, n.from, func() {
		s := spec(t, 100, at(n.to.Addr4(), 443))
		s.Retries, s.Timeout = 1, 100*time.Millisecond
		outcomes, retried := make(map[probe.Outcome]int), 0
		for _, r := range do(t, s) {
			outcomes[r.Outcome]++
			if r.Outcome == probe.Open && (r.RTT < 10*time.Millisecond || r.RTT > 500*time.Millisecond) {
				t.Errorf("a round trip of %v, with %+v", r.RTT, r.Retry)
			}
			if (r.Attempts > 1) != (r.Retry != nil) && r.Outcome == probe.Open || r.Attempts > 2 {
				t.Errorf("%+v", r)
			}
			if r.Retry != nil {
				retried++
			}
		}
		// Of a hundred first SYNs, 36 are lost or have their answer lost.
		if outcomes[probe.Open]+outcomes[probe.Timeout] != 100 || outcomes[probe.Open] < 60 || retried < 10 {
			t.Errorf("%v, %d of them answered at the second SYN", outcomes, retried)
		}
	})
}

func TestThereAreNoMoreSYNsThanAskedFor(t *testing.T) {
	t.Parallel()
	n := twoHosts(t, nil)
	inside(t, n.to, func() { swallow(t, n.from) })
	inside(t, n.from, func() {
		wire := captureWire(t)
		s := spec(t, 1, at(n.to.Addr4(), 443))
		s.Retries, s.Timeout = 1, probe.MaxTimeout
		began := time.Now()
		rs := do(t, s)
		if took := time.Since(began); took < time.Second+MaxWait || took > time.Second+MaxWait+300*time.Millisecond {
			t.Errorf("it took %v", took)
		}
		wire.drain(t)
		if len(rs) != 1 || rs[0].Outcome != probe.Timeout || rs[0].Attempts != 2 || len(wire.syns) != 2 {
			t.Errorf("%+v; %d SYNs", rs, len(wire.syns))
		}
	})
}

func TestManyMoreTargetsThanConnectionsAreProbedOnceEach(t *testing.T) {
	n := twoHosts(t, nil)
	inside(t, n.to, func() { swallow(t, n.from) })
	inside(t, n.from, func() {
		s := spec(t, 1, at(n.to.Addr4(), 1)[:len(at(n.to.Addr4(), 1))-1]+"1000-3999")
		s.Interval, s.Timeout = probe.MinInterval, 100*time.Millisecond
		var late time.Duration
		count := byTarget(do(t, s), func(r *probe.Result) {
			if r.Outcome != probe.Timeout {
				t.Fatalf("%+v", r)
			}
			late = max(late, r.Lateness)
		})
		if len(count) != 3000 || late < 90*time.Millisecond {
			t.Errorf("%d targets have results; the latest was late by %v", len(count), late)
		}
		for target, n := range count {
			if n != 1 {
				t.Errorf("%s: %d results", target, n)
			}
		}
	})
}

func TestWhatIsCancelledLeavesNothingBehind(t *testing.T) {
	n := twoHosts(t, nil)
	inside(t, n.to, func() { swallow(t, n.from) })
	inside(t, n.from, func() {
		s := spec(t, 0, at(n.to.Addr4(), 443))
		s.Interval, s.Retries = probe.MinInterval, 1
		before := openFiles(t)
		e := New(Config{})
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		began := time.Now()
		err := e.Do(ctx, s, func(r *probe.Result) { t.Errorf("%+v", r) })
		if took := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || took > 800*time.Millisecond {
			t.Errorf("Do: %v after %v", err, took)
		}
		if n := openFiles(t); n != before {
			t.Errorf("%d files are open, %d were", n, before)
		}
		if len(e.room) != 0 {
			t.Errorf("%d places are taken", len(e.room))
		}
	})
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(entries)
}

// With two source ports to choose from, a SYN to one of them soon comes from itself.
func TestAPortThatIsClosedDoesNotAnswerItself(t *testing.T) {
	inside(t, oneHost(t), func() {
		setting(t, "ipv4/ip_local_port_range", "40000 40001")
		for _, address := range []string{"127.0.0.1:40000", "127.0.0.1:40001", "[::1]:40000", "[::1]:40001"} {
			for _, r := range do(t, spec(t, 10, address)) {
				if r.Outcome != probe.Closed {
					t.Errorf("%s: %v %s", address, r.Outcome, r.Err)
				}
			}
		}
	})
}

func TestAProbeForWhichThereIsNoPortSaysSo(t *testing.T) {
	n := twoHosts(t, nil)
	var l net.Listener
	inside(t, n.to, func() {
		var err error
		l, err = net.Listen("tcp", at(n.to.Addr4(), 443))
		must(t, err)
	})
	acceptAll(t, l, func(c net.Conn) { t.Cleanup(func() { c.Close() }) }) // so that the prober is the first to close
	inside(t, n.from, func() {
		setting(t, "ipv4/ip_local_port_range", "40000 40003")
		outcomes := make(map[probe.Outcome]int)
		for _, r := range do(t, spec(t, 10, at(n.to.Addr4(), 443))) {
			outcomes[r.Outcome]++
			if r.Outcome == probe.Error && !strings.HasPrefix(r.Err, "no source port is left for "+r.Target) {
				t.Errorf("error %q", r.Err)
			}
		}
		if outcomes[probe.Open] != 4 || outcomes[probe.Error] != 6 {
			t.Errorf("outcomes %v", outcomes)
		}
	})
}

func TestSYNsLeaveAsAsked(t *testing.T) {
	n := twoHosts(t, nil)
	listenOn(t, n.to, ":443")
	for _, tt := range []struct {
		name    string
		sending probe.Sending
		ttl     uint8
		tos     uint8
		want    string // of the first error
	}{
		{"as the host does it", probe.Sending{}, 64, 0, ""},
		{"with a TTL", probe.Sending{TTL: 9}, 9, 0, ""},
		{"with a DSCP", probe.Sending{DSCP: 46}, 64, 46 << 2, ""},
		{"by an interface", probe.Sending{Interface: "eth0"}, 64, 0, ""},
		{"by one that is not there", probe.Sending{Interface: "eth7"}, 0, 0, `interface "eth7": no such device`},
		{"from an address of another version", probe.Sending{Source: netip.MustParseAddr("fd99::7")}, 0, 0, "the source fd99::7 and the target are of different IP versions"},
		{"from an address of another host", probe.Sending{Source: netip.MustParseAddr("10.99.0.7")}, 0, 0, "send from 10.99.0.7: cannot assign requested address"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inside(t, n.from, func() {
				wire := captureWire(t)
				s := spec(t, 2, at(n.to.Addr4(), 443), at(n.to.Addr6(), 443))
				s.Sending = tt.sending
				rs := do(t, s)
				wire.drain(t)
				if tt.want != "" {
					if rs[0].Err != tt.want || len(wire.syns) != 0 {
						t.Errorf("%+v; %d SYNs", rs[0], len(wire.syns))
					}
					return
				}
				for _, r := range rs {
					if r.Outcome != probe.Open {
						t.Errorf("%+v", r)
					}
				}
				for _, syn := range wire.syns {
					if syn.ttl != tt.ttl || syn.tos != tt.tos {
						t.Errorf("SYN with TTL %d and TOS %#x, want %d and %#x", syn.ttl, syn.tos, tt.ttl, tt.tos)
					}
				}
				if len(wire.syns) != 4 {
					t.Errorf("%d SYNs", len(wire.syns))
				}
			})
		})
	}
}

func TestSYNsLeaveFromTheAddressAskedFor(t *testing.T) {
	inside(t, oneHost(t), func() {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		from := make(chan string, 3)
		acceptAll(t, l, func(c net.Conn) {
			from <- c.RemoteAddr().String()
			c.Close()
		})
		s := spec(t, 3, l.Addr().String())
		s.Sending.Source = netip.MustParseAddr("127.0.0.9")
		for _, r := range do(t, s) {
			if got, want := <-from, fmt.Sprintf("127.0.0.9:%d", r.LocalPort); got != want {
				t.Errorf("connection from %s, want %s", got, want)
			}
		}
	})
}

func TestAnErrorThatIsNoICMPOrIsCutShort(t *testing.T) {
	whole := make([]byte, 16+unix.SizeofSockaddrInet4)
	whole[4], whole[5], whole[6] = originICMP, 3, 1
	whole[16] = unix.AF_INET // on a machine with the low byte first
	whole[17] = unix.AF_INET // and on one with the high byte first
	for length := range whole {
		if icmp, err := parseError(whole[:length]); icmp != nil || err == nil {
			t.Errorf("%d bytes: %+v, %v", length, icmp, err)
		}
	}
	whole[4] = 1 // SO_EE_ORIGIN_LOCAL
	if icmp, err := parseError(whole); icmp != nil || err != nil {
		t.Errorf("an error of this host: %+v, %v", icmp, err)
	}
	whole[4], whole[6] = originICMP, 4 // fragmentation needed
	if icmp, err := parseError(whole); icmp != nil || err != nil {
		t.Errorf("a smaller MTU: %+v, %v", icmp, err)
	}
}
