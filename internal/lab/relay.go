//go:build linux

package lab

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A wire is one direction of a relayed link: it takes packets from one packet socket, holds them as the impairment
// says, and sends them through another. It runs on a thread of its own, because its only job is to be in time.
type wire struct {
	in, out int // Packet sockets.
	wake    int // An eventfd; becomes readable when the wire is to stop.
	still   bool
	done    <-chan struct{}
	err     error // Valid when done is closed.

	imp     atomic.Pointer[Impairment]
	down    atomic.Bool
	stopped atomic.Bool

	forwarded, lost, duplicated, reordered, dropped atomic.Uint64

	mu      sync.Mutex // Guards in against being closed while its statistics are read.
	overrun uint64     // Packets that the kernel dropped because its queue was full.
	closed  bool

	// What follows belongs to the thread.
	rng     *rand.Rand
	base    time.Time // Where the wire's clock starts.
	queue   queue
	arrived uint64        // Number of the last packet that came.
	sent    uint64        // Highest number of a packet that went.
	last    time.Duration // Latest departure of a packet that was not held back.
	scratch []byte
	oob     []byte
}

// startRelay opens the packet sockets on the two far ends and starts a thread for each direction.
func (k *Link) startRelay(imp Impairment) error {
	var fds [2]int
	for i := range fds {
		fd, err := openPacket(k.lab.relays, k.fars[i].Attrs().Index)
		if err != nil {
			return errors.Join(err, closeAll(fds[:i]))
		}
		fds[i] = fd
	}
	var wakes [2]int
	for i := range wakes {
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		if err != nil {
			return errors.Join(fmt.Errorf("making an eventfd: %w", err), closeAll(fds[:]), closeAll(wakes[:i]))
		}
		wakes[i] = fd
	}
	for i := range k.wires {
		w := &wire{
			in: fds[i], out: fds[1-i], wake: wakes[i], still: k.lab.Still,
			rng:     rand.New(rand.NewPCG(k.lab.Seed, uint64(2*len(k.lab.links)+i))),
			base:    time.Now(),
			scratch: make([]byte, maxPacket),
			oob:     make([]byte, unix.CmsgSpace(16)),
		}
		w.imp.Store(&imp)
		w.done = ownThread(func() {
			hurry()
			w.err = w.run()
		})
		k.wires[i] = w
	}
	return nil
}

// stopRelays closes all links at once, because the kernel takes some milliseconds to close a packet socket.
func (l *Lab) stopRelays() error {
	var closing sync.WaitGroup
	errs := make([]error, len(l.links))
	for i, k := range l.links {
		closing.Go(func() {
			if err := k.close(); err != nil {
				errs[i] = fmt.Errorf("relay of %v: %w", k, err)
			}
		})
	}
	closing.Wait()
	return errors.Join(errs...)
}

