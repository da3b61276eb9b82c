package rawsock

import (
	"errors"
	"fmt"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Tap sees the SYNs and FINs that leave from a range of ports, on every device
// of the host, with the kernel's stamps. Nobody waits on it: a sender that had
// to wake somebody up would send later than its stamp says.
type Tap struct {
	fd int
	mu sync.Mutex // guards in
	in *inbox
}

// OpenTap opens a tap. As long as it is open, the kernel clones every packet
// that the host sends.
func OpenTap(ports PortRange) (*Tap, error) {
	filter, err := sentFilter(ports)
	if err != nil {
		return nil, err
	}
	fd, err := packetSocket(filter, unix.ETH_P_ALL)
	if err != nil {
		return nil, err
	}
	return &Tap{fd: fd, in: newInbox(snapLen).withNames()}, nil
}

// Stamps hands over the stamps that are waiting, as Sender.Stamps does. Packets
// pass here before a device could stamp them, so hardware is 0.
func (t *Tap) Stamps(fn func(stamp, hardware int64, packet []byte)) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for n := batchLen; n == batchLen; {
		var err error
		if n, err = t.in.receive(t.fd, 0); err != nil {
			if errors.Is(err, unix.EAGAIN) {
				return nil
			}
			return fmt.Errorf("read the tap: %w", err)
		}
		for i := range n {
			packet, control := t.in.message(i)
			from := (*unix.RawSockaddrLinklayer)(unsafe.Pointer(&t.in.name(i)[0]))
			if at, _ := stampsOf(control); at != 0 && from.Pkttype == unix.PACKET_OUTGOING {
				fn(at, 0, packet)
			}
		}
	}
	return nil
}

// Close ends the tap. Stamps must have returned, and not be called again.
func (t *Tap) Close() error { return unix.Close(t.fd) }
