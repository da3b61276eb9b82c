//go:build linux

package lab

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// stream sends numbered UDP packets from a to b over the link, never more at a time than the kernel's queues are sure to
// hold, and returns the numbers that came, in their order, and what the link counted meanwhile.
func stream(t *testing.T, a, b *Node, k *Link, packets int) (numbers []int, c Counts) {
	t.Helper()
	var in, out net.Conn
	if err := b.Do(func() (err error) {
		in, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(b.Addr4(), 9)))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if err := a.Do(func() (err error) {
		out, err = net.Dial("udp", netip.AddrPortFrom(b.Addr4(), 9).String())
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer out.Close()

	var reading errgroup.Group
	var got atomic.Uint64
	reading.Go(func() (err error) {
		numbers, err = receive(in, &got)
		return err
	})
	w := k.wires[0]
	before := countsOf(w)
	send := func(number, count int) {
		if _, err := out.Write(binary.BigEndian.AppendUint32(nil, uint32(number))); err != nil {
			t.Fatal(err)
		}
		if count%50 != 0 && count < packets {
			return
		}
		eventually(t, "the relay settles what came", func() bool {
			c := countsOf(w)
			settled := c.Forwarded + c.Lost + c.Dropped - before.Forwarded - before.Lost - before.Dropped
			sent := c.Forwarded + c.Duplicated - before.Forwarded - before.Duplicated
			return settled >= uint64(count) && got.Load()+noise >= sent
		})
	}
	for i := range packets {
		send(i, i+1)
	}
	imp := *w.imp.Load()
	marker := Impairment{}
	if imp.Reorder > 0 {
		marker.Delay = imp.Hold // It must not overtake a packet that is held back.
	}
	if err := k.Set(marker); err != nil {
		t.Fatal(err)
	}
	send(last, packets+1)
	if err := k.Set(imp); err != nil {
		t.Fatal(err)
	}
	if err := reading.Wait(); err != nil {
		t.Fatal(err)
	}
	after := countsOf(w) // Not before the marker is here: a packet may have been held back until then.
	return numbers, Counts{
		after.Forwarded - before.Forwarded - 1, after.Lost - before.Lost, after.Duplicated - before.Duplicated,
		after.Reordered - before.Reordered, after.Dropped - before.Dropped,
	}
}

const (
	last  = math.MaxUint32 // The number of the packet that ends a stream.
	noise = 20             // So many packets of the kernel's own, at most, cross a link meanwhile.
)

// receive takes numbered packets until the last one comes, counting them.
func receive(c net.Conn, got *atomic.Uint64) (numbers []int, err error) {
	if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return nil, err
	}
	var b [4]byte
	for {
		if _, err := io.ReadFull(c, b[:]); err != nil {
			return nil, err
		}
		n := int(binary.BigEndian.Uint32(b[:]))
		if n == last {
			return numbers, nil
		}
		numbers = append(numbers, n)
		got.Add(1)
	}
}

func countsOf(w *wire) (c Counts) {
	w.addTo(&c)
	return c
}

// around tells whether n of total fits a probability, to five standard deviations and some packets of the kernel's own.
func around(n uint64, total int, p float64) bool {
	return math.Abs(float64(n)-p*float64(total)) <= 5*math.Sqrt(float64(total)*p*(1-p))+3
}

func TestLossIsAsTold(t *testing.T) {
	_, a, b, k := pair(t, Impairment{Loss: 0.1})
	numbers, c := stream(t, a, b, k, 3000)
	if !around(c.Lost, 3000, 0.1) || c.Dropped != 0 {
		t.Errorf("counts %+v, want about 300 lost and none dropped", c)
	}
	if !around(uint64(len(numbers)), 3000, 0.9) || !slices.IsSorted(numbers) {
		t.Errorf("%d packets came, want about 2700; in order: %v", len(numbers), slices.IsSorted(numbers))
	}
}

func TestDuplicatesAreAsTold(t *testing.T) {
	_, a, b, k := pair(t, Impairment{Duplicate: 0.2})
	numbers, c := stream(t, a, b, k, 2000)
	copies := len(numbers) - len(slices.Compact(slices.Clone(numbers)))
	if !around(c.Duplicated, 2000, 0.2) || !around(uint64(copies), 2000, 0.2) || c.Lost+c.Dropped != 0 {
		t.Errorf("%d copies came, counts %+v, want about 400", copies, c)
	}
}

// A still relay waits in a way in which it cannot be stopped for the garbage collector but by a signal.
func TestAStillRelayPassesOnAndStops(t *testing.T) {
	l := newLab(t)
	l.Still = true
	a, b := host(t, l, "a"), host(t, l, "b")
	k, err := l.Link(a, b, Impairment{Delay: time.Millisecond, Jitter: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Route(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		numbers, c := stream(t, a, b, k, 100)
		if len(numbers) != 100 || !slices.IsSorted(numbers) || c.Lost+c.Dropped > 0 {
			t.Errorf("%d of 100 packets came, in order %v, counts %+v", len(numbers), slices.IsSorted(numbers), c)
		}
		runtime.GC()
	}
}

func TestReorderingOnRequestOnly(t *testing.T) {
	_, a, b, k := pair(t, Impairment{Delay: 2 * time.Millisecond, Jitter: 2 * time.Millisecond})
	numbers, c := stream(t, a, b, k, 500)
	if len(numbers) != 500 || !slices.IsSorted(numbers) || c.Reordered != 0 {
		t.Errorf("without a wish to reorder: %d packets, in order %v, counts %+v", len(numbers), slices.IsSorted(numbers), c)
	}
	if err := k.Set(Impairment{Reorder: 0.1, Hold: 3 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	numbers, c = stream(t, a, b, k, 1000)
	overtaken, highest := 0, 0
	for _, n := range numbers {
		if n < highest {
			overtaken++
		}
		highest = max(highest, n)
	}
	// Those that end a burst have nobody to overtake them.
	if len(numbers) != 1000 || overtaken < 50 || overtaken > 160 || uint64(overtaken) > c.Reordered {
		t.Errorf("%d packets, %d overtaken, counts %+v", len(numbers), overtaken, c)
	}
}

func TestQueueIsBoundedAndCounts(t *testing.T) {
	_, a, b, k := pair(t, Impairment{Delay: 300 * time.Millisecond, Queue: 10})
	numbers, c := stream(t, a, b, k, 40)
	// The kernel's own multicast reports may have taken some places.
	if c.Forwarded > 10 || c.Dropped < 30 || len(numbers) > 10 || len(numbers) < 5 {
		t.Errorf("%d of 40 packets came through a queue of 10, counts %+v", len(numbers), c)
	}
}

func TestCutLinkIsSilentUntilItIsMended(t *testing.T) {
	_, a, b, k := pair(t, Impairment{Delay: time.Millisecond})
	listen(t, b, ":7")
	to := netip.AddrPortFrom(b.Addr4(), 7)
	if err := k.Down(); err != nil {
		t.Fatal(err)
	}
	err := a.Do(func() error {
		c, err := net.DialTimeout("tcp", to.String(), 100*time.Millisecond)
		if err == nil {
			c.Close()
		}
		return err
	})
	if e := net.Error(nil); !errors.As(err, &e) || !e.Timeout() {
		t.Errorf("dialling over a cut link: %v, want a timeout", err)
	}
	if c := k.Counts(); c.Lost == 0 {
		t.Errorf("counts %+v of a cut link", c)
	}
	if err := k.Up(); err != nil {
		t.Fatal(err)
	}
	expectRTT(t, a, to, 2*time.Millisecond)
}

func TestCutWireComesBack(t *testing.T) {
	l := newLab(t)
	a, b := host(t, l, "a"), host(t, l, "b")
	r, err := l.Router("r")
	if err != nil {
		t.Fatal(err)
	}
	k, err := l.Wire(a, r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Wire(r, b); err != nil {
		t.Fatal(err)
	}
	if err := l.Route(); err != nil {
		t.Fatal(err)
	}
	listen(t, b, ":7")
	for _, to := range []netip.AddrPort{netip.AddrPortFrom(b.Addr4(), 7), netip.AddrPortFrom(b.Addr6(), 7)} {
		if _, err := handshake(a, to); err != nil {
			t.Fatal(err)
		}
		if err := k.Down(); err != nil {
			t.Fatal(err)
		}
		if _, err := handshake(a, to); !errors.Is(err, unix.ENETUNREACH) {
			t.Errorf("dialling %v over a cut wire: %v", to, err)
		}
		if err := k.Up(); err != nil {
			t.Fatal(err)
		}
		if _, err := handshake(a, to); err != nil {
			t.Errorf("dialling %v over a mended wire: %v", to, err)
		}
	}
	if c := k.Counts(); c != (Counts{}) {
		t.Errorf("a wire counts %+v", c)
	}
}

func TestBulkTransferSurvivesARoughLink(t *testing.T) {
	const size = 8 << 20
	_, a, b, k := pair(t, Impairment{
		Delay: time.Millisecond, Jitter: 200 * time.Microsecond, Loss: 0.001, Duplicate: 0.01, Reorder: 0.01, Hold: time.Millisecond,
	})
	listen(t, b, ":7")
	for _, addr := range []netip.Addr{b.Addr4(), b.Addr6()} {
		var c net.Conn
		if err := a.Do(func() (err error) {
			c, err = net.Dial("tcp", netip.AddrPortFrom(addr, 7).String())
			return err
		}); err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		data := make([]byte, size)
		random := rand.NewChaCha8([32]byte{})
		if _, err := random.Read(data); err != nil {
			t.Fatal(err)
		}
		var g errgroup.Group
		g.Go(func() error {
			if _, err := io.Copy(c, bytes.NewReader(data)); err != nil {
				return err
			}
			return c.(*net.TCPConn).CloseWrite()
		})
		sum := sha256.New()
		n, err := io.Copy(sum, c)
		if err := errors.Join(err, g.Wait()); err != nil {
			t.Fatalf("echo of %d bytes: %v after %d, counts %+v", size, err, n, k.Counts())
		}
		if n != size || !bytes.Equal(sum.Sum(nil), sum256(data)) {
			t.Errorf("the echo over %v differs: %d bytes, want %d", addr, n, size)
		}
	}
	if c := k.Counts(); c.Forwarded > 2*2*size/1500 {
		t.Errorf("counts %+v: batches of segments were taken apart", c)
	}
}

func sum256(b []byte) []byte {
	s := sha256.Sum256(b)
	return s[:]
}
