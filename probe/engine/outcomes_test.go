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

const (
	scriptedTimeout = 250 * time.Millisecond
	tooLate         = 400 * time.Millisecond
)

var (
	bare     = func(r *packet.Segment, _ *heard) { r.Options = packet.Options{} }
	ackAbove = func(r *packet.Segment, _ *heard) { r.Ack++ }
	ackBelow = func(r *packet.Segment, _ *heard) { r.Ack-- }
	ackNone  = func(r *packet.Segment, _ *heard) { r.Ack = 0 }
	toFirst  = func(r *packet.Segment, h *heard) { r.Options.TSEcr = h.syns[0].Options.TSVal }
	toOther  = func(r *packet.Segment, h *heard) { r.Options.TSEcr = h.syns[0].Options.TSVal + 1 }
	toNone   = func(r *packet.Segment, _ *heard) { r.Options.TSEcr = 0 }
	echoing  = func(r *packet.Segment, _ *heard) { r.Options = packet.Options{Timestamps: true, TSVal: 7, TSEcr: 8} }
	mute     = func(r *packet.Segment, _ *heard) { r.Options.Timestamps = false }
	// forged SYN-ACKs are right but for one thing.
	fromPort  = func(r *packet.Segment, _ *heard) { r.Src = netip.AddrPortFrom(r.Src.Addr(), r.Src.Port()+1) }
	toPort    = func(r *packet.Segment, _ *heard) { r.Dst = netip.AddrPortFrom(r.Dst.Addr(), r.Dst.Port()+1) }
	fromOther = func(r *packet.Segment, _ *heard) { r.Src = netip.AddrPortFrom(routerOf(r.Src.Addr()), r.Src.Port()) }
)

// likeLinux is what seg's SYN-ACKs say.
var likeLinux = probe.SynAck{Seq: targetISN, Window: 4321, MSS: 1400, WindowScale: 7, SACKPermitted: true, Timestamps: true, TTL: 57}

// scene is a plot, and what has to be told of it.
type scene struct {
	name    string
	plot    plot
	change  func(*probe.Spec)
	outcome probe.Outcome
	synAck  *probe.SynAck // like likeLinux if nil
	icmp    probe.ICMP    // From is routerOf the target
	retry   *probe.Retry  // Waited apart
	tries   int           // SYNs; 0 is 1
	untimed bool
	stats   Stats // Sent apart
	resets  int   // of our host, that the target hears
}

func retried(s *probe.Spec) { s.Retries = 1 }

