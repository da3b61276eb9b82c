package rawsock

import (
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synmesh/synmesh/internal/lab"
	"github.com/synmesh/synmesh/probe/packet"
)

func TestEverySYNIsStampedOnce(t *testing.T) {
	const count = 3*batchLen + 7 // several batches, the last one not full
	for _, v6 := range []bool{false, true} {
		n := alone(t)
		s := senderOn(t, n, v6, true)
		from := netip.AddrPortFrom(loopback(v6), 61003)
		to := netip.AddrPortFrom(loopback(v6), 7000)
		var ds []Datagram
		for seq := range uint32(count) {
			ds = append(ds, tcp(t, from, to, packet.SYN, seq, 0))
		}
		before := time.Now().UnixNano()
		send(t, s, ds...)
		after := time.Now().UnixNano()
		next, last := uint32(0), before
		must(t, s.Stamps(func(stamp, _ int64, b []byte) {
			var got packet.Segment
			if err := got.DecodeTail(b, len(ds[0].Segment)); err != nil {
				t.Fatalf("%x does not end in our SYN: %v", b, err)
			}
			if got.Seq != next || got.Src.Port() != from.Port() || got.Dst.Port() != to.Port() {
				t.Errorf("stamp %d is of %v", next, &got)
			}
			if stamp < last || stamp > after {
				t.Errorf("stamp %d is %d ns, want %d to %d", next, stamp, last, after)
			}
			next, last = next+1, stamp
		}))
		if next != count {
			t.Errorf("%d stamps of %d SYNs", next, count)
		}
		must(t, s.Stamps(func(int64, int64, []byte) { t.Error("a stamp was given twice") }))
	}
}

func TestASenderWithoutStampsHasNone(t *testing.T) {
	s := senderOn(t, alone(t), false, false)
	a := netip.AddrPortFrom(loopback4, 61003)
	send(t, s, tcp(t, a, a, packet.SYN, 1, 0))
	must(t, s.Stamps(func(int64, int64, []byte) { t.Error("a stamp that nobody asked for") }))
}

func TestASenderNeverReceives(t *testing.T) {
	n := alone(t)
	c := captureOn(t, n, PortRange{61003, 61003})
	s := senderOn(t, n, false, true)
	a := netip.AddrPortFrom(loopback4, 61003)
	send(t, s, tcp(t, a, netip.AddrPortFrom(loopback4, 7000), packet.SYN, 1, 0))
	takeUntil(t, c, 1) // a RST: the SYN has passed all raw sockets of the host by then
	if got, err := s.in.receive(s.fd, 0); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("received %d packets (%v), want none", got, err)
	}
}

func TestASourceIsNeverForged(t *testing.T) {
	n := alone(t)
	for _, tt := range []struct {
		name      string
		v6        bool
		src, want string
	}{
		{"an IPv4 address of somebody else", false, "192.0.2.7", "no route to 127.0.0.1, or the source address 192.0.2.7 is no longer this host's (network is unreachable)"},
		{"an IPv6 address of somebody else", true, "2001:db8::7", "the source address 2001:db8::7 is no longer this host's (invalid argument)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := captureOn(t, n, PortRange{7000, 7010})
			s := senderOn(t, n, tt.v6, false)
			ours := netip.AddrPortFrom(loopback(tt.v6), 61003)
			foreign := netip.AddrPortFrom(netip.MustParseAddr(tt.src), 61003)
			to := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(loopback(tt.v6), port) }
			forged := tcp(t, foreign, to(7001), packet.SYN, 2, 0)
			forged.Dst = to(7001).Addr()
			got, err := s.Send([]Datagram{
				tcp(t, ours, to(7000), packet.SYN, 1, 0), forged, tcp(t, ours, to(7002), packet.SYN, 3, 0),
			})
			if got != 1 || err == nil || err.Error() != tt.want {
				t.Errorf("sent %d: %v, want 1 and %s", got, err, tt.want)
			}
			send(t, s, tcp(t, ours, to(7003), packet.SYN, 4, 0))
			all := takeUntil(t, c, 2)
			if len(all) != 2 || all[0].Seq != 1 || all[1].Seq != 4 {
				t.Errorf("%d packets left, want the first and the last", len(all))
			}
		})
	}
}

func TestWhatCannotBeSentSaysWhy(t *testing.T) {
	from, to := pair(t)
	addr := func(a netip.Addr) netip.AddrPort { return netip.AddrPortFrom(a, 7000) }
	for _, tt := range []struct {
		name     string
		src, dst netip.Addr
		want     string
	}{
		{"no route", from.Addr4(), netip.MustParseAddr("198.51.100.1"), "no route to 198.51.100.1, or the source address 10.77.0.1 is no longer this host's (network is unreachable)"},
		{"no route over IPv6", from.Addr6(), netip.MustParseAddr("2001:db8::1"), "no route to 2001:db8::1, or the source address fd77::1 is no longer this host's (network is unreachable)"},
		{"an interface that is not there", from.Addr6(), netip.MustParseAddr("fe80::1%nope"), `no interface "nope" for fe80::1%nope`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := senderOn(t, from, tt.dst.Is6(), false)
			good := to.Addr4()
			if tt.dst.Is6() {
				good = to.Addr6()
			}
			got, err := s.Send([]Datagram{
				tcp(t, addr(tt.src), addr(good), packet.SYN, 1, 0),
				tcp(t, addr(tt.src), addr(tt.dst), packet.SYN, 2, 0),
			})
			if got != 1 || err == nil || err.Error() != tt.want {
				t.Errorf("sent %d: %v, want 1 and %s", got, err, tt.want)
			}
		})
	}
}

