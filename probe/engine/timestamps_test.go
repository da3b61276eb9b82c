//go:build linux

package engine

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// flightTo is one from a port of ours to a port of a target.
func flightTo(local, port uint16) *flight {
	return &flight{local: local, way: &way{src: netip.MustParseAddr("192.0.2.1")},
		target: &target{plain: netip.AddrPortFrom(netip.MustParseAddr("198.51.100.1"), port)}}
}

// TIME_WAIT at the target takes a new connection only if its timestamp is
// later, whichever process opened the one before.
func TestTheTimestampsOfAFlowRiseOverTheLivesOfEngines(t *testing.T) {
	eachWay(t, func(t *testing.T, n network, to netip.Addr, stamping Stamping) {
		r := respond(t, n, 443)
		r.act(plot{})
		s := spec(t, 3, netip.AddrPortFrom(to, 443).String())
		s.Flows, s.Timeout = 2, 50*time.Millisecond
		inside(t, n.from, func() {
			for range 2 {
				do(t, start(t, Config{Stamping: stamping}), s) // the first runs on, and has given its ports back
			}
		})
		eventually(t, func() string {
			if got := len(r.segments()); got != 12 {
				return fmt.Sprintf("%d SYNs were heard of 12", got)
			}
			return ""
		})
		last := make(map[uint16]uint32)
		for _, syn := range r.segments() {
			port, next := syn.Src.Port(), syn.Options.TSVal
			if before, known := last[port]; known && (int32(next-before) <= 0 || next-before > 60_000) {
				t.Errorf("port %d: timestamp %d after %d", port, next, before)
			}
			last[port] = next
		}
		if apart := int32(last[61000] - last[61001]); len(last) != 2 || apart > -1000 && apart < 1000 {
			t.Errorf("timestamps %v of two flows tell of each other", last) // by chance once in two million times
		}
	})
}

func TestATimestampTellsNothingOfThoseToOtherPorts(t *testing.T) {
	e := &Engine{key: offsetKey()}
	rapid.Check(t, func(t *rapid.T) {
		local, port := rapid.Uint16().Draw(t, "local"), rapid.Uint16().Draw(t, "port")
		for bit := range 32 {
			one, other := flightTo(local, port), flightTo(local^uint16(uint32(1)<<bit>>16), port^uint16(uint32(1)<<bit))
			if e.offset(one.tuple()) == e.offset(other.tuple()) {
				t.Fatalf("ports %d and %d have the offset of %d and %d", local, port, other.local, other.target.plain.Port())
			}
		}
	})
	near := 0
	for port := range uint16(1000) {
		if ahead := int32(e.offset(flightTo(61000, port).tuple())); ahead > -100_000 && ahead < 100_000 {
			near++ // of 1000, 0.05 are to be expected
		}
	}
	if near > 3 {
		t.Errorf("%d of 1000 timestamps are the clock's, to within 100 s", near)
	}
	if other := (&Engine{key: [16]byte{1}}); other.offset(flightTo(1, 2).tuple()) == e.offset(flightTo(1, 2).tuple()) {
		t.Error("engines with different keys have the same offsets")
	}
}
