package packet

import (
	"encoding/binary"
	"net/netip"
)

// Protocol and IPv6 extension header numbers (IANA, Assigned Internet Protocol
// Numbers).
const (
	protoHopByHop = 0
	protoICMP     = 1
	protoTCP      = 6
	protoRouting  = 43
	protoFragment = 44
	protoICMPv6   = 58
	protoDestOpts = 60
)

const (
	ipv4Len = 20 // without options
	ipv6Len = 40

	// maxExtensions bounds the walk along IPv6 extension headers. RFC 8200,
	// section 4.1, has a use for seven.
	maxExtensions = 8
)

// ipHeader is what matters of an IPv4 header or of an IPv6 header and its
// extensions. Offsets count from the start of the bytes handed in.
type ipHeader struct {
	src, dst netip.Addr
	tos, ttl uint8
	proto    uint8 // of the upper layer
	v6       bool
	fragment bool // of a larger datagram
	opaque   bool // a later fragment, or still under way along a routing header
	off, end int  // where the captured upper layer begins and ends
	missing  int  // upper layer bytes that were announced and not captured
}

// Length returns how many bytes of b are the packet that starts there with its
// IP header, the rest being padding, and how many more of it are missing. It
// fails as [Packet.Decode] does.
func Length(b []byte) (captured, missing int, err error) {
	var h ipHeader
	if err := h.decode(b, 0, len(b), false); err != nil {
		return 0, 0, err
	}
	return h.end, h.missing, nil
}

// decode reads the IP header at b[at:end] into h, which has to be zero. Quoted
// means that it stands in an ICMP error, whose sender may have cut the packet
// anywhere and changed its length.
func (h *ipHeader) decode(b []byte, at, end int, quoted bool) *Error {
	if at >= end {
		return truncated(layer("IP", quoted), at, 0, ipv4Len)
	}
	switch v := b[at] >> 4; v {
	case 4:
		return h.decode4(b, at, end, quoted)
	case 6:
		return h.decode6(b, at, end, quoted)
	default:
		return malformed(layer("IP", quoted), "version", at, int(v), "4 or 6", 0)
	}
}

// decode4 follows RFC 791, section 3.1.
func (h *ipHeader) decode4(b []byte, at, end int, quoted bool) *Error {
	p := b[at:end]
	if len(p) < ipv4Len {
		return truncated(layer("IPv4", quoted), at, len(p), ipv4Len)
	}
	size, total := int(p[0]&0xf)*4, int(binary.BigEndian.Uint16(p[2:]))
	if size < ipv4Len {
		return malformed(layer("IPv4", quoted), "header length", at, size, atLeast, ipv4Len)
	}
	if size > len(p) {
		return truncated(layer("IPv4", quoted), at, len(p), size)
	}
	switch {
	case quoted && total < size+tcpLen:
		total = len(p) // some senders of errors leave it changed; no segment is that short
	case total < size:
		return malformed("IPv4", "total length", at+2, total, atLeast, size)
	}
	h.tos, h.ttl, h.proto = p[1], p[8], p[9]
	h.src, h.dst = netip.AddrFrom4([4]byte(p[12:16])), netip.AddrFrom4([4]byte(p[16:20]))
	fragment := binary.BigEndian.Uint16(p[6:])
	h.fragment = fragment&0x3fff != 0 // more fragments, or an offset
	h.opaque = fragment&0x1fff != 0
	h.off = at + size
	h.setEnd(at+total, end)
	return nil
}

// decode6 follows RFC 8200, sections 3 and 4. A payload length of zero stands
// for no payload: jumbograms (RFC 2675), and the aggregates that Linux's BIG TCP
// shows to packet sockets, are no part of a handshake.
func (h *ipHeader) decode6(b []byte, at, end int, quoted bool) *Error {
	p := b[at:end]
	if len(p) < ipv6Len {
		return truncated(layer("IPv6", quoted), at, len(p), ipv6Len)
	}
	h.v6 = true
	h.tos, h.ttl = uint8(binary.BigEndian.Uint16(p)>>4), p[7]
	h.src, h.dst = netip.AddrFrom16([16]byte(p[8:24])), netip.AddrFrom16([16]byte(p[24:40]))
	h.off = at + ipv6Len
	h.setEnd(h.off+int(binary.BigEndian.Uint16(p[4:])), end)
	h.proto = p[6]
	if h.proto == protoTCP {
		return nil
	}
	return h.decodeExtensions(b, quoted)
}

// setEnd splits the announced end of the packet into what was captured and what
// is missing. Bytes beyond it are padding.
func (h *ipHeader) setEnd(announced, captured int) {
	h.end = min(announced, captured)
	h.missing = announced - h.end
}

// decodeExtensions walks to the upper layer header of an IPv6 packet.
func (h *ipHeader) decodeExtensions(b []byte, quoted bool) *Error {
	for n := 0; ; n++ {
		switch h.proto {
		case protoHopByHop, protoRouting, protoFragment, protoDestOpts:
		default:
			return nil
		}
		if h.proto == protoHopByHop && n > 0 {
			return malformed(layer("IPv6", quoted), "position of the hop-by-hop header", h.off, n+1, exactly, 1)
		}
		if n == maxExtensions {
			return malformed(layer("IPv6", quoted), "number of extension headers", h.off, n+1, atMost, maxExtensions)
		}
		x := b[h.off:h.end]
		if len(x) < 8 {
			return tooShort(layer("IPv6 extension header", quoted), h.off, len(x), 8, h.missing)
		}
		size := 8
		if h.proto != protoFragment {
			size = 8 * (int(x[1]) + 1)
		}
		if len(x) < size {
			return tooShort(layer("IPv6 extension header", quoted), h.off, len(x), size, h.missing)
		}
		switch h.proto {
		case protoFragment:
			// Both may be zero: an atomic fragment is a whole packet (RFC 6946).
			fragment := binary.BigEndian.Uint16(x[2:])
			h.fragment = h.fragment || fragment&0xfff9 != 0
			h.opaque = h.opaque || fragment&0xfff8 != 0
		case protoRouting:
			// The destination is only the next stop while segments are left.
			h.opaque = h.opaque || x[3] != 0
		}
		h.proto = x[0]
		h.off += size
		if h.fragment && h.opaque {
			return nil // what follows is the middle of something
		}
	}
}

// layer names a layer in an error. Only errors call it.
func layer(name string, quoted bool) string {
	if quoted {
		return "quoted " + name
	}
	return name
}
