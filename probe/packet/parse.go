package packet

import (
	"encoding/binary"
	"net/netip"
)

// Kind says what a packet turned out to be.
type Kind uint8

// The kinds of packets.
const (
	KindOther Kind = iota // a sound IP header, and nothing of ours behind it
	KindTCP               // Packet.TCP holds a segment
	KindICMP              // Packet.ICMP holds an ICMP error that quotes a TCP segment
)

// Packet is what was read from one packet. The zero value is ready for Decode,
// and is meant to be used again for one packet after the other.
type Packet struct {
	Kind Kind
	// Fragment says that the packet is a piece of a larger datagram. The first
	// piece is decoded with what it holds; later ones are KindOther.
	Fragment bool
	TCP      Segment
	ICMP     ICMPError
}

// Decode reads a packet that starts at its IPv4 or IPv6 header, as a packet
// socket of type SOCK_DGRAM gives it. The capture may have been cut at any
// length behind the TCP header, and bytes behind the end of the packet are
// padding. Packets that say nothing about a TCP handshake are KindOther, not an
// error: other protocols, ICMP messages that are no errors or quote something
// else, later fragments, and IPv6 packets still under way along a routing
// header.
//
// It returns an [*Error] that is [ErrTruncated] or [ErrMalformed], and then
// leaves p at KindOther. Malformed TCP options are no error, see
// [Options.Malformed]; neither is a wrong checksum, see [VerifyChecksum].
// p.TCP.Payload is a part of b.
func (p *Packet) Decode(b []byte) error {
	*p = Packet{}
	var h ipHeader
	if err := h.decode(b, 0, len(b), false); err != nil {
		return err
	}
	p.Fragment = h.fragment
	if h.opaque {
		return nil
	}
	switch {
	case h.proto == protoTCP:
		if err := p.TCP.decode(b, &h); err != nil {
			p.TCP = Segment{}
			return err
		}
		p.Kind = KindTCP
	case h.proto == protoICMP && !h.v6, h.proto == protoICMPv6 && h.v6:
		quotes, err := p.ICMP.decode(b, &h)
		if err != nil || !quotes {
			p.ICMP = ICMPError{}
		}
		if err != nil {
			return err
		}
		if quotes {
			p.Kind = KindICMP
		}
	}
	return nil
}

const (
	tcpLen    = 20 // without options
	tcpMaxLen = tcpLen + maxOptionsLen
)

// decode reads the segment behind the IP header h into s, which has to be zero
// (RFC 9293, section 3.1).
func (s *Segment) decode(b []byte, h *ipHeader) *Error {
	t := b[h.off:h.end]
	if len(t) < tcpLen {
		return tooShort("TCP", h.off, len(t), tcpLen, h.missing)
	}
	size := int(t[12]>>4) * 4
	if size < tcpLen {
		return malformed("TCP", "header length", h.off+12, size, atLeast, tcpLen)
	}
	if size > len(t) {
		if all := len(t) + h.missing; size > all {
			return malformed("TCP", "header length", h.off+12, size, atMost, all)
		}
		return tooShort("TCP", h.off, len(t), size, h.missing)
	}
	s.setIP(h)
	s.setPorts(t)
	s.setFixed(t)
	s.Options.decode(t[tcpLen:size])
	s.Payload, s.Missing = t[size:], h.missing
	return nil
}

func (s *Segment) setIP(h *ipHeader) {
	s.Src = netip.AddrPortFrom(h.src, 0)
	s.Dst = netip.AddrPortFrom(h.dst, 0)
	s.TTL, s.TOS = h.ttl, h.tos
}

// setPorts reads the first 8 bytes of a TCP header.
func (s *Segment) setPorts(t []byte) {
	_ = t[7]
	s.Src = netip.AddrPortFrom(s.Src.Addr(), binary.BigEndian.Uint16(t))
	s.Dst = netip.AddrPortFrom(s.Dst.Addr(), binary.BigEndian.Uint16(t[2:]))
	s.Seq = binary.BigEndian.Uint32(t[4:])
}

// setFixed reads what stands between the sequence number and the options.
func (s *Segment) setFixed(t []byte) {
	_ = t[19]
	s.Ack = binary.BigEndian.Uint32(t[8:])
	s.Flags = Flags(t[13])
	s.Window = binary.BigEndian.Uint16(t[14:])
	s.Urgent = binary.BigEndian.Uint16(t[18:])
}

// DecodeTail reads back a SYN or a FIN that this host sent from the end of b, where the
// kernel hands back a transmitted packet behind a link header of unknown
// length. The last n bytes of b are the segment's TCP header, which has no
// payload; n is what [Template.Len] said. What stands before them is not looked
// at, so that the addresses of s.Src and s.Dst stay invalid, and TTL and TOS
// zero.
//
// It returns an [*Error] that is [ErrTruncated] if b is shorter than n, and
// [ErrMalformed] if there is no SYN or FIN of n bytes.
func (s *Segment) DecodeTail(b []byte, n int) error {
	*s = Segment{}
	if n < tcpLen || n > tcpMaxLen {
		return malformed("TCP", "length of the tail", max(0, len(b)-n), n, "20 to 60", 0)
	}
	at := len(b) - n
	if at < 0 {
		return truncated("TCP", 0, len(b), n)
	}
	t := b[at:]
	if size := int(t[12]>>4) * 4; size != n {
		return malformed("TCP", "header length", at+12, size, exactly, n)
	}
	switch f := Flags(t[13]); f & (SYN | ACK | RST | FIN) {
	case SYN, FIN | ACK:
	default:
		err := malformed("TCP", "control bits", at+13, int(f), "SYN alone, or FIN and ACK", 0)
		err.shown = f.String()
		return err
	}
	s.setPorts(t)
	s.setFixed(t)
	s.Options.decode(t[tcpLen:])
	return nil
}
