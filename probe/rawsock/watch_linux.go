package rawsock

import (
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
	// Guarded by the capture's lock.
	seen    []Seen
	devices map[int]string
}

// OpenWatch starts watching. As long as it is open, the kernel clones every
// packet that the host sends.
func OpenWatch(ports PortRange) (*Watch, error) {
	filter, err := watchFilter(ports)
	if err != nil {
		return nil, err
	}
	c, err := openCapture(filter, unix.ETH_P_ALL)
	if err != nil {
		return nil, err
	}
	c.in.withNames()
	return &Watch{capture: c, seen: make([]Seen, 0, batchLen), devices: make(map[int]string)}, nil
}

// Wait returns when there are packets to take, as Capture.Wait does.
func (w *Watch) Wait() error { return w.capture.Wait(true) }

// Take hands over the packets that are waiting, in batches and without waiting,
// in the order in which the kernel saw them. Drops is how many packets had
// found no room since the watch was opened. It is safe for concurrent use; fn is called by one at
// a time, and with no packets if there are none.
func (w *Watch) Take(fn func(seen []Seen, drops uint64)) error {
	c := w.capture
	return c.take(func(n int) {
		c.countDrops()
		fn(w.batch(n), c.drops)
	})
}

// batch returns the first n packets of the inbox.
func (w *Watch) batch(n int) []Seen {
	w.seen = w.seen[:0]
	for i := range n {
		data, control := w.capture.in.message(i)
		from := (*unix.RawSockaddrLinklayer)(unsafe.Pointer(&w.capture.in.name(i)[0]))
		at, _ := stampsOf(control)
		w.seen = append(w.seen, Seen{
			Stamp: at, Outgoing: from.Pkttype == outgoingPacket,
			Interface: int(from.Ifindex), Device: w.device(int(from.Ifindex)), Data: data,
		})
	}
	return w.seen
}

// device names a device where packets are seen.
func (w *Watch) device(index int) string {
	if name, known := w.devices[index]; known {
		return name
	}
	name := strconv.Itoa(index)
	if r, err := unix.NewIfreq(""); err == nil {
		r.SetUint32(uint32(index))
		if unix.IoctlIfreq(w.capture.fds[0], unix.SIOCGIFNAME, r) == nil {
			name = r.Name()
		}
	}
	w.devices[index] = name
	return name
}

// Close ends the watch and wakes its reader.
func (w *Watch) Close() error { return w.capture.Close() }
