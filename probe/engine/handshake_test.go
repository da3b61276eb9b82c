//go:build linux

package engine

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/probe/packet"
	"github.com/synmesh/synmesh/probe/rawsock"
)

func TestAFullHandshakeOpensAndClosesInOrder(t *testing.T) {
	n := twoHosts(t)
	accepted := make(chan string, 100)
	serve(t, n, ":443", func(c net.Conn) {
		b, err := io.ReadAll(c) // until our FIN
		accepted <- fmt.Sprintf("%d bytes, %v", len(b), err)
	})
	serve(t, n, ":22", func(c net.Conn) {
		fmt.Fprint(c, "SSH-2.0-talks first\r\n")
		_, _ = io.ReadAll(c)
	})
	for _, stamping := range []Stamping{Quiet, Tap} {
		for _, host := range []string{n.to.Addr4().String(), "[" + n.to.Addr6().String() + "]"} {
			t.Run(stamping.String()+" "+host, func(t *testing.T) {
				s := spec(t, 5, host+":443", host+":22", host+":9")
				s.Mode, s.Interval = probe.Full, 200*time.Millisecond
				var rs []probe.Result
				inside(t, n.from, func() { rs = do(t, start(t, Config{Stamping: stamping}), s) })
				if len(rs) != 15 {
					t.Fatalf("%d results, want 15", len(rs))
				}
				for _, r := range rs {
					if strings.HasSuffix(r.Target, ":9") {
						if r.Outcome != probe.Closed || r.Close != nil {
							t.Errorf("%+v", r)
						}
						continue
					}
					if r.Outcome != probe.Open || r.Close == nil {
						t.Fatalf("%v %s", r.Outcome, r.Err)
					}
					if c := r.Close; c.Ending != probe.Orderly || c.Ack <= 0 || c.Ack > 50*time.Millisecond || c.Fin <= 0 {
						t.Errorf("%s: close %+v", r.Target, c)
					}
				}
				for range 5 {
					if got := <-accepted; got != "0 bytes, <nil>" {
						t.Errorf("the target saw %s", got)
					}
				}
			})
		}
	}
	if n := halfOpen(t, n); n != 0 {
		t.Errorf("%d connections are left at the target", n)
	}
}

func TestATargetThatResetsOrKeepsAConnectionIsTold(t *testing.T) {
	n := twoHosts(t)
	serve(t, n, ":80", func(c net.Conn) {
		_ = c.(*net.TCPConn).SetLinger(0) // the close becomes a RST
	})
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	serve(t, n, ":81", func(net.Conn) { <-release })
	s := spec(t, 1, n.to.Addr4().String()+":80", n.to.Addr4().String()+":81")
	s.Mode, s.Timeout = probe.Full, 200*time.Millisecond
	inside(t, n.from, func() {
		got := make(map[string]probe.Ending)
		for _, r := range do(t, start(t, Config{}), s) {
			if r.Outcome != probe.Open || r.RTT <= 0 {
				t.Fatalf("%v %s", r.Outcome, r.Err)
			}
			got[r.Target[strings.LastIndex(r.Target, ":"):]] = r.Close.Ending
		}
		if got[":80"] != probe.Reset || got[":81"] != probe.Unclosed {
			t.Errorf("endings %v", got)
		}
	})
}

// scripted answers the SYNs to a port as a test says, from a raw socket of its own.
type scripted struct {
	t      *testing.T
	sender *rawsock.Sender
}

