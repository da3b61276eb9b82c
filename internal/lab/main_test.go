//go:build linux

package lab

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// asProgram tells the test binary to behave as some program that uses the package; see programs.
const asProgram = "SYNMESH_LAB_TEST_PROGRAM"

var programs = map[string]func() error{
	"handshake": func() error {
		l, err := New()
		if err != nil {
			return err
		}
		defer l.Close()
		a, err := l.Host("a")
		if err != nil {
			return err
		}
		b, err := l.Host("b")
		if err != nil {
			return err
		}
		if _, err := l.Link(a, b, Impairment{Delay: time.Millisecond}); err != nil {
			return err
		}
		if err := b.Do(func() error { return answer(":7") }); err != nil {
			return err
		}
		_, err = handshake(a, netip.AddrPortFrom(b.Addr4(), 7))
		return err
	},
	"status 7": func() error { os.Exit(7); return nil },
	"signalled": func() error {
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, unix.SIGTERM)
		fmt.Println("ready")
		<-signals
		os.Exit(9)
		return nil
	},
	"suicide": func() error { return unix.Kill(os.Getpid(), unix.SIGKILL) },
	"holding a process": func() error {
		l, err := New()
		if err != nil {
			return err
		}
		n, err := l.Host("a")
		if err != nil {
			return err
		}
		cmd := exec.Command("sleep", "60")
		if err := n.Start(cmd); err != nil {
			return err
		}
		fmt.Println(os.Getpid(), cmd.Process.Pid)
		return cmd.Wait()
	},
}

func TestMain(m *testing.M) {
	if err := Enter(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if name := os.Getenv(asProgram); name != "" {
		if err := programs[name](); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func newLab(t *testing.T) *Lab {
	t.Helper()
	l, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func host(t *testing.T, l *Lab, name string) *Node {
	t.Helper()
	n, err := l.Host(name)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// pair returns two hosts joined by a relayed link, and the link.
func pair(t *testing.T, imp Impairment) (l *Lab, a, b *Node, k *Link) {
	t.Helper()
	l = newLab(t)
	a, b = host(t, l, "a"), host(t, l, "b")
	k, err := l.Link(a, b, imp)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Route(); err != nil {
		t.Fatal(err)
	}
	return l, a, b, k
}

// listen opens a TCP listener on a node that echoes what it is sent.
func listen(t testing.TB, n *Node, address string) {
	t.Helper()
	var ln net.Listener
	if err := n.Do(func() (err error) {
		ln, err = net.Listen("tcp", address)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	var (
		serving sync.WaitGroup
		mu      sync.Mutex
		open    []net.Conn
	)
	serving.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			serving.Go(func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		mu.Lock()
		for _, c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		serving.Wait()
	})
}

// answer opens a TCP listener that nobody accepts from; the kernel answers nevertheless.
func answer(address string) error {
	_, err := net.Listen("tcp", address)
	return err
}

// handshake connects from a node and returns how long the kernel says that SYN to SYN-ACK took.
func handshake(n *Node, to netip.AddrPort) (rtt time.Duration, err error) {
	err = n.Do(func() error {
		c, err := (&net.Dialer{Timeout: 5 * time.Second}).Dial("tcp", to.String())
		if err != nil {
			return err
		}
		defer c.Close()
		raw, err := c.(*net.TCPConn).SyscallConn()
		if err != nil {
			return err
		}
		var info *unix.TCPInfo
		if e := raw.Control(func(fd uintptr) {
			info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		}); e != nil || err != nil {
			return fmt.Errorf("TCP_INFO: %w %w", e, err)
		}
		rtt = time.Duration(info.Rtt) * time.Microsecond
		return nil
	})
	return rtt, err
}

// expectRTT checks that handshakes take what they should: never less, and at the median not much more. A machine that
// is busy with something else can make any number of packets late, so there are several attempts at the latter.
func expectRTT(t *testing.T, n *Node, to netip.AddrPort, want time.Duration) {
	t.Helper()
	tolerance := max(500*time.Microsecond, want/20) // each relay on the way may add some 50 us, in each direction
	var medians []time.Duration
	for range 10 {
		var rtts []time.Duration
		for range 9 {
			rtt, err := handshake(n, to)
			if err != nil {
				t.Fatal(err)
			}
			if rtt < want {
				t.Fatalf("a handshake with %v took %v, which is less than the %v told", to, rtt, want)
			}
			rtts = append(rtts, rtt)
		}
		slices.Sort(rtts)
		median := rtts[len(rtts)/2]
		if median <= want+tolerance {
			return
		}
		medians = append(medians, median)
	}
	t.Errorf("handshakes with %v took %v at the median, want %v to %v", to, medians, want, want+tolerance)
}

// eventually polls for a condition that sends no event.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 5 s", what)
		}
	}
}
