package rawsock

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Capture sees, on every device of the host, the packets that answer probes
// from a range of ports, and no others.
type Capture struct {
	file   *os.File
	conn   syscall.RawConn
	closed atomic.Bool

	mu     sync.Mutex // guards the rest
	in     *inbox
	frames []Frame
	drops  uint64
	looked time.Time // when the drops were counted
}

const captureBuffer = 8 << 20

// dropsEvery is how old the count of drops may be, where few packets come.
const dropsEvery = 20 * time.Millisecond

// OpenCapture starts capturing.
func OpenCapture(ports PortRange) (*Capture, error) {
	filter, err := answerFilter(ports)
	if err != nil {
		return nil, err
	}
	fd, err := packetSocket(filter, true)
	if err != nil {
		return nil, err
	}
	c := &Capture{file: os.NewFile(uintptr(fd), "capture"), in: newInbox(snapLen), frames: make([]Frame, 0, batchLen)}
	if c.conn, err = c.file.SyscallConn(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// packetSocket opens a socket that gets what the filter passes, with stamps.
// Where outgoing packets are not ignored, the kernel clones each one that the
// host sends before it asks the filter.
func packetSocket(filter []bpf.RawInstruction, ignoreOutgoing bool) (fd int, err error) {
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
	if ignoreOutgoing {
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
			return -1, os.NewSyscallError("setsockopt PACKET_IGNORE_OUTGOING", err)
		}
	}
	if err := enableStamps(fd); err != nil {
		return -1, err
	}
	all := binary.NativeEndian.Uint16([]byte{unix.ETH_P_ALL >> 8, unix.ETH_P_ALL & 0xff}) // in network order
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all}); err != nil {
		return -1, os.NewSyscallError("bind packet socket", err)
	}
	return fd, nil
}

// Wait returns when there are packets to take. After Close it returns an error
// that wraps os.ErrClosed. Only one goroutine may wait.
func (c *Capture) Wait() error {
	var failed error
	woken := false
	err := c.conn.Read(func(fd uintptr) bool {
		if woken {
			return true
		}
		// The runtime forgets what it was told before this call: look once.
		woken = true
		ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		var n int
		n, failed = unix.Poll(ready, 0)
		if errors.Is(failed, unix.EINTR) {
			n, failed = 1, nil
		}
		return n > 0 || failed != nil
	})
	switch {
	case err != nil && c.closed.Load():
		return fmt.Errorf("wait for packets: %w", os.ErrClosed)
	case err != nil:
		return fmt.Errorf("wait for packets: %w", err)
	case failed != nil:
		return fmt.Errorf("wait for packets: %w", failed)
	}
	return nil
}

// Take hands over the packets that are waiting, in batches, without waiting
// for more: what the kernel had before the call has been handed over when it
// returns. Drops is how many packets had found no room since the capture was
// opened, by a count that may be some milliseconds old. It is safe for concurrent use; fn is called by one at a time.
func (c *Capture) Take(fn func(frames []Frame, drops uint64)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var failed error
	err := c.conn.Control(func(fd uintptr) {
		for n := batchLen; n == batchLen && failed == nil; {
			n, failed = c.in.receive(int(fd), 0)
			if failed == nil {
				if now := time.Now(); n == batchLen || now.Sub(c.looked) > dropsEvery {
					c.countDrops(int(fd))
					c.looked = now
				}
				fn(c.batch(n), c.drops)
			}
		}
	})
	switch {
	case err != nil && c.closed.Load():
		return fmt.Errorf("take packets: %w", os.ErrClosed)
	case err != nil:
		return fmt.Errorf("take packets: %w", err)
	case failed != nil && !errors.Is(failed, unix.EAGAIN):
		return fmt.Errorf("take packets: %w", failed)
	}
	return nil
}

// batch returns the first n packets of the inbox.
func (c *Capture) batch(n int) []Frame {
	c.frames = c.frames[:0]
	for i := range n {
		data, control := c.in.message(i)
		at, _ := stampOf(control)
		c.frames = append(c.frames, Frame{Stamp: at, Data: data})
	}
	return c.frames
}

func (c *Capture) countDrops(fd int) {
	// The kernel's counters start over each time they are read.
	if st, err := unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
		c.drops += uint64(st.Drops)
	}
}

// Close ends the capture and wakes its reader.
func (c *Capture) Close() error {
	c.closed.Store(true)
	return c.file.Close()
}
