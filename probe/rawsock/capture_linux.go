package rawsock

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Capture sees, on every device of the host, the packets that answer probes
// from a range of ports.
type Capture struct {
	file   *os.File
	conn   syscall.RawConn
	in     *inbox
	frames []Frame
	drops  uint64
	closed atomic.Bool
}

const captureBuffer = 8 << 20

// OpenCapture starts capturing. With outgoing, our own SYNs are captured too,
// at a price for all that the host sends: the kernel then clones every
// outgoing packet before it asks the filter.
func OpenCapture(ports PortRange, outgoing bool) (*Capture, error) {
	filter, err := captureFilter(ports, outgoing)
	if err != nil {
		return nil, err
	}
	// Protocol 0 receives nothing, so nothing gets in before the filter is there.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open packet socket: %w", permission(err))
	}
	c := &Capture{file: os.NewFile(uintptr(fd), "capture"), in: newInbox(snapLen), frames: make([]Frame, 0, batchLen)}
	if err := attachFilter(fd, filter); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	growBuffer(fd, captureBuffer)
	if !outgoing {
		err = os.NewSyscallError("setsockopt PACKET_IGNORE_OUTGOING", unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1))
	}
	if err == nil {
		err = os.NewSyscallError("setsockopt SO_TIMESTAMPNS", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1))
	}
	if err == nil {
		const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8 // in network order
		err = os.NewSyscallError("bind packet socket", unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all}))
	}
	if err == nil {
		c.conn, err = c.file.SyscallConn()
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// Read waits for packets and returns a batch of them, valid until the next
// Read. After Close it returns an error that wraps os.ErrClosed. Only one goroutine may read.
func (c *Capture) Read() ([]Frame, error) {
	var n int
	var failed error
	err := c.conn.Read(func(fd uintptr) bool {
		n, failed = c.in.receive(int(fd), 0)
		return !errors.Is(failed, unix.EAGAIN)
	})
	switch {
	case err != nil && c.closed.Load():
		return nil, fmt.Errorf("read packets: %w", os.ErrClosed)
	case err != nil:
		return nil, fmt.Errorf("wait for packets: %w", err)
	case failed != nil:
		return nil, fmt.Errorf("read packets: %w", failed)
	}
	c.frames = c.frames[:0]
	for i := range n {
		data, control := c.in.message(i)
		from := (*unix.RawSockaddrLinklayer)(unsafe.Pointer(&c.in.name(i)[0]))
		at, ok := stampOf(control)
		if !ok {
			continue
		}
		c.frames = append(c.frames, Frame{Stamp: at, Outgoing: from.Pkttype == unix.PACKET_OUTGOING, Data: data})
	}
	return c.frames, nil
}

// Drops returns how many packets found no room since the capture was opened.
// Only the goroutine that reads may call it.
func (c *Capture) Drops() uint64 {
	// The kernel's counters start over each time they are read.
	err := c.conn.Control(func(fd uintptr) {
		if st, err := unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
			c.drops += uint64(st.Drops)
		}
	})
	_ = err // closed: the count stays what it was
	return c.drops
}

// Close ends the capture and wakes its reader.
func (c *Capture) Close() error {
	c.closed.Store(true)
	return c.file.Close()
}
