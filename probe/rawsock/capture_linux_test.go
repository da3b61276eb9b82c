package rawsock

import (
	"errors"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synmesh/synmesh/probe/packet"
)

func TestACaptureSeesWhatComesToItsPorts(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		n := alone(t)
		c := captureOn(t, n, ourPorts)
		s := senderOn(t, n, v6, false)
		at := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(loopback(v6), port) }
		before := time.Now().UnixNano()
		send(t, s,
			tcp(t, at(7000), at(60999), packet.SYN|packet.ACK, 1, 0), // not ours
			tcp(t, at(61003), at(7000), packet.SYN, 2, 0),            // leaves
			tcp(t, at(7000), at(61000), packet.SYN|packet.ACK, 3, 0),
			tcp(t, at(7000), at(61255), packet.RST|packet.ACK, 4, 0))
		// The kernel itself answers our SYN to its port 7000 with a RST, at once.
		all := takeUntil(t, c, 3)
		after := time.Now().UnixNano()
		for i, want := range []struct {
			from, to uint16
			seq      uint32
			flags    packet.Flags
		}{
			{7000, 61003, 0, packet.RST | packet.ACK},
			{7000, 61000, 3, packet.SYN | packet.ACK},
			{7000, 61255, 4, packet.RST | packet.ACK},
		} {
			got := all[i]
			if got.Seq != want.seq || got.Flags != want.flags || got.Src != at(want.from) || got.Dst != at(want.to) {
				t.Errorf("captured %v, want %+v", &got.Segment, want)
			}
			if got.Stamp < before || got.Stamp > after {
				t.Errorf("%v has the stamp %d, want %d to %d", &got.Segment, got.Stamp, before, after)
			}
		}
		if more, _ := take(t, c); len(all) != 3 || len(more) != 0 {
			t.Errorf("%d captured, want 3", len(all)+len(more))
		}
	}
}

func TestALongPacketIsCut(t *testing.T) {
	n := alone(t)
	c := captureOn(t, n, ourPorts)
	s := senderOn(t, n, false, false)
	at := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(loopback4, port) }
	send(t, s, tcp(t, at(7000), at(61003), packet.RST, 1, 0, make([]byte, 1000)...))
	if got := takeUntil(t, c, 1)[0]; got.Len != snapLen || got.Missing != 20+40+1000-snapLen {
		t.Errorf("%d bytes captured, %d missing, want %d", got.Len, got.Missing, snapLen)
	}
}

func TestALongQueueIsReadInBatches(t *testing.T) {
	const count = 2*batchLen + 3
	n := alone(t)
	c := captureOn(t, n, ourPorts)
	s := senderOn(t, n, false, false)
	at := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(loopback4, port) }
	for seq := range uint32(count) {
		send(t, s, tcp(t, at(7000), at(61003), packet.RST, seq, 0))
	}
	for i, got := range takeUntil(t, c, count) {
		if got.Seq != uint32(i) {
			t.Fatalf("frame %d is %v", i, &got.Segment)
		}
	}
}

func TestWhatFindsNoRoomIsCounted(t *testing.T) {
	const count = 300
	n := alone(t)
	witness := captureOn(t, n, ourPorts) // the kernel asks the latest socket first
	c := captureOn(t, n, ourPorts)
	s := senderOn(t, n, false, false)
	must(t, unix.SetsockoptInt(c.fds[0], unix.SOL_SOCKET, unix.SO_RCVBUF, 16<<10))
	at := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(loopback4, port) }
	sent, captured := 0, 0
	emit := func(n int) {
		for range n {
			send(t, s, tcp(t, at(7000), at(61003), packet.RST, uint32(sent), 0))
			sent++
		}
		takeUntil(t, witness, n)
	}
	for range 2 {
		emit(count)
		some, dropped := take(t, c)
		captured += len(some)
		// Drops are told of with packets, and may be counted some time later.
		for deadline := time.Now().Add(5 * time.Second); captured+int(dropped) < sent && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
			emit(1)
			some, dropped = take(t, c)
			captured += len(some)
		}
		if len(some) == 0 || dropped == 0 || captured+int(dropped) != sent {
			t.Errorf("%d captured and %d dropped of %d", captured, dropped, sent)
		}
	}
}

