//go:build linux

package engine

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/probe/packet"
	"github.com/synmesh/synmesh/probe/rawsock"
)

// synsTo captures what comes to a port of the far host, and returns a function
// that counts the SYNs so far by their source port.
func synsTo(t *testing.T, n network, port uint16) func() map[uint16]int {
	t.Helper()
	var c *rawsock.Capture
	must(t, n.to.Do(func() (err error) {
		c, err = rawsock.OpenCapture(rawsock.PortRange{First: port, Last: port})
		return err
	}))
	t.Cleanup(func() { must(t, c.Close()) })
	counts := make(map[uint16]int)
	return func() map[uint16]int {
		var p packet.Packet
		must(t, c.Take(func(frames []rawsock.Frame, _ uint64) {
			for _, f := range frames {
				if p.Decode(f.Data) == nil && p.Kind == packet.KindTCP && p.TCP.Flags == packet.SYN {
					counts[p.TCP.Src.Port()]++
				}
			}
		}))
		return counts
	}
}

// eachNeighbour runs a test with both IP versions and both kinds of stamps on
// a host that knows no neighbour, whose target is so far away.
func eachNeighbour(t *testing.T, oneWay time.Duration, test func(t *testing.T, n network, to netip.Addr, stamping Stamping)) {
	for _, version := range []string{"IPv4", "IPv6"} {
		for _, stamping := range []Stamping{Quiet, Tap} {
			t.Run(stamping.String()+" "+version, func(t *testing.T) {
				t.Parallel()
				n := farHosts(t, oneWay)
				to := n.to.Addr4()
				if version == "IPv6" {
					to = n.to.Addr6()
				}
				inside(t, n.from, func() {
					forget(t)
					test(t, n, to, stamping)
				})
			})
		}
	}
}

// The kernel asks for the neighbour, which takes a round trip, and the warm-up
// waits for it. The probe comes after.
func TestAWarmUpHasTheNeighbourKnownBeforeTheFirstProbe(t *testing.T) {
	const oneWay = 50 * time.Millisecond
	for _, mode := range []probe.Mode{probe.HalfOpen, probe.Full} {
		t.Run(mode.String(), func(t *testing.T) {
			eachNeighbour(t, oneWay, func(t *testing.T, n network, to netip.Addr, stamping Stamping) {
				listenOn(t, n.to, "tcp", ":443")
				syns := synsTo(t, n, 443)
				s := spec(t, 2, netip.AddrPortFrom(to, 443).String())
				s.Mode, s.Interval = mode, 20*oneWay
				e := start(t, Config{Stamping: stamping})
				rs := do(t, e, s)
				for i, r := range rs {
					if r.Outcome != probe.Open || r.RTT < 2*oneWay || r.RTT >= 4*oneWay {
						t.Errorf("probe %d: %v after %v %s", i, r.Outcome, r.RTT, r.Err)
					}
					if r.NeighbourLookup || r.HostDelay >= 2*oneWay || r.LocalPort != 61000 {
						t.Errorf("probe %d: lookup %t with a host delay of %v from port %d", i, r.NeighbourLookup, r.HostDelay, r.LocalPort)
					}
				}
				if late := rs[0].Lateness; len(rs) != 2 || late < 4*oneWay {
					t.Errorf("%d results, the first late by %v, want the time of the lookup and of the warm-up's handshake", len(rs), late)
				}
				if got := fmt.Sprint(syns()); got != "map[61000:2 61001:1]" {
					t.Errorf("the target heard SYNs from ports %s", got)
				}
				if st := e.Stats(); st.WarmUps != 1 || st.Sent != 3 || st.Strays+st.Duplicates+st.Challenges != 0 {
					t.Errorf("counted %+v", st)
				}
				do(t, e, s)
				if st := e.Stats(); st.WarmUps != 1 || st.Sent != 5 {
					t.Errorf("counted %+v once the neighbour is known", st)
				}
				if len(e.ports.lent) != 0 {
					t.Errorf("ports %v are not given back", e.ports.lent)
				}
			})
		})
	}
}