// scenes are those of half-open handshakes.
func scenes(v6 bool) []scene {
	return append([]scene{
		{name: "a SYN-ACK with all options", plot: plot{"SYN 1": {seg(synAck)}}, outcome: probe.Open, resets: 1},
		{name: "a SYN-ACK without options", plot: plot{"SYN 1": {seg(synAck, bare)}}, outcome: probe.Open, resets: 1,
			synAck: &probe.SynAck{Seq: targetISN, Window: 4321, WindowScale: -1, TTL: 57}},
		{name: "a RST that acknowledges", plot: plot{"SYN 1": {seg(packet.RST | packet.ACK)}}, outcome: probe.Closed},
		{name: "a RST that acknowledges nothing", plot: plot{"SYN 1": {seg(packet.RST, ackNone)}}, outcome: probe.Timeout, stats: Stats{Strays: 1}}, // RFC 9293 section 3.10.7.3
		{name: "silence", outcome: probe.Timeout},
		{name: "a challenge, then a SYN-ACK", plot: plot{"SYN 1": {seg(packet.ACK, ackAbove), seg(synAck)}}, outcome: probe.Open, stats: Stats{Challenges: 1}, resets: 2},
		{name: "SYN-ACKs that acknowledge something else, then the right one", outcome: probe.Open, stats: Stats{Strays: 3}, resets: 4,
			plot: plot{"SYN 1": {seg(synAck, ackAbove), seg(synAck, ackBelow), seg(synAck, ackNone), seg(synAck)}}},
		{name: "only SYN-ACKs that acknowledge something else", outcome: probe.Timeout, stats: Stats{Strays: 2}, resets: 2,
			plot: plot{"SYN 1": {seg(synAck, ackAbove), seg(synAck, ackBelow)}}},
		{name: "SYN-ACKs that echo another timestamp, then the right one", outcome: probe.Open, stats: Stats{Strays: 2}, resets: 3,
			plot: plot{"SYN 1": {seg(synAck, toOther), seg(synAck, toOther, ackAbove), seg(synAck)}}},
		{name: "only a SYN-ACK that echoes another timestamp", outcome: probe.Timeout, stats: Stats{Strays: 1}, resets: 1,
			plot: plot{"SYN 1": {seg(synAck, toOther)}}},
		{name: "a SYN-ACK that echoes no timestamp", plot: plot{"SYN 1": {seg(synAck, toNone)}}, outcome: probe.Open, resets: 1},
		{name: "a SYN-ACK with all but timestamps", plot: plot{"SYN 1": {seg(synAck, mute)}}, outcome: probe.Open, resets: 1,
			synAck: &probe.SynAck{Seq: targetISN, Window: 4321, MSS: 1400, WindowScale: 7, SACKPermitted: true, TTL: 57}},
		{name: "a RST that echoes another timestamp", plot: plot{"SYN 1": {seg(packet.RST|packet.ACK, echoing)}}, outcome: probe.Closed}, // RFC 7323 section 3.2 asks a RST for no timestamps
		{name: "RSTs that acknowledge something else, then a SYN-ACK", outcome: probe.Open, stats: Stats{Strays: 2}, resets: 1,
			plot: plot{"SYN 1": {seg(packet.RST|packet.ACK, ackAbove), seg(packet.RST|packet.ACK, ackBelow), seg(synAck)}}},
		{name: "a SYN-ACK three times", plot: plot{"SYN 1": {seg(synAck), seg(synAck).in(20 * time.Millisecond), seg(synAck).in(40 * time.Millisecond)}},
			outcome: probe.Open, stats: Stats{Strays: 2}, resets: 3},
		{name: "a SYN-ACK too late", plot: plot{"SYN 1": {seg(synAck).in(tooLate)}}, outcome: probe.Timeout, stats: Stats{Strays: 1}, resets: 1},
		{name: "a RST too late", plot: plot{"SYN 1": {seg(packet.RST | packet.ACK).in(tooLate)}}, outcome: probe.Timeout, stats: Stats{Strays: 1}},
		{name: "a SYN-ACK from another port", plot: plot{"SYN 1": {seg(synAck, fromPort)}}, outcome: probe.Timeout, stats: Stats{Strays: 1}},
		{name: "a SYN-ACK to another port", plot: plot{"SYN 1": {seg(synAck, toPort)}}, outcome: probe.Timeout, stats: Stats{Strays: 1}, resets: 1},
		{name: "a SYN-ACK from another address", plot: plot{"SYN 1": {seg(synAck, fromOther)}}, outcome: probe.Timeout,
			stats: Stats{Strays: 2}}, // the router has no way back for our kernel's RST, and says so
		{name: "a SYN-ACK with a RST in it", plot: plot{"SYN 1": {seg(synAck | packet.RST), seg(synAck)}}, outcome: probe.Open, stats: Stats{Strays: 1}, resets: 1},
		{name: "a SYN of the target's own, then a SYN-ACK", plot: plot{"SYN 1": {seg(packet.SYN), seg(synAck)}}, outcome: probe.Open, resets: 2},

		{name: "a lost SYN", change: retried, plot: plot{"SYN 2": {seg(synAck)}}, outcome: probe.Open, tries: 2,
			retry: &probe.Retry{Answered: 2, Lost: probe.LostSYN}, resets: 1},
		{name: "a lost SYN-ACK", change: retried, plot: plot{"SYN 2": {seg(synAck, toFirst)}}, outcome: probe.Open, tries: 2,
			retry: &probe.Retry{Answered: 1, Lost: probe.LostSYNACK}, untimed: true, resets: 1},
		{name: "a SYN-ACK to one of two SYNs that echoes another timestamp, then one to the second", change: retried, outcome: probe.Open, tries: 2,
			plot:  plot{"SYN 2": {seg(synAck, toOther), seg(synAck)}},
			retry: &probe.Retry{Answered: 2, Lost: probe.LostSYN}, stats: Stats{Strays: 1}, resets: 2},
		{name: "a SYN-ACK without timestamps to one of two SYNs", change: retried, plot: plot{"SYN 2": {seg(synAck, mute)}}, outcome: probe.Open, tries: 2,
			synAck: &probe.SynAck{Seq: targetISN, Window: 4321, MSS: 1400, WindowScale: 7, SACKPermitted: true, TTL: 57},
			retry:  &probe.Retry{}, untimed: true, resets: 1},
		{name: "a RST to one of two SYNs", change: retried, plot: plot{"SYN 2": {seg(packet.RST | packet.ACK)}}, outcome: probe.Closed, tries: 2,
			retry: &probe.Retry{}, untimed: true},
		{name: "two SYNs without an answer", change: retried, outcome: probe.Timeout, tries: 2},
	}, routerScenes(v6)...)
}

