package packet

import (
	"encoding/binary"
	"net/netip"
)

const checksumRule = "%#04x"

// sum adds the 16-bit words of b to acc, in ones' complement arithmetic that is
// still unfolded (RFC 1071, section 2). An odd last byte counts as the upper
// half of a word. Words are added two at a time, which comes to the same once
// folded; acc has room for four billion of them.
func sum(acc uint64, b []byte) uint64 {
	for len(b) >= 8 {
		v := binary.BigEndian.Uint64(b)
		acc += v>>32 + v&0xffffffff
		b = b[8:]
	}
	if len(b) >= 4 {
		acc += uint64(binary.BigEndian.Uint32(b))
		b = b[4:]
	}
	if len(b) >= 2 {
		acc += uint64(binary.BigEndian.Uint16(b))
		b = b[2:]
	}
	if len(b) == 1 {
		acc += uint64(b[0]) << 8
	}
	return acc
}

// fold brings an unfolded sum down to 16 bits.
func fold(acc uint64) uint16 {
	acc = acc>>32 + acc&0xffffffff
	acc = acc>>32 + acc&0xffffffff
	acc = acc>>16 + acc&0xffff
	acc = acc>>16 + acc&0xffff
	acc = acc>>16 + acc&0xffff
	return uint16(acc)
}

// sumPseudo is the sum of the pseudo-header (RFC 9293, section 3.1; RFC 8200,
// section 8.1) of an upper layer with n bytes.
func sumPseudo(src, dst netip.Addr, proto uint8, n int) uint64 {
	return sumAddr(sumAddr(uint64(proto)+uint64(n), src), dst)
}

func sumAddr(acc uint64, a netip.Addr) uint64 {
	if a.Is4() {
		b := a.As4()
		return acc + uint64(binary.BigEndian.Uint32(b[:]))
	}
	b := a.As16()
	return sum(acc, b[:])
}

// VerifyChecksum checks the checksums of a packet that starts at its IP header:
// that of the IPv4 header, and that of TCP, ICMP or ICMPv6; nothing further is
// checked for other protocols. It returns nil if they fit, and otherwise an
// [*Error] that is
//   - [ErrChecksum] if one does not, with what it would have to be,
//   - [ErrPartialChecksum] if TCP's covers the pseudo-header alone, as a packet
//     socket sees packets of local senders,
//   - [ErrTruncated] if what the checksum covers is not all there: the capture
//     cut it, the packet is a fragment, or it has yet to pass the routers of a
//     routing header,
//   - [ErrMalformed] if the headers make no sense.
func VerifyChecksum(b []byte) error {
	var h ipHeader
	if err := h.decode(b, 0, len(b), false); err != nil {
		return err
	}
	if !h.v6 {
		// The checksum of a header that is right comes to zero with itself.
		if have := fold(sum(0, b[:h.off])); have != 0xffff {
			return wrongChecksum("IPv4", b, 10, ^have, ErrChecksum)
		}
	}
	name, at, acc := "", 0, uint64(0)
	switch {
	case h.proto == protoTCP:
		name, at = "TCP", 16
	case h.proto == protoICMP && !h.v6:
		name, at = "ICMP", 2
	case h.proto == protoICMPv6 && h.v6:
		name, at = "ICMPv6", 2
	default:
		return nil
	}
	if h.fragment || h.opaque || h.missing > 0 {
		err := truncated(name, h.off, h.end-h.off, 0)
		err.rule = "the whole datagram, at its destination"
		return err
	}
	if h.end-h.off < at+2 {
		return malformed(name, "length", h.off, h.end-h.off, atLeast, at+2)
	}
	if name != "ICMP" {
		acc = sumPseudo(h.src, h.dst, h.proto, h.end-h.off)
	}
	have := fold(sum(acc, b[h.off:h.end]))
	if have == 0xffff {
		return nil
	}
	err := ErrChecksum
	if name == "TCP" && binary.BigEndian.Uint16(b[h.off+at:]) == fold(acc) {
		err = ErrPartialChecksum
	}
	return wrongChecksum(name, b, h.off+at, ^have, err)
}

// wrongChecksum is about the checksum at b[at], where the folded sum of
// everything including it left rest.
func wrongChecksum(name string, b []byte, at int, rest uint16, err error) *Error {
	have := binary.BigEndian.Uint16(b[at:])
	want := fold(uint64(have) + uint64(rest))
	if want == 0xffff {
		want = 0 // the same number in ones' complement, and the one that is sent
	}
	return &Error{Layer: name, Field: "checksum", Offset: at, Have: int(have), rule: checksumRule, limit: int(want), err: err}
}
