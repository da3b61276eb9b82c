//go:build !linux

package rawsock

import (
	"net/netip"
	"time"
)

// Sender sends TCP segments of one IP version and gives back the times at
// which they left. It never receives.
type Sender struct{}

// OpenSender returns ErrUnsupported.
func OpenSender(v6, stamped bool) (*Sender, error) { return nil, ErrUnsupported }

// Send returns ErrUnsupported.
func (*Sender) Send([]Datagram) (int, error) { return 0, ErrUnsupported }

// Stamps returns ErrUnsupported.
func (*Sender) Stamps(func(stamp, hardware int64, packet []byte)) error { return ErrUnsupported }

// WantHardware returns ErrUnsupported.
func (*Sender) WantHardware() error { return ErrUnsupported }

// Close does nothing.
func (*Sender) Close() error { return nil }

// Capture sees the packets that answer probes from a range of ports.
type Capture struct{}

// OpenCapture returns ErrUnsupported.
func OpenCapture(PortRange) (*Capture, error) { return nil, ErrUnsupported }

// Wait returns ErrUnsupported.
func (*Capture) Wait(bool) error { return ErrUnsupported }

// Take returns ErrUnsupported.
func (*Capture) Take(func([]Frame, uint64)) error { return ErrUnsupported }

// WantHardware returns ErrUnsupported.
func (*Capture) WantHardware() error { return ErrUnsupported }

// Drops returns 0.
func (*Capture) Drops() uint64 { return 0 }

// Close does nothing.
func (*Capture) Close() error { return nil }

// Tap sees the SYNs and FINs that leave from a range of ports.
type Tap struct{}

// OpenTap returns ErrUnsupported.
func OpenTap(PortRange) (*Tap, error) { return nil, ErrUnsupported }

// Stamps returns ErrUnsupported.
func (*Tap) Stamps(func(stamp, hardware int64, packet []byte)) error { return ErrUnsupported }

// Close does nothing.
func (*Tap) Close() error { return nil }

// Alarm goes off at an appointed time.
type Alarm struct{}

// OpenAlarm returns ErrUnsupported.
func OpenAlarm() (*Alarm, error) { return nil, ErrUnsupported }

// Set returns ErrUnsupported.
func (*Alarm) Set(time.Duration) error { return ErrUnsupported }

// Each returns ErrUnsupported.
func (*Alarm) Each(func()) error { return ErrUnsupported }

// Close does nothing.
func (*Alarm) Close() error { return nil }

// Guard keeps a source port for us.
type Guard struct{ Port uint16 }

// HoldPort returns ErrUnsupported.
func HoldPort(uint16) (*Guard, error) { return nil, ErrUnsupported }

// Silence returns ErrUnsupported.
func (*Guard) Silence() error { return ErrUnsupported }

// Close does nothing.
func (*Guard) Close() error { return nil }

// StampingDevices returns ErrUnsupported.
func StampingDevices() ([]StampingDevice, error) { return nil, ErrUnsupported }

// Router tells from which address and with which MTU the host reaches another.
type Router struct{}

// OpenRouter returns ErrUnsupported.
func OpenRouter() (*Router, error) { return nil, ErrUnsupported }

// Route returns ErrUnsupported.
func (*Router) Route(netip.Addr) (netip.Addr, int, error) { return netip.Addr{}, 0, ErrUnsupported }

// Neighbour returns ErrUnsupported.
func (*Router) Neighbour(src, dst netip.Addr, device uint32) (bool, error) {
	return false, ErrUnsupported
}

// Close does nothing.
func (*Router) Close() error { return nil }
