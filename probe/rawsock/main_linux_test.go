package rawsock

import (
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/synmesh/synmesh/internal/lab"
	"github.com/synmesh/synmesh/probe/packet"
)

func TestMain(m *testing.M) {
	if err := lab.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

var (
	loopback4 = netip.MustParseAddr("127.0.0.1")
	loopback6 = netip.MustParseAddr("::1")
)

func loopback(v6 bool) netip.Addr {
	if v6 {
		return loopback6
	}
	return loopback4
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// alone returns a host that has a loopback interface and nothing else.
func alone(t testing.TB) *lab.Node {
	t.Helper()
	l, err := lab.New()
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	n, err := l.Host("host")
	must(t, err)
	return n
}

// pair returns two hosts that are joined by a wire.
func pair(t testing.TB) (from, to *lab.Node) {
	t.Helper()
	l, err := lab.New()
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	from, err = l.Host("from")
	must(t, err)
	to, err = l.Host("to")
	must(t, err)
	_, err = l.Wire(from, to)
	must(t, err)
	must(t, l.Route())
	return from, to
}

// openOn opens something in the node's network and closes it with the test.
func openOn[T interface{ Close() error }](t testing.TB, n *lab.Node, open func() (T, error)) T {
	t.Helper()
	var v T
	must(t, n.Do(func() (err error) { v, err = open(); return err }))
	t.Cleanup(func() { must(t, v.Close()) })
	return v
}

func senderOn(t testing.TB, n *lab.Node, v6, stamped bool) *Sender {
	t.Helper()
	return openOn(t, n, func() (*Sender, error) { return OpenSender(v6, stamped) })
}

func captureOn(t testing.TB, n *lab.Node, ports PortRange) *Capture {
	t.Helper()
	return openOn(t, n, func() (*Capture, error) { return OpenCapture(ports) })
}

// tcp returns a segment to be sent.
func tcp(t testing.TB, from, to netip.AddrPort, flags packet.Flags, seq, ack uint32, payload ...byte) Datagram {
	t.Helper()
	s := packet.LinuxSYN(from.Addr(), netip.AddrPortFrom(to.Addr().WithZone(""), to.Port()), 0)
	s.Src, s.Flags, s.Seq, s.Ack, s.Payload = from, flags, seq, ack, payload
	b, err := packet.AppendTCP(nil, &s)
	must(t, err)
	return Datagram{Src: from.Addr(), Dst: to.Addr(), Segment: b}
}

func send(t testing.TB, s *Sender, ds ...Datagram) {
	t.Helper()
	if n, err := s.Send(ds); err != nil || n != len(ds) {
		t.Fatalf("sent %d of %d: %v", n, len(ds), err)
	}
}

// seen is a captured segment.
type seen struct {
	packet.Segment
	Stamp int64
	Len   int // of the frame
}

// take returns the segments that are waiting, and how many found no room so far.
func take(t testing.TB, c *Capture) (all []seen, dropped uint64) {
	t.Helper()
	must(t, c.Take(func(frames []Frame, drops uint64) {
		dropped = drops
		for _, f := range frames {
			var p packet.Packet
			if err := p.Decode(f.Data); err != nil || p.Kind != packet.KindTCP {
				t.Fatalf("%x is of kind %d (%v), want TCP from its IP header on", f.Data, p.Kind, err)
			}
			p.TCP.Payload = nil // is valid during the call only
			all = append(all, seen{p.TCP, f.Stamp, len(f.Data)})
		}
	}))
	return all, dropped
}

// takeUntil takes segments until there are as many as wanted. What should not
// be captured has to be sent before something that is.
func takeUntil(t testing.TB, c *Capture, wanted int) []seen {
	t.Helper()
	timer := time.AfterFunc(5*time.Second, func() { _ = c.bell.file.SetReadDeadline(time.Now()) })
	defer timer.Stop()
	var all []seen
	for len(all) < wanted {
		if err := c.Wait(true); err != nil {
			t.Fatalf("after %d of %d segments: %v", len(all), wanted, err)
		}
		some, _ := take(t, c)
		all = append(all, some...)
	}
	return all
}