// routerScenes are those in which somebody on the way says something about the SYN.
func routerScenes(v6 bool) []scene {
	kinds := [][2]uint8{{3, 0}, {3, 1}, {3, 3}, {3, 9}, {3, 10}, {3, 13}, {11, 0}, {12, 0}}
	tooBig := icmp(3, 4, mtuOf(1280))
	if v6 {
		kinds = [][2]uint8{{1, 0}, {1, 1}, {1, 3}, {1, 4}, {1, 5}, {1, 6}, {3, 0}, {4, 1}}
		tooBig = icmp(2, 0, mtuOf(1280))
	}
	var scenes []scene
	for _, k := range kinds {
		scenes = append(scenes, scene{name: fmt.Sprintf("an ICMP error of type %d and code %d", k[0], k[1]),
			plot: plot{"SYN 1": {icmp(k[0], k[1])}}, outcome: probe.Unreachable, icmp: probe.ICMP{Type: k[0], Code: k[1]}})
	}
	k := kinds[0]
	said := probe.ICMP{Type: k[0], Code: k[1]}
	scenes = append(scenes,
		scene{name: "an ICMP error, then a SYN-ACK", plot: plot{"SYN 1": {icmp(k[0], k[1]), seg(synAck).in(20 * time.Millisecond)}},
			outcome: probe.Unreachable, icmp: said, stats: Stats{Strays: 1}, resets: 1},
		scene{name: "an ICMP error to the second SYN", change: retried, plot: plot{"SYN 2": {icmp(k[0], k[1])}},
			outcome: probe.Unreachable, icmp: said, tries: 2},
		scene{name: "an ICMP error that tells of a smaller MTU, then a SYN-ACK", plot: plot{"SYN 1": {tooBig, seg(synAck)}},
			outcome: probe.Open, stats: Stats{Strays: 1}, resets: 1},
	)
	for name, change := range map[string]func(*packet.ICMPError, *packet.Segment){
		"number":        func(_ *packet.ICMPError, about *packet.Segment) { about.Seq++ },
		"target's port": func(_ *packet.ICMPError, about *packet.Segment) { about.Dst = netip.AddrPortFrom(about.Dst.Addr(), 9) },
		"source port": func(_ *packet.ICMPError, about *packet.Segment) {
			about.Src = netip.AddrPortFrom(about.Src.Addr(), about.Src.Port()+1)
		},
		"target address": func(_ *packet.ICMPError, about *packet.Segment) {
			about.Dst = netip.AddrPortFrom(routerOf(about.Dst.Addr()), about.Dst.Port())
		},
	} {
		scenes = append(scenes, scene{name: "an ICMP error that quotes another " + name + ", then a SYN-ACK",
			plot: plot{"SYN 1": {icmp(k[0], k[1], change), seg(synAck)}}, outcome: probe.Open, stats: Stats{Strays: 1}, resets: 1})
	}
	return scenes
}

