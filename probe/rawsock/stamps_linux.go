package rawsock

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// receiveStamps asks for stamps of received packets. The older SO_TIMESTAMPNS
// would make one up, at the time of reading, for a packet that has none.
const receiveStamps = unix.SOF_TIMESTAMPING_RX_SOFTWARE | unix.SOF_TIMESTAMPING_SOFTWARE

// sentStamps asks for stamps of sent packets.
const sentStamps = unix.SOF_TIMESTAMPING_TX_SOFTWARE | unix.SOF_TIMESTAMPING_SOFTWARE

// stampedWithin is how long the kernel gets until it stamps.
const stampedWithin = 2 * time.Second

// enableStamps has the kernel stamp packets, and waits until it does. It
// begins with that some time after the first socket of the host has asked for it, and what comes
// before has no stamp.
func enableStamps(fd int) error {
	if err := wantStamps(fd, receiveStamps); err != nil {
		return err
	}
	for began := time.Now(); time.Since(began) < stampedWithin; time.Sleep(time.Millisecond) {
		if stamped, err := loopbackIsStamped(); stamped || err != nil {
			break // without a loopback there is no telling, and packets without a stamp are found out
		}
	}
	return nil
}

// loopbackIsStamped sends a datagram to itself and tells whether it has a stamp.
func loopbackIsStamped() (bool, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	if err := wantStamps(fd, receiveStamps); err != nil {
		return false, err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return false, err
	}
	self, err := unix.Getsockname(fd)
	if err != nil {
		return false, err
	}
	if err := unix.Sendto(fd, []byte{0}, 0, self); err != nil {
		return false, err
	}
	in := newInbox(1)
	if _, err := in.receive(fd, 0); errors.Is(err, unix.EAGAIN) {
		return false, nil // a busy host has not got round to it yet
	} else if err != nil {
		return false, err
	}
	_, control := in.message(0)
	at, _ := stampsOf(control)
	return at != 0, nil
}
