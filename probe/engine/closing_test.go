//go:build linux

package engine

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/probe/packet"
)

const finAck = packet.FIN | packet.ACK

// said has the target speak some bytes further on in what it says.
func said(n uint32) func(*packet.Segment, *heard) {
	return func(r *packet.Segment, _ *heard) { r.Seq += n }
}

// unsure has the target not acknowledge the FIN that it answers.
func unsure(r *packet.Segment, _ *heard) { r.Ack-- }

func banner(r *packet.Segment, _ *heard) { r.Payload = []byte("220 hello\r\n") }

const bannerLen = 11

// closing is a plot of a full handshake, and what has to be told of it.
type closing struct {
	name   string
	plot   plot
	ending probe.Ending
	ack    bool // whether the FIN's acknowledgement is timed
	fin    bool // whether the target's FIN is
	after  time.Duration
	heard  map[string]int // at the target, in the end
	last   uint32         // what the last ACK or RST acknowledges, as far as the target has spoken
}

func closings() []closing {
	const soon = 20 * time.Millisecond
	opens := []reply{seg(synAck)}
	return []closing{
		{name: "an ACK, then a FIN", plot: plot{"SYN 1": opens, "FIN 1": {seg(packet.ACK), seg(finAck).in(soon)}},
			ending: probe.Orderly, ack: true, fin: true, heard: map[string]int{"SYN": 1, "ACK": 2, "FIN": 1}, last: 1},
		{name: "a FIN that acknowledges ours", plot: plot{"SYN 1": opens, "FIN 1": {seg(finAck)}},
			ending: probe.Orderly, ack: true, fin: true, heard: map[string]int{"SYN": 1, "ACK": 2, "FIN": 1}, last: 1},
		{name: "a FIN before it has ours", plot: plot{"SYN 1": opens, "FIN 1": {seg(finAck, unsure), seg(packet.ACK, said(1)).in(soon)}},
			ending: probe.Orderly, ack: true, fin: true, heard: map[string]int{"SYN": 1, "ACK": 2, "FIN": 1}, last: 1},
		{name: "a greeting first", plot: plot{"SYN 1": opens, "ACK 1": {seg(packet.ACK|packet.PSH, banner)}, "FIN 1": {seg(finAck, said(bannerLen)).in(soon)}},
			ending: probe.Orderly, ack: true, fin: true, heard: map[string]int{"SYN": 1, "ACK": 3, "FIN": 1}, last: bannerLen + 1},
		{name: "a FIN that overtakes the greeting", plot: plot{"SYN 1": opens,
			"FIN 1": {seg(finAck, said(bannerLen)), seg(packet.ACK|packet.PSH, banner).in(soon), seg(finAck, said(bannerLen)).in(2 * soon)}},
			ending: probe.Orderly, ack: true, fin: true, heard: map[string]int{"SYN": 1, "ACK": 4, "FIN": 1}, last: bannerLen + 1},
		{name: "our FIN lost once", plot: plot{"SYN 1": opens, "FIN 2": {seg(packet.ACK), seg(finAck)}}, after: scriptedTimeout / maxFins,
			ending: probe.Orderly, ack: true, fin: true, heard: map[string]int{"SYN": 1, "ACK": 2, "FIN": 2}, last: 1},
		{name: "our FIN lost twice", plot: plot{"SYN 1": opens, "FIN 3": {seg(finAck)}}, after: 2 * scriptedTimeout / maxFins,
			ending: probe.Orderly, ack: true, fin: true, heard: map[string]int{"SYN": 1, "ACK": 2, "FIN": 3}, last: 1},
		{name: "our ACK of its FIN lost once", plot: plot{"SYN 1": opens, "FIN 1": {seg(finAck), seg(finAck).in(soon)}},
			ending: probe.Orderly, ack: true, fin: true, heard: map[string]int{"SYN": 1, "ACK": 3, "FIN": 1}, last: 1},
		{name: "our ACK of its SYN-ACK lost once", plot: plot{"SYN 1": {seg(synAck), seg(synAck).in(soon)}, "FIN 1": {seg(finAck).in(2 * soon)}},
			ending: probe.Orderly, ack: true, fin: true, heard: map[string]int{"SYN": 1, "ACK": 3, "FIN": 1}, last: 1},
		{name: "its ACK of our FIN lost", plot: plot{"SYN 1": opens, "FIN 2": {seg(finAck)}}, after: scriptedTimeout / maxFins,
			ending: probe.Orderly, ack: true, fin: true, heard: map[string]int{"SYN": 1, "ACK": 2, "FIN": 2}, last: 1},
		{name: "a RST", plot: plot{"SYN 1": opens, "FIN 1": {seg(packet.RST, said(targetISN+1), ackNone)}},
			ending: probe.Reset, heard: map[string]int{"SYN": 1, "ACK": 1, "FIN": 1}},
		{name: "an ACK, then a RST", plot: plot{"SYN 1": opens, "FIN 1": {seg(packet.ACK), seg(packet.RST|packet.ACK, said(targetISN+1)).in(soon)}},
			ending: probe.Reset, ack: true, heard: map[string]int{"SYN": 1, "ACK": 1, "FIN": 1}},
		{name: "a RST that is blind, then a FIN", plot: plot{"SYN 1": opens, "FIN 1": {seg(packet.RST, said(targetISN+100), ackNone), seg(finAck)}},
			ending: probe.Orderly, ack: true, fin: true, heard: map[string]int{"SYN": 1, "ACK": 2, "FIN": 1}, last: 1},
		{name: "no FIN", plot: plot{"SYN 1": opens, "FIN 1": {seg(packet.ACK)}},
			ending: probe.Unclosed, ack: true, heard: map[string]int{"SYN": 1, "ACK": 1, "FIN": 1, "RST": 1}},
		{name: "a FIN and no ACK of ours", plot: plot{"SYN 1": opens, "FIN 1": {seg(finAck, unsure)}},
			ending: probe.Unclosed, fin: true, heard: map[string]int{"SYN": 1, "ACK": 2, "FIN": maxFins, "RST": 2}, last: 1},
		{name: "nothing more", plot: plot{"SYN 1": opens},
			ending: probe.Unclosed, heard: map[string]int{"SYN": 1, "ACK": 1, "FIN": maxFins, "RST": 2}},
		{name: "an ACK of what was never sent", plot: plot{"SYN 1": opens, "FIN 1": {seg(packet.ACK, ackAbove)}},
			ending: probe.Unclosed, heard: map[string]int{"SYN": 1, "ACK": 1, "FIN": maxFins, "RST": 2}},
	}
}

