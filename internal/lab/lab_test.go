//go:build linux

package lab

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// twoSites returns two hosts, each behind a router of its own, with a relayed link between the routers.
func twoSites(t *testing.T, imp Impairment) (l *Lab, a, b *Node, k *Link) {
	t.Helper()
	l = newLab(t)
	a, b = host(t, l, "a"), host(t, l, "b")
	r, err := l.Router("r")
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Router("s")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Wire(a, r); err != nil {
		t.Fatal(err)
	}
	if k, err = l.Link(r, s, imp); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Wire(s, b); err != nil {
		t.Fatal(err)
	}
	if err := l.Route(); err != nil {
		t.Fatal(err)
	}
	return l, a, b, k
}

func TestEchoAcrossTwoRouters(t *testing.T) {
	l, a, b, k := twoSites(t, Impairment{Delay: 5 * time.Millisecond})
	if got, want := l.RTT(a, b), 10*time.Millisecond; got != want {
		t.Errorf("RTT = %v, want %v", got, want)
	}
	listen(t, b, ":7")
	for _, to := range []netip.Addr{b.Addr4(), b.Addr6()} {
		var c net.Conn
		if err := a.Do(func() (err error) {
			c, err = net.Dial("tcp", netip.AddrPortFrom(to, 7).String())
			return err
		}); err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, "hello"); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 5)
		if _, err := io.ReadFull(c, got); err != nil || string(got) != "hello" {
			t.Errorf("echo from %v: %q, %v", to, got, err)
		}
		if from := c.LocalAddr().(*net.TCPAddr).AddrPort().Addr(); from != a.Addr4() && from != a.Addr6() {
			t.Errorf("connected from %v, want a primary address", from)
		}
		expectRTT(t, a, netip.AddrPortFrom(to, 7), 10*time.Millisecond)
	}
	if c := k.Counts(); c.Forwarded == 0 || c.Lost+c.Duplicated+c.Reordered+c.Dropped != 0 {
		t.Errorf("counts after a quiet run: %+v", c)
	}
}

