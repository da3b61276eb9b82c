package rawsock

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"
)

var errNetlink = errors.New("the kernel's answer makes no sense")

// parseReply returns the body of a netlink message (netlink(7)), which is of the
// kind and has the number, or the error that it tells of.
func parseReply(b []byte, kind uint16, seq uint32) ([]byte, error) {
	if len(b) < unix.NLMSG_HDRLEN {
		return nil, errNetlink
	}
	size := binary.NativeEndian.Uint32(b)
	if size < unix.NLMSG_HDRLEN || uint64(size) > uint64(len(b)) || binary.NativeEndian.Uint32(b[8:]) != seq {
		return nil, errNetlink
	}
	body := b[unix.NLMSG_HDRLEN:size]
	switch binary.NativeEndian.Uint16(b[4:]) {
	case kind:
		return body, nil
	case unix.NLMSG_ERROR: // struct nlmsgerr
		if len(body) >= 4 {
			if code := int32(binary.NativeEndian.Uint32(body)); code < 0 {
				return nil, unix.Errno(-code)
			}
		}
	}
	return nil, errNetlink
}

// parseRoute reads a struct rtmsg with its attributes.
func parseRoute(b []byte) (h hop, err error) {
	if len(b) < unix.SizeofRtMsg {
		return h, errNetlink
	}
	h.local = b[7] == unix.RTN_LOCAL
	err = attributes(b[unix.SizeofRtMsg:], func(kind uint16, value []byte) {
		switch {
		case kind == unix.RTA_OIF && len(value) == 4:
			h.device = binary.NativeEndian.Uint32(value)
		case kind == unix.RTA_GATEWAY:
			h.gateway, _ = netip.AddrFromSlice(value)
		case kind == unix.RTA_VIA && len(value) > 2: // of the other IP version; its family comes first
			h.gateway, _ = netip.AddrFromSlice(value[2:])
		}
	})
	if err == nil && h.device == 0 {
		err = errNetlink
	}
	return h, err
}

// parseNeighbour reads the state of a struct ndmsg.
func parseNeighbour(b []byte) (state uint16, err error) {
	if len(b) < unix.SizeofNdMsg {
		return 0, errNetlink
	}
	return binary.NativeEndian.Uint16(b[8:]), nil
}

// attributes shows each attribute (struct rtattr) in turn.
func attributes(b []byte, show func(kind uint16, value []byte)) error {
	for len(b) >= unix.SizeofRtAttr {
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.SizeofRtAttr || size > len(b) {
			return errNetlink
		}
		show(binary.NativeEndian.Uint16(b[2:])&^uint16(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[unix.SizeofRtAttr:size])
		b = b[min((size+3)&^3, len(b)):]
	}
	return nil
}

func appendAttribute(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofRtAttr+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	return append(b, value...) // addresses and numbers fill whole words
}
