package rawsock

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Watch sees, on every device of the host, the TCP segments from and to a range
// of ports in both directions, and ICMP errors about them. A packet that passes
// several devices, as with a bridge or a VLAN, is seen on each; on a loopback it
// is seen once.
type Watch struct {
	capture *Capture
	seen    []Seen // guarded by the capture's lock
}

// OpenWatch starts watching. As long as it is open, the kernel clones every
// packet that the host sends.
func OpenWatch(ports PortRange) (*Watch, error) {
	filter, err := watchFilter(ports)
	if err != nil {
		return nil, err
	}
	fd, err := packetSocket(filter, false)
	if err != nil {
		return nil, err
	}
	c := &Capture{file: os.NewFile(uintptr(fd), "watch"), in: newInbox(snapLen)}
	if c.conn, err = c.file.SyscallConn(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &Watch{capture: c, seen: make([]Seen, 0, batchLen)}, nil
}

// Wait returns when there are packets to take, as Capture.Wait does.
func (w *Watch) Wait() error { return w.capture.Wait() }

// Take hands over the packets that are waiting, in batches and without waiting,
// in the order in which the kernel saw them. Drops is how many packets had
// found no room since the watch was opened. It is safe for concurrent use; fn is called by one at
// a time, and with no packets if there are none.
func (w *Watch) Take(fn func(seen []Seen, drops uint64)) error {
	c := w.capture
	c.mu.Lock()
	defer c.mu.Unlock()
	var failed error
	err := c.conn.Control(func(fd uintptr) {
		for n := batchLen; n == batchLen && failed == nil; {
			if n, failed = c.in.receive(int(fd), 0); errors.Is(failed, unix.EAGAIN) {
				n, failed = 0, nil
			}
			if failed == nil {
				c.countDrops(int(fd))
				fn(w.batch(n), c.drops)
			}
		}
	})
	switch {
	case err != nil && c.closed.Load():
		return fmt.Errorf("take packets: %w", os.ErrClosed)
	case err != nil:
		return fmt.Errorf("take packets: %w", err)
	case failed != nil:
		return fmt.Errorf("take packets: %w", failed)
	}
	return nil
}

// batch returns the first n packets of the inbox.
func (w *Watch) batch(n int) []Seen {
	w.seen = w.seen[:0]
	for i := range n {
		data, control := w.capture.in.message(i)
		from := (*unix.RawSockaddrLinklayer)(unsafe.Pointer(&w.capture.in.name(i)[0]))
		at, _ := stampOf(control)
		w.seen = append(w.seen, Seen{Stamp: at, Outgoing: from.Pkttype == outgoingPacket, Interface: int(from.Ifindex), Data: data})
	}
	return w.seen
}

// InterfaceName returns the name of a device where packets are seen, or its
// number if it has gone.
func (w *Watch) InterfaceName(index int) string {
	name := strconv.Itoa(index)
	r, err := unix.NewIfreq("")
	if err != nil {
		return name
	}
	// If the watch is closed, or the device has gone, there is the number.
	_ = w.capture.conn.Control(func(fd uintptr) {
		r.SetUint32(uint32(index))
		if unix.IoctlIfreq(int(fd), unix.SIOCGIFNAME, r) == nil {
			name = r.Name()
		}
	})
	return name
}

// Close ends the watch and wakes its reader.
func (w *Watch) Close() error { return w.capture.Close() }