// Then it says so, and the time of the lookup is not in the round trip.
func TestAProbeThatCouldNotWaitForTheWarmUpTellsOfALookup(t *testing.T) {
	const oneWay = 150 * time.Millisecond
	eachNeighbour(t, oneWay, func(t *testing.T, n network, to netip.Addr, stamping Stamping) {
		listenOn(t, n.to, "tcp", ":443")
		s := spec(t, 1, netip.AddrPortFrom(to, 443).String())
		s.Timeout, s.Retries = 100*time.Millisecond, 1 // so that the first SYN gets a second
		e := start(t, Config{Stamping: stamping})
		rs := do(t, e, s)
		if r := rs[0]; len(rs) != 1 || r.Outcome != probe.Open || r.Attempts != 1 || r.RTT < 2*oneWay || r.RTT >= 4*oneWay {
			t.Fatalf("%+v", rs)
		}
		if r := rs[0]; !r.NeighbourLookup || r.HostDelay < oneWay || r.Lateness < s.Timeout {
			t.Errorf("lookup %t with a host delay of %v, late by %v", r.NeighbourLookup, r.HostDelay, r.Lateness)
		}
		eventually(t, func() string { // the warm-up's answer is nobody's by then
			if st := e.Stats(); st.WarmUps != 1 || st.Strays != 1 {
				return fmt.Sprintf("counted %+v", st)
			}
			return ""
		})
	})
}

func TestATargetWithoutANeighbourHoldsUpNobodyElse(t *testing.T) {
	n := twoHosts(t)
	listenOn(t, n.to, "tcp", ":443")
	inside(t, n.from, func() {
		forget(t)
		e := start(t, Config{})
		nobody := netip.AddrPortFrom(addressOfNobody(n), 443).String()
		s := spec(t, 3, nobody, netip.AddrPortFrom(n.to.Addr4(), 443).String())
		s.Interval, s.Timeout, s.Flows = 100*time.Millisecond, 2*time.Second, 2
		var last, first time.Time // of the others, of nobody's
		count := 0
		for _, r := range do(t, e, s) {
			switch {
			case r.Target == nobody:
				count++
				if !r.NeighbourLookup || r.Outcome == probe.Open {
					t.Errorf("%v without a neighbour, lookup %t", r.Outcome, r.NeighbourLookup)
				}
				if first.IsZero() || r.Time.Before(first) {
					first = r.Time
				}
			case r.Outcome != probe.Open:
				t.Errorf("%v %s", r.Outcome, r.Err)
			case r.Time.After(last):
				last = r.Time
			}
		}
		if count != 6 || !last.Before(first) {
			t.Errorf("%d results of 6, the first at %v; the target that answers was last probed at %v", count, first, last)
		}
		if st := e.Stats(); st.WarmUps != 2 || st.Sent != 14 {
			t.Errorf("counted %+v", st)
		}
	})
}

func TestWithoutAPortForItThereIsNoWarmUp(t *testing.T) {
	n := twoHosts(t)
	listenOn(t, n.to, "tcp", ":443")
	inside(t, n.from, func() {
		forget(t)
		e := start(t, Config{Ports: rawsock.PortRange{First: 61000, Last: 61000}})
		rs := do(t, e, spec(t, 1, netip.AddrPortFrom(n.to.Addr4(), 443).String()))
		if st := e.Stats(); len(rs) != 1 || rs[0].Outcome != probe.Open || !rs[0].NeighbourLookup || st.WarmUps != 0 {
			t.Errorf("%+v, counted %+v", rs, st)
		}
	})
}

func TestAWarmUpThatCannotLeaveLeavesTheErrorToTheProbe(t *testing.T) {
	n := twoHosts(t)
	inside(t, n.from, func() {
		forget(t)
		e := start(t, Config{})
		must(t, e.senders[1].Close())
		e.senders[1] = nil
		rs := do(t, e, spec(t, 2, netip.AddrPortFrom(n.to.Addr6(), 443).String()))
		for _, r := range rs {
			if r.Outcome != probe.Error || !strings.Contains(r.Err, "no IPv6") {
				t.Errorf("%v %s", r.Outcome, r.Err)
			}
		}
		if st := e.Stats(); len(rs) != 2 || st.WarmUps != 1 || st.Sent != 0 {
			t.Errorf("%d results, counted %+v", len(rs), st)
		}
	})
}

func TestAWarmUpEndsWithItsTask(t *testing.T) {
	n := twoHosts(t)
	inside(t, n.from, func() {
		forget(t)
		e := start(t, Config{})
		s := spec(t, 5, netip.AddrPortFrom(addressOfNobody(n), 443).String())
		s.Timeout = probe.MaxTimeout
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		ended := make(chan error, 1)
		go func() {
			ended <- e.Do(ctx, s, func(r *probe.Result) { t.Errorf("%+v", r) })
		}()
		eventually(t, func() string {
			if e.Stats().WarmUps == 0 {
				return "no warm-up"
			}
			return ""
		})
		if e.Holds(61001) || !e.Holds(61000) {
			t.Error("the port of the warm-up is held for probes, or that of the probes is not")
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Do: %v", err)
		}
		if len(e.table) != 0 || len(e.ports.lent) != 0 {
			t.Errorf("%d flights and ports %v are left", len(e.table), e.ports.lent)
		}
	})
}