// close stops both directions, then closes what they share.
func (k *Link) close() error {
	if k.wires[0] == nil {
		return nil
	}
	var errs []error
	for _, w := range k.wires {
		w.stopped.Store(true)
		if _, err := unix.Write(w.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil {
			errs = append(errs, fmt.Errorf("waking the relay: %w", err))
		}
	}
	for _, w := range k.wires {
		<-w.done
		errs = append(errs, w.err)
	}
	for _, w := range k.wires {
		w.overruns()
		w.mu.Lock()
		w.closed = true
		errs = append(errs, closeAll([]int{w.in, w.wake}))
		w.mu.Unlock()
	}
	return errors.Join(errs...)
}

func closeAll(fds []int) error {
	var errs []error
	for _, fd := range fds {
		errs = append(errs, unix.Close(fd))
	}
	return errors.Join(errs...)
}

// run forwards until it is told to stop. An error is about the machinery; no packet can cause one.
func (w *wire) run() error {
	fds := []unix.PollFd{{Fd: int32(w.in), Events: unix.POLLIN}, {Fd: int32(w.wake), Events: unix.POLLIN}}
	for !w.stopped.Load() {
		w.sendDue()
		came, err := w.receive()
		if err != nil {
			return err
		}
		if came {
			continue // There may be more.
		}
		var timeout *unix.Timespec // Without end.
		if w.queue.len() > 0 {
			t := unix.NsecToTimespec(int64(max(0, w.queue.first().departure-w.now())))
			timeout = &t
		}
		if err := w.wait(fds, timeout); err != nil && err != unix.EINTR {
			return fmt.Errorf("waiting for packets: %w", err)
		}
	}
	return nil
}

// wait waits for packets, or for the end; see Lab.Still.
func (w *wire) wait(fds []unix.PollFd, timeout *unix.Timespec) error {
	if !w.still {
		_, err := unix.Ppoll(fds, timeout, nil)
		return err
	}
	_, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&fds[0])), uintptr(len(fds)), uintptr(unsafe.Pointer(timeout)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// now is the time on the wire's clock, which never steps.
func (w *wire) now() time.Duration { return time.Since(w.base) }

// receive takes one packet, if there is one, and decides its fate.
func (w *wire) receive() (bool, error) {
	n, oobn, flags, _, err := unix.Recvmsg(w.in, w.scratch, w.oob, unix.MSG_DONTWAIT)
	switch err {
	case nil:
	case unix.EAGAIN, unix.EINTR:
		return false, nil
	case unix.EINVAL, unix.ENETDOWN: // A kind of offload that the header cannot tell, or the interface going away.
		w.dropped.Add(1)
		return true, nil
	default:
		return false, fmt.Errorf("receiving a packet: %w", err)
	}
	if flags&unix.MSG_TRUNC != 0 {
		w.dropped.Add(1)
		return true, nil
	}
	// Both clocks are read in one go, or a pause between them would make the packet early.
	w.admit(w.scratch[:n], arrivalTime(time.Now(), w.oob[:oobn]).Sub(w.base))
	return true, nil
}

// admit queues a packet that came at the time arrival, unless it is to be lost.
func (w *wire) admit(packet []byte, arrival time.Duration) {
	imp := w.imp.Load()
	// Every packet takes as many random numbers, whatever the impairment, so that the fates of later ones do not
	// depend on it.
	lose, double := w.rng.Float64() < imp.Loss, w.rng.Float64() < imp.Duplicate
	hold, spread := w.rng.Float64() < imp.Reorder, 2*w.rng.Float64()-1
	if lose || w.down.Load() {
		w.lost.Add(1)
		return
	}
	limit := imp.Queue
	if limit == 0 {
		limit = defaultQueue
	}
	if w.queue.len() >= limit || w.queue.bytes+len(packet) > maxQueueBytes {
		w.dropped.Add(1)
		return
	}
	departure := arrival + max(0, imp.Delay+time.Duration(spread*float64(imp.Jitter)))
	departure = max(departure, w.last)
	if !hold {
		w.last = departure
	} else if imp.Hold > 0 {
		departure += imp.Hold
	} else {
		departure += defaultHold
	}
	w.arrived++
	w.queue.push(item{departure: departure, number: w.arrived, double: double, packet: w.queue.copy(packet)})
}

// sendDue sends everything whose time has come.
func (w *wire) sendDue() {
	for w.queue.len() > 0 && w.queue.first().departure <= w.now() {
		it := w.queue.pop()
		switch {
		case w.down.Load():
			w.lost.Add(1)
		case w.send(it.packet):
			w.forwarded.Add(1)
			if it.number < w.sent {
				w.reordered.Add(1)
			}
			w.sent = max(w.sent, it.number)
			if it.double && w.send(it.packet) {
				w.duplicated.Add(1)
			}
		default:
			w.dropped.Add(1)
		}
		w.queue.free(it.packet)
	}
}

func (w *wire) send(packet []byte) bool {
	for {
		_, err := unix.Write(w.out, packet)
		if err != unix.EINTR {
			return err == nil
		}
	}
}

func (w *wire) addTo(c *Counts) {
	c.Forwarded += w.forwarded.Load()
	c.Lost += w.lost.Load()
	c.Duplicated += w.duplicated.Load()
	c.Reordered += w.reordered.Load()
	c.Dropped += w.dropped.Load() + w.overruns()
}

// overruns returns how many packets the kernel has dropped because the wire did not keep up.
func (w *wire) overruns() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed {
		// Reading the statistics resets them.
		if s, err := unix.GetsockoptTpacketStats(w.in, unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
			w.overrun += uint64(s.Drops)
		}
	}
	return w.overrun
}