func TestDirectionsAreImpairedSeparatelyAndLive(t *testing.T) {
	l, a, b, k := pair(t, Impairment{})
	listen(t, b, ":7")
	to := netip.AddrPortFrom(b.Addr4(), 7)
	expectRTT(t, a, to, 0)
	if err := k.SetDirection(a, Impairment{Delay: 2 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	expectRTT(t, a, to, 2*time.Millisecond)
	if err := k.SetDirection(b, Impairment{Delay: 7 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	expectRTT(t, a, to, 9*time.Millisecond)
	if got := l.RTT(a, b); got != 9*time.Millisecond {
		t.Errorf("RTT = %v, want 9ms", got)
	}
	if err := k.Set(Impairment{Delay: time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	expectRTT(t, a, to, 2*time.Millisecond)
}

func TestShortestPathIsByDelayAndNeverThroughHosts(t *testing.T) {
	l := newLab(t)
	a, b, h := host(t, l, "a"), host(t, l, "b"), host(t, l, "h")
	r, _ := l.Router("r")
	s, _ := l.Router("s")
	u, _ := l.Router("u")
	island := host(t, l, "island")
	for _, e := range []struct {
		a, b  *Node
		delay time.Duration
	}{
		{a, r, 1}, {r, s, 10}, {s, b, 1}, // Few hops, but slow,
		{r, u, 2}, {u, s, 3}, // slower by one hop, but fast,
		{a, h, 1}, {h, b, 1}, // and fastest through a host.
	} {
		if _, err := l.Link(e.a, e.b, Impairment{Delay: e.delay * time.Millisecond}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Route(); err != nil {
		t.Fatal(err)
	}
	if got, want := l.RTT(a, b), 2*7*time.Millisecond; got != want {
		t.Errorf("RTT = %v, want %v", got, want)
	}
	if got := l.RTT(a, island); got >= 0 {
		t.Errorf("RTT to a node without links = %v, want a negative one", got)
	}
	listen(t, b, ":7")
	expectRTT(t, a, netip.AddrPortFrom(b.Addr4(), 7), 14*time.Millisecond)
	expectRTT(t, a, netip.AddrPortFrom(b.Addr6(), 7), 14*time.Millisecond)
}

func TestUnknownAddressesAreUnreachable(t *testing.T) {
	l := newLab(t)
	a := host(t, l, "a")
	r, err := l.Router("r")
	if err != nil {
		t.Fatal(err)
	}
	// Not a Wire: the kernel answers on those so fast that connect does not notice before it retransmits.
	if _, err := l.Link(a, r, Impairment{}); err != nil {
		t.Fatal(err)
	}
	if err := l.Route(); err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{"10.77.200.1:7", "[fd77::c801]:7"} {
		err := a.Do(func() error {
			c, err := net.DialTimeout("tcp", to, 5*time.Second)
			if err == nil {
				c.Close()
			}
			return err
		})
		if !errors.Is(err, syscall.ENETUNREACH) && !errors.Is(err, syscall.EHOSTUNREACH) {
			t.Errorf("dialling %s: %v, want unreachable", to, err)
		}
	}
}

func TestDo(t *testing.T) {
	l := newLab(t)
	a, b := host(t, l, "a"), host(t, l, "b")
	if _, err := l.Wire(a, b); err != nil {
		t.Fatal(err)
	}
	oops := errors.New("oops")
	for _, c := range []struct {
		name string
		fn   func() error
		want string
	}{
		{"returns no error", func() error { return nil }, "<nil>"},
		{"returns the error of the function", func() error { return oops }, "oops"},
		{"turns a panic into an error", func() error { panic("ouch") }, "lab: on a: panic: ouch"},
		{"survives Goexit", func() error { runtime.Goexit(); return nil }, "lab: on a: the function ended its goroutine"},
		{"may be nested", func() error { return a.Do(func() error { return b.Do(func() error { return oops }) }) }, "oops"},
	} {
		if got := fmt.Sprint(a.Do(c.fn)); !strings.HasPrefix(got, c.want) {
			t.Errorf("Do %s: got %q, want %q", c.name, got, c.want)
		}
	}
	outside := interfaces(t)
	if err := a.Do(func() error {
		if got := interfaces(t); !strings.Contains(got, "eth0") || got == outside {
			return fmt.Errorf("interfaces of the host: %s", got)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	if got := interfaces(t); got != outside {
		t.Errorf("after Do the caller sees %s, before it saw %s", got, outside)
	}
}

// interfaces lists the network interfaces in the namespace of the calling thread.
func interfaces(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/thread-self/net/dev")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for line := range strings.Lines(string(b)) {
		if name, _, ok := strings.Cut(line, ":"); ok {
			names = append(names, strings.TrimSpace(name))
		}
	}
	return strings.Join(names, " ")
}

func TestMisuseIsAnError(t *testing.T) {
	l, other := newLab(t), newLab(t)
	a, b, stranger := host(t, l, "a"), host(t, l, "b"), host(t, other, "c")
	wire, err := l.Wire(a, b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Host("a"); err == nil {
		t.Error("two nodes may have the same name")
	}
	if _, err := l.Wire(a, a); err == nil {
		t.Error("a node may be linked to itself")
	}
	if _, err := l.Wire(a, stranger); err == nil {
		t.Error("nodes of two labs may be linked")
	}
	if err := wire.Set(Impairment{}); !errors.Is(err, errPlain) {
		t.Errorf("impairing a wire: %v", err)
	}
	if err := wire.SetDirection(stranger, Impairment{}); err == nil {
		t.Error("a direction may start at a node that the link does not join")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	_, addErr := l.Host("d")
	_, wireErr := l.Wire(a, b)
	for _, err := range []error{addErr, wireErr, l.Route(), wire.Down(), wire.Up(), a.Do(func() error { return nil })} {
		if !errors.Is(err, errClosed) {
			t.Errorf("in a closed lab: %v", err)
		}
	}
	if err := l.Close(); err != nil {
		t.Errorf("closing again: %v", err)
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	spaces := func() (found []string) {
		links, err := filepath.Glob("/proc/self/task/*/ns/net")
		if err != nil {
			t.Fatal(err)
		}
		fds, err := filepath.Glob("/proc/self/fd/*")
		if err != nil {
			t.Fatal(err)
		}
		own, err := os.Readlink("/proc/self/ns/net")
		if err != nil {
			t.Fatal(err)
		}
		for _, link := range append(links, fds...) {
			if to, err := os.Readlink(link); err == nil && strings.HasPrefix(to, "net:") && to != own {
				found = append(found, link)
			}
		}
		return found
	}
	descriptors := func() int {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(fds)
	}
	before := descriptors()
	l, a, b, _ := twoSites(t, Impairment{Delay: time.Millisecond})
	if len(spaces()) < 4 {
		t.Fatal("the test does not see the namespaces of the nodes")
	}
	var ln net.Listener
	if err := b.Do(func() (err error) {
		ln, err = net.Listen("tcp", ":7")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := handshake(a, netip.AddrPortFrom(b.Addr4(), 7)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(ln.Close(), l.Close()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "threads leave their namespaces", func() bool { return len(spaces()) == 0 })
	eventually(t, "descriptors are closed", func() bool { return descriptors() <= before })
}