// script has answer called for every SYN that comes to the port on the node.
func script(t *testing.T, n network, port uint16, answer func(s *scripted, syn *packet.Segment, count int)) {
	t.Helper()
	var capture *rawsock.Capture
	var guard *rawsock.Guard
	s := &scripted{t: t}
	must(t, n.to.Do(func() (err error) {
		if guard, err = rawsock.HoldPort(port); err != nil {
			return err
		}
		if err = guard.Silence(); err != nil {
			return err
		}
		if capture, err = rawsock.OpenCapture(rawsock.PortRange{First: port, Last: port}); err != nil {
			return err
		}
		s.sender, err = rawsock.OpenSender(false, false)
		return err
	}))
	done := make(chan struct{})
	go func() {
		defer close(done)
		var p packet.Packet
		count := 0
		for capture.Wait(true) == nil {
			_ = capture.Take(func(frames []rawsock.Frame, _ uint64) {
				for _, f := range frames {
					if p.Decode(f.Data) == nil && p.Kind == packet.KindTCP && p.TCP.Flags&(packet.SYN|packet.ACK) == packet.SYN {
						count++
						answer(s, &p.TCP, count)
					}
				}
			})
		}
	}()
	t.Cleanup(func() {
		capture.Close()
		<-done
		guard.Close()
		s.sender.Close()
	})
}

// reply sends a segment that answers a SYN, changed by change.
func (s *scripted) reply(syn *packet.Segment, flags packet.Flags, change func(*packet.Segment)) {
	r := packet.Segment{Src: syn.Dst, Dst: syn.Src, Seq: 1000, Ack: syn.Seq + 1, Flags: flags, Window: 1000}
	r.Options = packet.Options{HasMSS: true, MSS: 1460, Timestamps: true, TSVal: 1, TSEcr: syn.Options.TSVal}
	if change != nil {
		change(&r)
	}
	b, err := packet.AppendTCP(nil, &r)
	if err == nil {
		_, err = s.sender.Send([]rawsock.Datagram{{Src: r.Src.Addr(), Dst: r.Dst.Addr(), Segment: b}})
	}
	if err != nil {
		s.t.Error(err)
	}
}

const synAck = packet.SYN | packet.ACK

func TestRetriesTellWhatWasLostAndWhichSYNWasAnswered(t *testing.T) {
	n := twoHosts(t)
	var first packet.Segment
	for _, c := range []struct {
		name   string
		answer func(s *scripted, syn *packet.Segment, count int)
		want   probe.Retry
		rtt    time.Duration // about
	}{
		{"a lost SYN", func(s *scripted, syn *packet.Segment, count int) {
			if count == 2 {
				s.reply(syn, synAck, nil)
			}
		}, probe.Retry{Answered: 2, Lost: probe.LostSYN}, 0},
		{"a lost SYN-ACK", func(s *scripted, syn *packet.Segment, count int) {
			if count == 1 {
				first = *syn
			} else if count == 2 {
				s.reply(&first, synAck, nil) // Linux echoes the first timestamp
			}
		}, probe.Retry{Answered: 1, Lost: probe.LostSYNACK}, 0},
		{"a target without timestamps", func(s *scripted, syn *packet.Segment, count int) {
			if count == 2 {
				s.reply(syn, synAck, func(r *packet.Segment) { r.Options.Timestamps = false })
			}
		}, probe.Retry{}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			script(t, n, 443, c.answer)
			s := spec(t, 1, n.to.Addr4().String()+":443")
			s.Retries, s.Timeout = 2, 100*time.Millisecond
			inside(t, n.from, func() {
				rs := do(t, start(t, Config{}), s)
				r := rs[0]
				if len(rs) != 1 || r.Outcome != probe.Open || r.Attempts != 2 || r.Retry == nil {
					t.Fatalf("%+v", rs)
				}
				if r.Retry.Answered != c.want.Answered || r.Retry.Lost != c.want.Lost {
					t.Errorf("retry %+v, want %+v", *r.Retry, c.want)
				}
				if w := r.Retry.Waited; w < 990*time.Millisecond || w > 1500*time.Millisecond {
					t.Errorf("waited %v, want about 1s", w)
				}
				if off := r.RTT - c.rtt; off < 0 || off > 300*time.Millisecond {
					t.Errorf("round trip %v, want about %v", r.RTT, c.rtt)
				}
			})
		})
	}
}

