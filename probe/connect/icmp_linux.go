//go:build !386 && !s390x

package connect

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"github.com/synmesh/synmesh/probe"
)

// icmpError takes the first ICMP error that tells of the SYN's fate from the
// socket's error queue, or returns nil.
func icmpError(fd int) (*probe.ICMP, error) {
	var oob [256]byte
	for {
		_, n, _, _, err := syscall.Recvmsg(fd, nil, oob[:], syscall.MSG_ERRQUEUE)
		switch {
		case err == syscall.EAGAIN:
			return nil, nil
		case err == syscall.EINTR:
			continue
		case err != nil:
			return nil, fmt.Errorf("read the queue of ICMP errors: %w", err)
		}
		messages, err := syscall.ParseSocketControlMessage(oob[:n])
		if err != nil {
			return nil, fmt.Errorf("read the queue of ICMP errors: %w", err)
		}
		for _, m := range messages {
			v4 := m.Header.Level == syscall.IPPROTO_IP && m.Header.Type == syscall.IP_RECVERR
			v6 := m.Header.Level == syscall.IPPROTO_IPV6 && m.Header.Type == syscall.IPV6_RECVERR
			if !v4 && !v6 {
				continue
			}
			icmp, err := parseError(m.Data)
			if icmp != nil || err != nil {
				return icmp, err
			}
		}
	}
}

// Where an error came from (linux/errqueue.h).
const (
	originICMP  = 2
	originICMP6 = 3
)

// parseError reads a struct sock_extended_err and the address of the sender
// behind it (ip(7)). Nil is one that says nothing of the SYN's fate: an error of this host's
// own, or news of a smaller MTU.
func parseError(b []byte) (*probe.ICMP, error) {
	const head = 16 // errno, origin, type, code, padding, info, data
	if len(b) < head+2 {
		return nil, fmt.Errorf("an error of %d bytes is too short", len(b))
	}
	origin, icmp := b[4], probe.ICMP{Type: b[5], Code: b[6]}
	switch {
	case origin == originICMP && icmp.Type == 3 && icmp.Code == 4, origin == originICMP6 && icmp.Type == 2:
		return nil, nil
	case origin != originICMP && origin != originICMP6:
		return nil, nil
	}
	from := b[head:] // a struct sockaddr_in or sockaddr_in6
	switch family := binary.NativeEndian.Uint16(from); {
	case family == syscall.AF_INET && len(from) >= syscall.SizeofSockaddrInet4:
		icmp.From = netip.AddrFrom4([4]byte(from[4:8]))
	case family == syscall.AF_INET6 && len(from) >= syscall.SizeofSockaddrInet6:
		icmp.From = netip.AddrFrom16([16]byte(from[8:24])).Unmap()
	default:
		return nil, errors.New("an ICMP error does not tell its sender")
	}
	return &icmp, nil
}