func TestRefusalsOfTheKernelAreInWords(t *testing.T) {
	for _, tt := range []struct {
		errno unix.Errno
		want  string
	}{
		{unix.EPERM, "a firewall of this host refused the SYN (operation not permitted)"},
		{unix.EINVAL, "the source address 127.0.0.1 is no longer this host's (invalid argument)"},
		{unix.ENETUNREACH, "no route to ::1, or the source address 127.0.0.1 is no longer this host's (network is unreachable)"},
		{unix.EAGAIN, "the send queue of this host is full (resource temporarily unavailable)"},
		{unix.ENOBUFS, "the send queue of this host is full (no buffer space available)"},
		{unix.EHOSTUNREACH, "no route to host"},
	} {
		t.Run(tt.want, func(t *testing.T) {
			if err := sendError(tt.errno, &Datagram{Src: loopback4, Dst: loopback6}); err.Error() != tt.want || !errors.Is(err, tt.errno) {
				t.Errorf("%d is %v", tt.errno, err)
			}
		})
	}
}

func TestLinkLocalAddressesAreReachedThroughTheirInterface(t *testing.T) {
	from, to := pair(t)
	c := captureOn(t, to, PortRange{7000, 7000})
	s := senderOn(t, from, true, true)
	dst := netip.AddrPortFrom(linkLocal(t, to), 7000)
	must(t, from.Do(func() error { // interfaces are named inside the network
		d := tcp(t, netip.AddrPortFrom(from.Addr6(), 61003), dst, packet.SYN, 1, 0)
		d.Dst = dst.Addr().WithZone(from.Interface())
		_, err := s.Send([]Datagram{d})
		return err
	}))
	if got := takeUntil(t, c, 1)[0]; got.Dst != dst || got.Seq != 1 {
		t.Errorf("captured %v, want it to reach %v", &got.Segment, dst)
	}
}

func TestSendersAndStampsMayBeUsedAtOnce(t *testing.T) {
	n := alone(t)
	s := senderOn(t, n, false, true)
	a := netip.AddrPortFrom(loopback4, 61003)
	const each, senders = 100, 4
	var sending, reading sync.WaitGroup
	for i := range uint32(senders) {
		sending.Go(func() {
			for j := range uint32(each) {
				d := tcp(t, a, a, packet.SYN, i<<16|j, 0)
				if _, err := s.Send([]Datagram{d}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	var mu sync.Mutex
	stamped := make(map[uint32]bool)
	collect := func() {
		err := s.Stamps(func(_, _ int64, b []byte) {
			var got packet.Segment
			if err := got.DecodeTail(b, 40); err != nil {
				t.Error(err)
			}
			mu.Lock()
			stamped[got.Seq] = true
			mu.Unlock()
		})
		if err != nil {
			t.Error(err)
		}
	}
	for range 2 {
		reading.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					collect()
				}
			}
		})
	}
	sending.Wait()
	close(done)
	reading.Wait()
	collect()
	if len(stamped) != each*senders {
		t.Errorf("%d SYNs have stamps, want %d", len(stamped), each*senders)
	}
}

// withoutRaw runs fn on a thread that has lost CAP_NET_RAW, and that ends with it.
func withoutRaw(t *testing.T, n *lab.Node, fn func()) {
	t.Helper()
	must(t, n.Do(func() error {
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err := unix.Capget(&header, &data[0]); err != nil {
			return err
		}
		data[0].Effective &^= 1 << unix.CAP_NET_RAW
		if err := unix.Capset(&header, &data[0]); err != nil {
			return err
		}
		fn()
		return nil
	}))
}

func TestOnlyRawSocketsNeedTheCapability(t *testing.T) {
	withoutRaw(t, alone(t), func() {
		for _, v6 := range []bool{false, true} {
			if s, err := OpenSender(v6, false); !errors.Is(err, ErrPermission) || !errors.Is(err, unix.EPERM) {
				t.Errorf("OpenSender = %v, %v, want ErrPermission", s, err)
			}
		}
		c, err := OpenCapture(ourPorts)
		if !errors.Is(err, ErrPermission) || !strings.Contains(err.Error(), "setcap cap_net_raw+ep") {
			t.Errorf("OpenCapture = %v, %v, want ErrPermission and what to do", c, err)
		}
		g, err := HoldPort(61003)
		if err == nil {
			err = g.Close()
		}
		if err != nil {
			t.Errorf("holding a port: %v", err)
		}
		r, err := OpenRouter()
		if err == nil {
			var src netip.Addr
			if src, _, err = r.Route(loopback4); src != loopback4 {
				t.Errorf("the way to %v begins at %v", loopback4, src)
			}
			err = errors.Join(err, r.Close())
		}
		if err != nil {
			t.Errorf("asking for routes: %v", err)
		}
	})
}

func BenchmarkSend(b *testing.B) {
	s := senderOn(b, alone(b), false, false)
	a := netip.AddrPortFrom(loopback4, 61003)
	ds := make([]Datagram, batchLen)
	for i := range ds {
		ds[i] = tcp(b, a, netip.AddrPortFrom(loopback4, 7000), packet.RST, uint32(i), 0) // is not answered
	}
	b.ReportAllocs()
	for b.Loop() {
		send(b, s, ds...)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*batchLen), "ns/segment")
}
