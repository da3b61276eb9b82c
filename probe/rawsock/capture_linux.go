package rawsock

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Capture sees, on every device of the host, the packets that answer probes
// from a range of ports, and no others.
type Capture struct {
	fds    []int
	bell   *bell
	closed atomic.Bool

	mu     sync.Mutex // guards the rest, and fds against being closed
	in     *inbox
	frames []Frame
	drops  uint64
	looked time.Time // when the drops were counted
}

const captureBuffer = 8 << 20

// dropsEvery is how old the count of drops may be, where few packets come.
const dropsEvery = 20 * time.Millisecond

// OpenCapture starts capturing. It asks for the packets of each IP version by
// itself: of a socket that asks for all there are, the kernel has to think with each packet
// that the host sends.
func OpenCapture(ports PortRange) (*Capture, error) {
	filter, err := answerFilter(ports)
	if err != nil {
		return nil, err
	}
	return openCapture(filter, unix.ETH_P_IP, unix.ETH_P_IPV6)
}

// openCapture captures packets of these protocols.
func openCapture(filter []bpf.RawInstruction, protocols ...uint16) (*Capture, error) {
	c := &Capture{in: newInbox(snapLen), frames: make([]Frame, 0, batchLen)}
	for _, protocol := range protocols {
		fd, err := packetSocket(filter, protocol)
		if err != nil {
			return nil, errors.Join(err, closeAll(c.fds))
		}
		c.fds = append(c.fds, fd)
	}
	var err error
	if c.bell, err = hang(c.fds); err != nil {
		return nil, errors.Join(err, closeAll(c.fds))
	}
	return c, nil
}

func closeAll(fds []int) error {
	var errs []error
	for _, fd := range fds {
		errs = append(errs, os.NewSyscallError("close", unix.Close(fd)))
	}
	return errors.Join(errs...)
}

// packetSocket opens a socket that gets what the filter passes of a protocol,
// with stamps. For all protocols, ETH_P_ALL, it sees what leaves as well: then
// the kernel clones each packet that the host sends before it asks the filter.
func packetSocket(filter []bpf.RawInstruction, protocol uint16) (fd int, err error) {
	// Protocol 0 receives nothing, so nothing gets in before the filter is there.
	fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("open packet socket: %w", permission(err))
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	if err := attachFilter(fd, filter); err != nil {
		return -1, err
	}
	growBuffer(fd, captureBuffer)
	if err := enableStamps(fd); err != nil {
		return -1, err
	}
	ordered := binary.NativeEndian.Uint16([]byte{byte(protocol >> 8), byte(protocol)}) // in network order
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: ordered}); err != nil {
		return -1, os.NewSyscallError("bind packet socket", err)
	}
	return fd, nil
}

// Wait returns when there are packets to take. More says that the caller expects
// some soon: then it lets them gather for a moment. After Close it returns an error
// that wraps os.ErrClosed. Only one goroutine may wait.
func (c *Capture) Wait(more bool) error {
	err := c.bell.wait(more)
	switch {
	case err != nil && c.closed.Load():
		return fmt.Errorf("wait for packets: %w", os.ErrClosed)
	case err != nil:
		return fmt.Errorf("wait for packets: %w", err)
	}
	return nil
}

// Take hands over the packets that are waiting, in batches, without waiting
// for more: what the kernel had before the call has been handed over when it
// returns. Drops is how many packets had found no room since the capture was
// opened, by a count that may be some milliseconds old. It is safe for concurrent use; fn is called by one at a time.
func (c *Capture) Take(fn func(frames []Frame, drops uint64)) error {
	return c.take(func(n int) {
		if n == 0 {
			return
		}
		if now := time.Now(); n == batchLen || now.Sub(c.looked) > dropsEvery {
			c.countDrops()
			c.looked = now
		}
		fn(c.batch(n), c.drops)
	})
}

// take reads until nothing is left, and shows each batch, be it empty.
func (c *Capture) take(show func(n int)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed.Load() {
		return fmt.Errorf("take packets: %w", os.ErrClosed)
	}
	for _, fd := range c.fds {
		for n := batchLen; n == batchLen; {
			var err error
			if n, err = c.in.receive(fd, 0); errors.Is(err, unix.EAGAIN) {
				n = 0
			} else if err != nil {
				return fmt.Errorf("take packets: %w", err)
			}
			show(n)
		}
	}
	return nil
}

// batch returns the first n packets of the inbox.
func (c *Capture) batch(n int) []Frame {
	c.frames = c.frames[:0]
	for i := range n {
		data, control := c.in.message(i)
		at, hardware := stampsOf(control)
		c.frames = append(c.frames, Frame{Stamp: at, Hardware: hardware, Data: data})
	}
	return c.frames
}

// Drops returns how many packets have found no room since the capture was opened.
func (c *Capture) Drops() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed.Load() {
		c.countDrops()
	}
	return c.drops
}

func (c *Capture) countDrops() {
	for _, fd := range c.fds {
		// The kernel's counters start over each time they are read. This does not wait; see mmsg.
		var st unix.TpacketStats
		size := uint32(unsafe.Sizeof(st))
		_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS,
			uintptr(unsafe.Pointer(&st)), uintptr(unsafe.Pointer(&size)), 0)
		if errno == 0 {
			c.drops += uint64(st.Drops)
		}
	}
}

// Close ends the capture and wakes its reader.
func (c *Capture) Close() error {
	if c.closed.Swap(true) {
		return os.ErrClosed
	}
	err := c.bell.close()
	c.mu.Lock()
	defer c.mu.Unlock()
	return errors.Join(err, closeAll(c.fds))
}