func TestEveryWayToCloseAConnectionIsTold(t *testing.T) {
	eachWay(t, func(t *testing.T, n network, to netip.Addr, stamping Stamping) {
		r := respond(t, n, 443)
		// Do goes on until this one's time is up, and so hears what comes after the other's result.
		silence(t, n, 444)
		s := spec(t, 1, netip.AddrPortFrom(to, 443).String(), netip.AddrPortFrom(to, 444).String())
		s.Mode, s.Timeout = probe.Full, scriptedTimeout
		for _, c := range closings() {
			t.Run(c.name, func(t *testing.T) {
				r.act(c.plot)
				inside(t, n.from, func() {
					for _, result := range do(t, start(t, Config{Stamping: stamping}), s) {
						if result.Remote.Port() == 443 {
							c.tells(t, &result)
						}
					}
					c.hears(t, r)
				})
			})
		}
	})
}

func (c *closing) tells(t *testing.T, r *probe.Result) {
	t.Helper()
	if r.Outcome != probe.Open || r.Attempts != 1 || r.RTT <= 0 || r.RTT > scriptedTimeout || r.Close == nil {
		t.Fatalf("%v %q, %d SYNs, round trip %v, close %v", r.Outcome, r.Err, r.Attempts, r.RTT, r.Close)
	}
	got := r.Close
	if got.Ending != c.ending || (got.Ack > 0) != c.ack || (got.Fin > 0) != c.fin {
		t.Errorf("close %+v, want %v, timed %v and %v", *got, c.ending, c.ack, c.fin)
	}
	if c.after > 0 && (got.Ack < c.after || got.Ack > c.after+scriptedTimeout) {
		t.Errorf("acknowledged %v after our first FIN, want about %v", got.Ack, c.after)
	}
}

// hears checks what came to the target.
func (c *closing) hears(t *testing.T, r *responder) {
	t.Helper()
	eventually(t, func() string {
		if got := r.counts(); fmt.Sprint(got) != fmt.Sprint(c.heard) {
			return fmt.Sprintf("the target heard %v, want %v", got, c.heard)
		}
		return ""
	})
	all := r.segments()
	isn := all[0].Seq
	for _, s := range all[1:] {
		switch {
		case s.Flags&packet.SYN != 0:
			t.Errorf("another SYN: %v", &s)
		case s.Flags&packet.FIN != 0 && s.Seq != isn+1:
			t.Errorf("a FIN of number %d, want %d", s.Seq-isn, 1)
		case s.Ack-targetISN < 1 || s.Ack-targetISN > 1+bannerLen+1:
			t.Errorf("it acknowledges what the target never said: %v", &s)
		}
	}
	if end := all[len(all)-1]; c.ending != probe.Reset && end.Ack != targetISN+1+c.last {
		t.Errorf("the last segment acknowledges %d, want %d", end.Ack-targetISN, 1+c.last)
	}
}