func TestASYNThatIsNeverAnsweredIsSentAsOftenAsAsked(t *testing.T) {
	n := twoHosts(t)
	syns := make(chan packet.Segment, 10)
	script(t, n, 443, func(_ *scripted, syn *packet.Segment, _ int) { syns <- *syn })
	s := spec(t, 1, n.to.Addr4().String()+":443")
	s.Retries, s.Timeout = 1, 50*time.Millisecond
	inside(t, n.from, func() {
		rs := do(t, start(t, Config{}), s)
		if len(rs) != 1 || rs[0].Outcome != probe.Timeout || rs[0].Attempts != 2 {
			t.Errorf("%+v", rs)
		}
	})
	one, two := <-syns, <-syns
	if one.Seq != two.Seq || one.Src != two.Src || one.Options.TSVal == two.Options.TSVal {
		t.Errorf("not the same SYN with another timestamp: %v, %v", &one, &two)
	}
	if len(syns) > 0 {
		t.Error("a SYN too many")
	}
}

func TestWhatIsNoAnswerIsCountedAndNeverTakenForOne(t *testing.T) {
	n := twoHosts(t)
	script(t, n, 443, func(s *scripted, syn *packet.Segment, _ int) {
		s.reply(syn, packet.ACK, nil)                                               // a challenge
		s.reply(syn, synAck, func(r *packet.Segment) { r.Ack++ })                   // a wrong acknowledgement
		s.reply(syn, packet.RST|packet.ACK, func(r *packet.Segment) { r.Ack -= 2 }) // another
		s.reply(syn, packet.RST, nil)                                               // a RST that acknowledges nothing
		s.reply(syn, synAck, func(r *packet.Segment) { r.Src = netip.AddrPortFrom(r.Src.Addr(), 444) })
		s.reply(syn, synAck, func(r *packet.Segment) { r.Seq = 77 }) // this one is right
		s.reply(syn, synAck, func(r *packet.Segment) { r.Seq = 78 }) // and this one comes too late
	})
	inside(t, n.from, func() {
		e := start(t, Config{})
		rs := do(t, e, spec(t, 10, n.to.Addr4().String()+":443"))
		for _, r := range rs {
			if r.Outcome != probe.Open || r.SynAck.Seq != 77 {
				t.Errorf("%v %+v", r.Outcome, r.SynAck)
			}
		}
		st := e.Stats()
		if len(rs) != 10 || st.Challenges != 10 || st.Strays+st.Duplicates != 50 {
			t.Errorf("%d results, %+v", len(rs), st)
		}
	})
}

func TestALateAnswerIsNoAnswer(t *testing.T) {
	n := twoHosts(t)
	script(t, n, 443, func(s *scripted, syn *packet.Segment, _ int) {
		late := *syn
		time.AfterFunc(150*time.Millisecond, func() { s.reply(&late, synAck, nil) })
	})
	s := spec(t, 2, n.to.Addr4().String()+":443")
	s.Timeout, s.Interval = 50*time.Millisecond, 200*time.Millisecond
	inside(t, n.from, func() {
		e := start(t, Config{})
		for _, r := range do(t, e, s) {
			if r.Outcome != probe.Timeout {
				t.Errorf("%+v", r)
			}
		}
		if st := e.Stats(); st.Strays != 1 {
			t.Errorf("%+v", st)
		}
	})
	time.Sleep(150 * time.Millisecond) // the last timer uses the responder's sockets
}

// serve accepts connections on the far host and closes each after handle.
func serve(t *testing.T, n network, address string, handle func(net.Conn)) {
	t.Helper()
	var l net.Listener
	must(t, n.to.Do(func() (err error) {
		l, err = (&net.ListenConfig{}).Listen(context.Background(), "tcp", address)
		return err
	}))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				handle(c)
				c.Close()
			}()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
}

