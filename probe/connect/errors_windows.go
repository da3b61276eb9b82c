package connect

import (
	"fmt"
	"syscall"
	"unsafe"
)

const (
	errRefused  = syscall.Errno(10061) // WSAECONNREFUSED
	errTimedOut = syscall.Errno(10060) // WSAETIMEDOUT
)

// initialRTO is TCP_INITIAL_RTO_PARAMETERS.
type initialRTO struct {
	rtt                   uint16
	maxSynRetransmissions uint8
}

// once has Windows send one SYN and believe the first RST: otherwise it tries
// again twice, half a second apart, before it says that a port is closed.
func once(raw syscall.RawConn) error {
	const setInitialRTO = syscall.IOC_IN | syscall.IOC_VENDOR | 17          // SIO_TCP_INITIAL_RTO
	params := initialRTO{rtt: ^uint16(0), maxSynRetransmissions: ^uint8(1)} // unspecified, and none
	var failed error
	err := raw.Control(func(fd uintptr) {
		var out uint32
		failed = syscall.WSAIoctl(syscall.Handle(fd), setInitialRTO, (*byte)(unsafe.Pointer(&params)),
			uint32(unsafe.Sizeof(params)), nil, 0, &out, nil, 0)
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		return fmt.Errorf("have one SYN sent, which needs Windows 10 of 2017 or later: %w", err)
	}
	return nil
}