func TestNothingIsTakenWhereNothingCame(t *testing.T) {
	c := captureOn(t, alone(t), ourPorts)
	must(t, c.Take(func(frames []Frame, drops uint64) { t.Errorf("%d frames, %d dropped, want none", len(frames), drops) }))
}

func TestACaptureMayBeReadByManyAtOnce(t *testing.T) {
	const count, readers = 200, 3
	n := alone(t)
	witness := captureOn(t, n, ourPorts) // the kernel asks the latest socket first
	c := captureOn(t, n, ourPorts)
	s := senderOn(t, n, false, false)
	at := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(loopback4, port) }
	for seq := range uint32(count) {
		send(t, s, tcp(t, at(7000), at(61003), packet.RST, seq, 0))
	}
	takeUntil(t, witness, count)
	var reading sync.WaitGroup
	got := 0
	for range readers {
		reading.Go(func() {
			if err := c.Take(func(frames []Frame, _ uint64) { got += len(frames) }); err != nil { // one at a time
				t.Error(err)
			}
		})
	}
	reading.Wait()
	if got != count {
		t.Errorf("%d frames, want %d", got, count)
	}
}

// Others that take packets away must never leave who waits asleep with one
// there, be the packet of the one IP version or the other.
func TestNoPacketIsSleptThrough(t *testing.T) {
	const count = 2000
	n := alone(t)
	c := captureOn(t, n, ourPorts)
	senders := []*Sender{senderOn(t, n, false, false), senderOn(t, n, true, false)}
	taken := make(chan int, count)
	take := func() error { return c.Take(func(frames []Frame, _ uint64) { taken <- len(frames) }) }
	var waiter sync.WaitGroup
	waiter.Go(func() {
		for c.Wait(true) == nil && take() == nil {
		}
	})
	defer waiter.Wait()
	defer func() { _ = c.bell.file.SetReadDeadline(time.Now()) }()
	for i := range count {
		var other sync.WaitGroup
		other.Go(func() { // takes it or just misses it
			if err := take(); err != nil {
				t.Error(err)
			}
		})
		if i%3 == 0 {
			other.Wait() // misses it for certain
		}
		src := netip.AddrPortFrom(loopback(i%2 == 1), 7000)
		send(t, senders[i%2], tcp(t, src, netip.AddrPortFrom(src.Addr(), 61003), packet.RST, uint32(i), 0))
		other.Wait()
		select {
		case <-taken:
		case <-time.After(5 * time.Second):
			t.Fatalf("packet %d lies there, and nobody takes it", i)
		}
	}
}

func TestCloseWakesWhoWaits(t *testing.T) {
	var c *Capture
	must(t, alone(t).Do(func() (err error) { c, err = OpenCapture(ourPorts); return err }))
	woken := make(chan error, 1)
	go func() { woken <- c.Wait(true) }()
	select {
	case err := <-woken:
		t.Fatalf("nothing was sent, and Wait returned %v", err)
	case <-time.After(20 * time.Millisecond): // it waits, or will find the capture closed
	}
	must(t, c.Close())
	select {
	case err := <-woken:
		if !errors.Is(err, os.ErrClosed) {
			t.Errorf("Wait says %v, want os.ErrClosed", err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("Wait did not return")
	}
	if err := c.Wait(true); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Wait after Close says %v, want os.ErrClosed", err)
	}
	err := c.Take(func([]Frame, uint64) { t.Error("frames of a closed capture") })
	if !errors.Is(err, os.ErrClosed) {
		t.Errorf("Take after Close says %v, want os.ErrClosed", err)
	}
}