// halfOpen counts the connections at the far host that are neither established nor in TIME_WAIT.
func halfOpen(t *testing.T, n network) int {
	t.Helper()
	count := 0
	must(t, n.to.Do(func() error {
		for _, family := range []uint8{2, 10} {
			sockets, err := netlink.SocketDiagTCP(family)
			if err != nil {
				return err
			}
			for _, s := range sockets {
				if s.State != netlink.TCP_LISTEN && s.State != netlink.TCP_TIME_WAIT {
					count++
				}
			}
		}
		return nil
	}))
	return count
}

func TestSYNCookiesAreToldFromOtherSequenceNumbers(t *testing.T) {
	n := twoHosts(t)
	listenOn(t, n.to, "tcp", ":443")
	for setting, want := range map[string]string{"0": "unlikely", "2": "likely"} { // 2: always
		must(t, n.to.Do(func() error {
			return os.WriteFile("/proc/sys/net/ipv4/tcp_syncookies", []byte(setting), 0) // for IPv6, too
		}))
		for _, to := range []netip.Addr{n.to.Addr4(), n.to.Addr6()} {
			inside(t, n.from, func() {
				var sum probe.Summary
				for _, r := range do(t, start(t, Config{}), spec(t, 10, netip.AddrPortFrom(to, 443).String())) {
					sum.Add(&r)
				}
				if got := sum.Cookies(); got != want {
					t.Errorf("%s, tcp_syncookies=%s: %s, want %s", to, setting, got, want)
				}
			})
		}
	}
}

func TestSYNsLeaveAsAsked(t *testing.T) {
	n := twoHosts(t)
	syns := make(chan packet.Segment, 10)
	script(t, n, 443, func(s *scripted, syn *packet.Segment, _ int) {
		syns <- *syn
		s.reply(syn, synAck|packet.ECE, nil)
	})
	for _, c := range []struct {
		name string
		how  probe.Sending
		ok   func(syn packet.Segment) bool
	}{
		{"with the defaults of Linux", probe.Sending{}, func(s packet.Segment) bool { return s.TOS == 0 && s.TTL == 63 && s.Flags == packet.SYN }},
		{"with a DSCP", probe.Sending{DSCP: 46}, func(s packet.Segment) bool { return s.TOS == 46<<2 }},
		{"with a TTL", probe.Sending{TTL: 9}, func(s packet.Segment) bool { return s.TTL == 8 }},
		{"offering ECN", probe.Sending{ECN: true}, func(s packet.Segment) bool { return s.Flags == packet.SYN|packet.ECE|packet.CWR }},
		{"from an address", probe.Sending{Source: n.from.Addr4()}, func(s packet.Segment) bool { return s.Src.Addr() == n.from.Addr4() }},
		{"by an interface", probe.Sending{Interface: n.from.Interface()}, func(s packet.Segment) bool { return s.Src.Addr() == n.from.Addr4() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := spec(t, 1, n.to.Addr4().String()+":443")
			s.Sending = c.how
			inside(t, n.from, func() {
				for _, r := range do(t, start(t, Config{}), s) {
					if r.Outcome != probe.Open || !r.SynAck.ECN {
						t.Fatalf("%v %s", r.Outcome, r.Err)
					}
				}
			})
			if syn := <-syns; !c.ok(syn) {
				t.Errorf("TOS %d, TTL %d: %v", syn.TOS, syn.TTL, &syn)
			}
		})
	}
	for says, how := range map[string]probe.Sending{
		"source":                       {Source: netip.MustParseAddr("10.99.0.1")},
		`interface "nowhere"`:          {Interface: "nowhere"},
		"are of different IP versions": {Source: n.from.Addr6()},
	} {
		s := spec(t, 1, n.to.Addr4().String()+":443")
		s.Sending = how
		inside(t, n.from, func() {
			for _, r := range do(t, start(t, Config{}), s) {
				if r.Outcome != probe.Error || !strings.Contains(r.Err, says) {
					t.Errorf("%v %q, want an error about %s", r.Outcome, r.Err, says)
				}
			}
		})
	}
}