func mtuOf(mtu uint32) func(*packet.ICMPError, *packet.Segment) {
	return func(e *packet.ICMPError, _ *packet.Segment) { e.MTU = mtu }
}

func TestEveryOutcomeIsToldOfWhatATargetDoes(t *testing.T) {
	eachWay(t, func(t *testing.T, n network, to netip.Addr, stamping Stamping) {
		r := respond(t, n, 443)
		for _, c := range scenes(to.Is6()) {
			t.Run(c.name, func(t *testing.T) {
				r.act(c.plot)
				s := spec(t, 1, netip.AddrPortFrom(to, 443).String())
				s.Timeout = scriptedTimeout
				if c.change != nil {
					c.change(&s)
				}
				inside(t, n.from, func() {
					e := start(t, Config{Stamping: stamping})
					rs := do(t, e, s)
					if len(rs) != 1 {
						t.Fatalf("%d results, want 1", len(rs))
					}
					c.tells(t, &rs[0], routerOf(to))
					c.counts(t, e, r)
				})
			})
		}
	})
}

// tells checks a result.
func (c *scene) tells(t *testing.T, r *probe.Result, router netip.Addr) {
	t.Helper()
	tries := max(c.tries, 1)
	if r.Outcome != c.outcome || r.Attempts != tries || r.Drops != 0 {
		t.Errorf("%v %q after %d SYNs with %d drops, want %v after %d", r.Outcome, r.Err, r.Attempts, r.Drops, c.outcome, tries)
	}
	timed := c.outcome.Answered() && !c.untimed
	if r.Timed() != timed || timed && (r.RTT <= 0 || r.RTT > scriptedTimeout) || !timed && r.RTT != 0 {
		t.Errorf("a round trip of %v, timed: %v, want %v", r.RTT, r.Timed(), timed)
	}
	want := likeLinux
	if c.synAck != nil {
		want = *c.synAck
	}
	if (r.SynAck != nil) != (c.outcome == probe.Open) || r.SynAck != nil && *r.SynAck != want {
		t.Errorf("SYN-ACK %+v, want %+v", r.SynAck, want)
	}
	c.icmp.From = router
	if (r.ICMP != nil) != (c.outcome == probe.Unreachable) || r.ICMP != nil && *r.ICMP != c.icmp {
		t.Errorf("ICMP %+v, want %+v", r.ICMP, c.icmp)
	}
	if (r.Retry != nil) != (c.retry != nil) || r.Retry != nil && (r.Retry.Answered != c.retry.Answered || r.Retry.Lost != c.retry.Lost) {
		t.Errorf("retry %+v, want %+v", r.Retry, c.retry)
	}
	if r.Retry != nil && (r.Retry.Waited < 990*time.Millisecond || r.Retry.Waited > 2*time.Second) {
		t.Errorf("waited %v, want about 1s", r.Retry.Waited)
	}
}

// counts checks what the engine and the target have seen, now or soon.
func (c *scene) counts(t *testing.T, e *Engine, r *responder) {
	t.Helper()
	want := c.stats
	want.Sent = uint64(max(c.tries, 1))
	eventually(t, func() string {
		got := e.Stats()
		// A further answer is a duplicate or a stray, as the flight is still there or not.
		got.Strays, got.Duplicates = got.Strays+got.Duplicates, 0
		if heard := r.counts(); got != want || heard["RST"] != c.resets || heard["SYN"] != int(want.Sent) {
			return fmt.Sprintf("counted %+v, want %+v; the target heard %v, want %d resets", got, want, heard, c.resets)
		}
		return ""
	})
}
