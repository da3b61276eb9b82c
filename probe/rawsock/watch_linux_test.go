package rawsock

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/synmesh/synmesh/internal/lab"
	"github.com/synmesh/synmesh/probe/packet"
)

func watchOn(t testing.TB, n *lab.Node, ports PortRange) *Watch {
	t.Helper()
	return openOn(t, n, func() (*Watch, error) { return OpenWatch(ports) })
}

// watched is a packet that a watch saw.
type watched struct {
	out   bool
	at    string // the device
	kind  packet.Kind
	flags packet.Flags
	from  uint16 // of a segment, or of a quoted one
	stamp int64
}

// watchUntil takes packets until there are as many as wanted, and what comes
// right behind them.
func watchUntil(t testing.TB, w *Watch, wanted int) []watched {
	t.Helper()
	timer := time.AfterFunc(5*time.Second, func() { _ = w.capture.bell.file.SetReadDeadline(time.Now()) })
	defer timer.Stop()
	var all []watched
	take := func() {
		must(t, w.Take(func(seen []Seen, drops uint64) {
			if drops != 0 {
				t.Errorf("%d dropped", drops)
			}
			for _, s := range seen {
				var p packet.Packet
				must(t, p.Decode(s.Data))
				got := watched{out: s.Outgoing, at: s.Device, kind: p.Kind, flags: p.TCP.Flags, from: p.TCP.Src.Port(), stamp: s.Stamp}
				if p.Kind == packet.KindICMP {
					got.from = p.ICMP.Quoted.Src.Port()
				}
				all = append(all, got)
			}
		}))
	}
	for len(all) < wanted {
		if err := w.Wait(); err != nil {
			t.Fatalf("after %d of %d packets: %v", len(all), wanted, err)
		}
		take()
	}
	time.Sleep(20 * time.Millisecond)
	take()
	return all
}

func TestAWatchSeesBothDirectionsOnceOnALoopback(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		n := alone(t)
		w := watchOn(t, n, ourPorts)
		s := senderOn(t, n, v6, false)
		at := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(loopback(v6), port) }
		before := time.Now().UnixNano()
		send(t, s,
			tcp(t, at(7000), at(60999), packet.SYN|packet.ACK, 1, 0), // not ours
			tcp(t, at(61003), at(7000), packet.SYN, 2, 0))            // answered with a RST
		send(t, s, tcp(t, at(7000), at(61004), packet.SYN|packet.ACK, 3, 0)) // as well, by our side
		all := watchUntil(t, w, 4)
		after := time.Now().UnixNano()
		want := []watched{
			{true, "lo", packet.KindTCP, packet.SYN, 61003, 0},
			{false, "lo", packet.KindTCP, packet.RST | packet.ACK, 7000, 0},
			{false, "lo", packet.KindTCP, packet.SYN | packet.ACK, 7000, 0},
			{true, "lo", packet.KindTCP, packet.RST, 61004, 0},
		}
		last := before
		for i := range all {
			if all[i].stamp < last || all[i].stamp > after {
				t.Errorf("packet %d has the stamp %d, want %d to %d", i, all[i].stamp, last, after)
			}
			last, all[i].stamp = all[i].stamp, 0
		}
		if !slices.Equal(all, want) {
			t.Errorf("v6 %t: seen %+v\nwant %+v", v6, all, want)
		}
	}
}

func TestAWatchSeesBothDirectionsOfAWire(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		from, to := pair(t)
		src, dst := from.Addr4(), to.Addr4()
		if v6 {
			src, dst = from.Addr6(), to.Addr6()
		}
		var l net.Listener
		must(t, to.Do(func() (err error) { l, err = net.Listen("tcp", netip.AddrPortFrom(dst, 7000).String()); return err }))
		defer l.Close()
		here, there := watchOn(t, from, ourPorts), watchOn(t, to, PortRange{7000, 7000})
		s := senderOn(t, from, v6, false)
		send(t, s, tcp(t, netip.AddrPortFrom(src, 61003), netip.AddrPortFrom(dst, 7000), packet.SYN, 2, 0))
		check := func(name, device string, all []watched, out bool) {
			t.Helper()
			if len(all) != 3 {
				t.Fatalf("%s: seen %+v, want three packets", name, all)
			}
			for i, flags := range []packet.Flags{packet.SYN, packet.SYN | packet.ACK, packet.RST} {
				if all[i].flags != flags || all[i].out != (out == (i != 1)) || all[i].at != device {
					t.Errorf("%s: packet %d is %+v, want %v", name, i, all[i], flags)
				}
			}
		}
		check("here", from.Interface(), watchUntil(t, here, 3), true)
		check("there", to.Interface(), watchUntil(t, there, 3), false)
	}
}

func TestAWatchSeesErrorsAboutItsPorts(t *testing.T) {
	from, to := pair(t)
	w := watchOn(t, from, ourPorts)
	for _, v6 := range []bool{false, true} {
		src, dst := from.Addr4(), to.Addr4()
		e := packet.ICMPError{From: dst, Type: 3, Code: 1}
		if v6 {
			src, dst = from.Addr6(), to.Addr6()
			e = packet.ICMPError{From: dst, Type: 1, Code: 3}
		}
		for _, ours := range []bool{false, true} {
			port := uint16(60999)
			if ours {
				port = 61003
			}
			syn := packet.LinuxSYN(src, netip.AddrPortFrom(dst, 7000), 0)
			syn.Src = netip.AddrPortFrom(src, port)
			original, err := packet.AppendIP(nil, &syn)
			must(t, err)
			must(t, sendICMP(to, &e, original))
		}
		all := watchUntil(t, w, 1)
		if len(all) != 1 || all[0].kind != packet.KindICMP || all[0].out || all[0].from != 61003 {
			t.Errorf("v6 %t: seen %+v, want the error about port 61003", v6, all)
		}
	}
}

// sendICMP has the kernel of a node send an ICMP error about the packet to its source.
func sendICMP(n *lab.Node, e *packet.ICMPError, original []byte) error {
	b, err := packet.AppendICMP(nil, e, original)
	if err != nil {
		return err
	}
	network, header, to := "ip4:icmp", 20, net.IP(original[12:16])
	if e.From.Is6() {
		network, header, to = "ip6:ipv6-icmp", 40, net.IP(original[8:24])
	}
	return n.Do(func() error {
		c, err := net.ListenPacket(network, e.From.String())
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.WriteTo(b[header:], &net.IPAddr{IP: to})
		return err
	})
}

func TestAClosedWatchSaysSo(t *testing.T) {
	var w *Watch
	must(t, alone(t).Do(func() (err error) { w, err = OpenWatch(ourPorts); return err }))
	woken := make(chan error, 1)
	go func() { woken <- w.Wait() }()
	must(t, w.Close())
	if err := <-woken; !errors.Is(err, os.ErrClosed) {
		t.Errorf("Wait says %v, want os.ErrClosed", err)
	}
	if err := w.Take(func([]Seen, uint64) {}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Take says %v, want os.ErrClosed", err)
	}
}
