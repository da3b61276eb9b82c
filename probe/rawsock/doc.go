// Package rawsock holds the sockets that probing by hand takes, and nothing
// of what is done with them: a Sender for TCP segments through a raw IP
// socket, a Capture that sees answers with the kernel's stamps, a Guard that
// keeps a source port for us, and a Router that tells how a packet would leave;
// and an Alarm, which is in time.
//
// It is the one place that speaks to the operating system about packets, and
// works on Linux only: elsewhere every function returns ErrUnsupported. All
// sockets belong to the network namespace of the thread that opened them.
//
// A Sender and a Capture need CAP_NET_RAW; errors that come of its absence wrap ErrPermission.
package rawsock

import (
	"errors"
	"net/netip"
)

var (
	// ErrUnsupported is returned on systems without raw TCP and packet sockets.
	ErrUnsupported = errors.New("raw sockets are supported on Linux only")
	// ErrPermission is wrapped when the process may not open raw sockets.
	ErrPermission = errors.New("raw sockets need the capability CAP_NET_RAW: run as root, or give it to the program with setcap cap_net_raw+ep")
	// ErrPortInUse is wrapped when another socket of the host has the port.
	ErrPortInUse = errors.New("the port is in use")
)

// Datagram is one TCP segment and where it goes. The kernel puts the IP header
// in front of it.
type Datagram struct {
	// Src must be an address of this host: the kernel refuses any other.
	Src, Dst netip.Addr
	// Interface is the index of the device to leave by; 0 leaves it to the routes.
	Interface uint32
	// TTL is the time to live or hop limit; 0 is the host's default.
	TTL uint8
	// TOS is the DSCP in the upper six bits, and ECN in the lower two.
	TOS     uint8
	Segment []byte
}

// Frame is a captured packet.
type Frame struct {
	// Stamp is the kernel's time of it, in nanoseconds since 1970; 0 if it has none.
	Stamp int64
	// Hardware is the device's time of it, in nanoseconds by a clock of its own
	// that may show anything; 0 if it has none, or nobody asked. See Capture.WantHardware.
	Hardware int64
	// Data starts at the IP header and may be cut short. It is valid during the
	// call that hands it over.
	Data []byte
}

// PortRange is a range of ports, both ends included.
type PortRange struct{ First, Last uint16 }
