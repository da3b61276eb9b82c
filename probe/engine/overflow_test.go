//go:build linux

package engine

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/probe/packet"
	"github.com/synmesh/synmesh/probe/rawsock"
)

// overfull is more packets than a socket buffer of ours holds.
const overfull = 100_000

// Whether an answer was among what had no room nobody knows, so the probe is no loss.
func TestAnOverflowOfTheCaptureIsAnErrorAndTheRunGoesOn(t *testing.T) {
	eachWay(t, func(t *testing.T, n network, to netip.Addr, stamping Stamping) {
		r := respond(t, n, 443)
		flood := brew(t, n, DefaultPorts.First)
		s := spec(t, 2, netip.AddrPortFrom(to, 443).String())
		s.Interval, s.Timeout = 3*time.Second, 2*time.Second
		inside(t, n.from, func() {
			e := start(t, Config{Stamping: stamping})
			answer := seg(synAck)
			r.act(plot{"SYN 1": {{packet: func(h *heard, s *packet.Segment) ([]byte, error) {
				e.mu.Lock() // the engine does not get to read what comes
				defer e.mu.Unlock()
				flood.begin(overfull)
				<-flood.over
				b, err := answer.packet(h, s)
				if err == nil {
					r.out.send(b)
				}
				return b, err // and once more
			}}}, "SYN 2": {seg(synAck)}})
			rs := do(t, e, s)
			if len(rs) != 2 {
				t.Fatalf("%d results, want 2", len(rs))
			}
			if r := rs[0]; r.Outcome != probe.Error || r.Drops == 0 || r.Err == "" {
				t.Errorf("%v %q with %d drops, want an error with drops", r.Outcome, r.Err, r.Drops)
			}
			if r := rs[1]; r.Outcome != probe.Open || r.Drops != 0 {
				t.Errorf("%v %q with %d drops, want open without", r.Outcome, r.Err, r.Drops)
			}
			if st := e.Stats(); st.Drops == 0 || st.Drops+st.Strays < overfull {
				t.Errorf("counted %+v", st)
			}
		})
	})
}

// The tap sees what others send from our ports, too.
func TestAnOverflowOfTheTapIsAnErrorAndTheRunGoesOn(t *testing.T) {
	eachWay(t, func(t *testing.T, n network, to netip.Addr, stamping Stamping) {
		listenOn(t, n.to, "tcp", ":443")
		silence(t, n, 444)
		s := spec(t, 1, netip.AddrPortFrom(to, 443).String())
		s.Timeout = scriptedTimeout
		inside(t, n.from, func() {
			e := start(t, Config{Stamping: stamping})
			sendFrom(t, addressOf(n.from, to), netip.AddrPortFrom(to, 444))
			first, second := do(t, e, s), do(t, e, s)
			switch r := first[0]; {
			case stamping == Quiet: // others do not fill the queue of our socket
				if r.Outcome != probe.Open {
					t.Errorf("%v %q, want open", r.Outcome, r.Err)
				}
			case r.Outcome != probe.Error || r.Err != "the kernel gave no stamp of the SYN, which was answered":
				t.Errorf("%v %q, want an error for want of a stamp", r.Outcome, r.Err)
			}
			if r := second[0]; r.Outcome != probe.Open || r.RTT <= 0 {
				t.Errorf("%v %q, want open", r.Outcome, r.Err)
			}
		})
	})
}

// sendFrom sends more SYNs from the range's last port than a tap holds.
func sendFrom(t *testing.T, src netip.Addr, to netip.AddrPort) {
	t.Helper()
	sender, err := rawsock.OpenSender(src.Is6(), false)
	must(t, err)
	defer sender.Close()
	syn := packet.LinuxSYN(src, to, 1460)
	syn.Src = netip.AddrPortFrom(src, DefaultPorts.Last)
	b, err := packet.AppendTCP(nil, &syn)
	must(t, err)
	batch := make([]rawsock.Datagram, 64)
	for i := range batch {
		batch[i] = rawsock.Datagram{Src: src, Dst: to.Addr(), Segment: b}
	}
	for range overfull / len(batch) {
		_, err := sender.Send(batch)
		must(t, err)
	}
}

// The stamps of SYNs wait in a buffer for the first answer, and who has not the
// run of the host gets no more of it than the system grants everybody.
func TestTheStampsOfABurstHaveRoom(t *testing.T) {
	n := farHosts(t, 50*time.Millisecond)
	const burst = 1000
	var hosts []string
	for port := 1; port <= burst; port++ {
		hosts = append(hosts, netip.AddrPortFrom(n.to.Addr4(), uint16(port)).String())
	}
	s := spec(t, 1, hosts...)
	s.Interval = 20 * time.Millisecond // so that all have left before the first answer
	for _, stamping := range []Stamping{Quiet, Tap} {
		t.Run(stamping.String(), func(t *testing.T) {
			inside(t, n.from, func() {
				told := make(map[string]int)
				for _, r := range do(t, start(t, Config{Stamping: stamping}), s) {
					told[fmt.Sprint(r.Outcome, " ", r.Err)]++
				}
				if told["closed "] != burst {
					t.Errorf("%v, want %d closed", told, burst)
				}
			})
		})
	}
}
