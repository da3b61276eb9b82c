package rawsock

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/synmesh/synmesh/probe/packet"
)

func TestAHeldPortIsNobodyElses(t *testing.T) {
	n := alone(t)
	must(t, n.Do(func() error {
		g, err := HoldPort(61003)
		if err != nil {
			return err
		}
		if g.Port != 61003 {
			t.Errorf("port %d is held, want 61003", g.Port)
		}
		if again, err := HoldPort(61003); !errors.Is(err, ErrPortInUse) || err.Error() != "hold port 61003: the port is in use" {
			t.Errorf("held twice: %v, %v", again, err)
		}
		for _, address := range []string{"127.0.0.1:61003", "0.0.0.0:61003", "[::1]:61003", "[::]:61003"} {
			l, err := net.Listen("tcp", address)
			if !errors.Is(err, unix.EADDRINUSE) {
				t.Errorf("listening on %s: %v, want EADDRINUSE", address, err)
			}
			if err == nil {
				_ = l.Close()
			}
		}
		if err := g.Close(); err != nil {
			return err
		}
		g, err = HoldPort(61003)
		if err != nil {
			t.Errorf("a port that was given back: %v", err)
			return nil
		}
		return g.Close()
	}))
}

func TestAPortThatAnyoneHasIsNotHeld(t *testing.T) {
	n := alone(t)
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(address, func(t *testing.T) {
			l := openOn(t, n, func() (net.Listener, error) { return net.Listen("tcp", address) })
			port := uint16(l.Addr().(*net.TCPAddr).Port)
			must(t, n.Do(func() error {
				g, err := HoldPort(port)
				if err == nil {
					_ = g.Close()
				}
				if !errors.Is(err, ErrPortInUse) {
					t.Errorf("HoldPort says %v, want ErrPortInUse", err)
				}
				return nil
			}))
		})
	}
}

func TestAHostWithoutIPv6HoldsPortsToo(t *testing.T) {
	n := alone(t)
	must(t, n.Do(func() error { return os.WriteFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", []byte("1"), 0) }))
	openOn(t, n, func() (*Guard, error) { return HoldPort(61003) })
	must(t, n.Do(func() error {
		l, err := net.Listen("tcp4", "127.0.0.1:61003")
		if err == nil {
			_ = l.Close()
		}
		if !errors.Is(err, unix.EADDRINUSE) {
			t.Errorf("listening: %v, want EADDRINUSE", err)
		}
		return nil
	}))
}

// That is what ends a half-open handshake.
func TestTheKernelResetsWhatIsAnsweredToAHeldPort(t *testing.T) {
	const ours, theirs, acked = 61003, 7000, 0xdecade
	for _, v6 := range []bool{false, true} {
		n := alone(t)
		openOn(t, n, func() (*Guard, error) { return HoldPort(ours) })
		c := captureOn(t, n, PortRange{theirs, theirs})
		s := senderOn(t, n, v6, false)
		us, them := netip.AddrPortFrom(loopback(v6), ours), netip.AddrPortFrom(loopback(v6), theirs)
		send(t, s, tcp(t, them, us, packet.SYN|packet.ACK, 1, acked))
		rst := takeUntil(t, c, 1)[0]
		if rst.Flags != packet.RST || rst.Seq != acked || rst.Src != us || rst.Dst != them {
			t.Errorf("the kernel answered %v, want a RST with seq %d", &rst.Segment, acked)
		}
	}
}

// That is what a full handshake needs: our own ACK is the only answer.
func TestTheKernelSwallowsWhatComesToASilencedPort(t *testing.T) {
	const ours, other, theirs = 61003, 61004, 7000
	for _, v6 := range []bool{false, true} {
		n := alone(t)
		g := openOn(t, n, func() (*Guard, error) { return HoldPort(ours) })
		must(t, g.Silence())
		answers := captureOn(t, n, PortRange{theirs, theirs})
		arrived := captureOn(t, n, PortRange{ours, ours})
		s := senderOn(t, n, v6, false)
		us, them := netip.AddrPortFrom(loopback(v6), ours), netip.AddrPortFrom(loopback(v6), theirs)
		send(t, s,
			tcp(t, them, us, packet.SYN|packet.ACK, 1, 2),
			tcp(t, them, us, packet.SYN, 3, 0), // it listens for appearance only
			tcp(t, them, us, packet.FIN|packet.ACK, 4, 5),
			tcp(t, them, netip.AddrPortFrom(us.Addr(), other), packet.SYN|packet.ACK, 6, 7))
		if rst := takeUntil(t, answers, 1)[0]; rst.Src.Port() != other {
			t.Errorf("the kernel answered %v, want nothing from port %d", &rst.Segment, ours)
		}
		for i, got := range takeUntil(t, arrived, 3) {
			if want := []uint32{1, 3, 4}[i]; got.Seq != want || got.Dst != us {
				t.Errorf("captured %v, want seq %d", &got.Segment, want)
			}
		}
	}
}
