package rawsock

import (
	"net/netip"
	"testing"
	"time"

	"github.com/synmesh/synmesh/internal/lab"
	"github.com/synmesh/synmesh/probe/packet"
)

// tapped returns what a tap on the node has seen leave, in order.
func tapped(t *testing.T, tap *Tap) []seen {
	t.Helper()
	var all []seen
	must(t, tap.Stamps(func(stamp, _ int64, b []byte) {
		var p packet.Packet
		if err := p.Decode(b); err != nil || p.Kind != packet.KindTCP {
			t.Fatalf("%x is of kind %d (%v), want TCP from its IP header on", b, p.Kind, err)
		}
		all = append(all, seen{p.TCP, stamp, len(b)})
	}))
	return all
}

func tapOn(t *testing.T, n *lab.Node) *Tap {
	t.Helper()
	return openOn(t, n, func() (*Tap, error) { return OpenTap(ourPorts) })
}

func TestATapSeesWhatAsksForAnAnswerLeave(t *testing.T) {
	from, to := pair(t)
	for _, v6 := range []bool{false, true} {
		src, dst := from.Addr4(), to.Addr4()
		if v6 {
			src, dst = from.Addr6(), to.Addr6()
		}
		ours, theirs := netip.AddrPortFrom(src, 61003), netip.AddrPortFrom(dst, 7000)
		tap := tapOn(t, from)
		c := captureOn(t, from, ourPorts)
		s := senderOn(t, from, v6, false)
		before := time.Now().UnixNano()
		send(t, s,
			tcp(t, netip.AddrPortFrom(src, 22), theirs, packet.SYN, 1, 0), // not ours
			tcp(t, ours, theirs, packet.RST, 2, 0),                        // asks for nothing
			tcp(t, ours, theirs, packet.SYN, 3, 0),
			tcp(t, ours, theirs, packet.FIN|packet.ACK, 4, 5))
		rst := takeUntil(t, c, 1)[0]
		all := tapped(t, tap)
		if len(all) != 2 || all[0].Seq != 3 || all[1].Seq != 4 {
			t.Fatalf("%d segments left, want our SYN and our FIN: %v", len(all), all)
		}
		syn := all[0]
		if syn.Src != ours || syn.Dst != theirs || syn.Flags != packet.SYN || syn.Stamp < before || rst.Stamp < syn.Stamp {
			t.Errorf("left at %d: %v, want it after %d and before the answer at %d", syn.Stamp, &syn.Segment, before, rst.Stamp)
		}
		if again := tapped(t, tap); again != nil {
			t.Errorf("%d segments were handed over twice", len(again))
		}
	}
}

func TestATapSeesNothingArrive(t *testing.T) {
	from, to := pair(t)
	tap := tapOn(t, to)
	c := captureOn(t, to, PortRange{7000, 7000})
	s := senderOn(t, from, false, false)
	ours := netip.AddrPortFrom(from.Addr4(), 61003)
	send(t, s, tcp(t, ours, netip.AddrPortFrom(to.Addr4(), 7000), packet.SYN, 1, 0))
	takeUntil(t, c, 1)
	if all := tapped(t, tap); all != nil {
		t.Errorf("%v has left, want nothing", all)
	}
}

func TestOnTheLoopbackATapSeesEverySYNOnce(t *testing.T) {
	const count = 2*batchLen + 3 // several batches
	for _, v6 := range []bool{false, true} {
		n := alone(t)
		tap := tapOn(t, n)
		s := senderOn(t, n, v6, false)
		a := netip.AddrPortFrom(loopback(v6), 61003)
		var ds []Datagram
		for seq := range uint32(count) {
			ds = append(ds, tcp(t, a, netip.AddrPortFrom(a.Addr(), 7000), packet.SYN, seq, 0))
		}
		send(t, s, ds...)
		all := tapped(t, tap)
		if len(all) != count {
			t.Fatalf("%d SYNs left, want %d", len(all), count)
		}
		for i, got := range all {
			if got.Seq != uint32(i) {
				t.Fatalf("SYN %d is %v", i, &got.Segment)
			}
		}
	}
}

// Both ways of stamping give the end of the packet where the segment is.
func TestATapsPacketsEndInTheSegment(t *testing.T) {
	n := alone(t)
	tap := tapOn(t, n)
	s := senderOn(t, n, false, false)
	a := netip.AddrPortFrom(loopback4, 61003)
	d := tcp(t, a, netip.AddrPortFrom(loopback4, 7000), packet.SYN, 77, 0)
	send(t, s, d)
	must(t, tap.Stamps(func(_, _ int64, b []byte) {
		var got packet.Segment
		if err := got.DecodeTail(b, len(d.Segment)); err != nil || got.Seq != 77 {
			t.Errorf("%x ends in %v (%v)", b, &got, err)
		}
	}))
}
