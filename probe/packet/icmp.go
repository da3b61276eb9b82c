package packet

import (
	"encoding/binary"
	"net/netip"
)

// ICMP and ICMPv6 error types (RFC 792; RFC 4443, section 3).
const (
	icmpUnreachable  = 3
	icmpSourceQuench = 4
	icmpTimeExceeded = 11
	icmpParameter    = 12

	icmpv6Unreachable  = 1
	icmpv6TooBig       = 2
	icmpv6TimeExceeded = 3
	icmpv6Parameter    = 4
)

const icmpLen = 8

// minExtended is what RFC 4884, section 4, pads a quote to before an
// extension structure may follow.
const minExtended = 128

// ICMPError is an ICMP or ICMPv6 error about a TCP segment: destination
// unreachable, time exceeded, parameter problem, source quench (IPv4) or packet
// too big (IPv6).
type ICMPError struct {
	From       netip.Addr // who sent the error; its family tells ICMP from ICMPv6
	Type, Code uint8
	MTU        uint32 // bytes; of packet too big and fragmentation needed, otherwise 0

	// Quoted is the segment that could not be delivered, as From saw it: with
	// the TTL it had left, and changed by any translator on the way. Addresses,
	// ports, Seq, TTL and TOS are always there, the rest of the fixed header if
	// QuotedLen is at least 20, the options (with the TSVal that tells one
	// transmission from the next) if the whole header was quoted. Payload and
	// Missing are empty.
	Quoted Segment
	// QuotedLen is how many bytes of the segment were quoted, 8 at least.
	QuotedLen int
}

// Reason returns what the error says in a few words, see [ICMPReason].
func (e *ICMPError) Reason() string { return ICMPReason(e.From.Is6(), e.Type, e.Code) }

// String shows the error and what it is about on one line:
//
//	10.0.0.9 says host unreachable (type 3, code 1) of 10.0.0.1:61000 > 10.0.0.2:443 seq 1
func (e *ICMPError) String() string {
	b := make([]byte, 0, 128)
	b = appendAddr(b, e.From)
	b = append(b, " says "...)
	b = append(b, e.Reason()...)
	b = appendField(b, " (type ", uint32(e.Type))
	b = appendField(b, ", code ", uint32(e.Code))
	if e.MTU != 0 {
		b = appendField(b, ", MTU ", e.MTU)
	}
	b = append(b, ") of "...)
	b = appendAddrPort(b, e.Quoted.Src)
	b = append(b, " > "...)
	b = appendAddrPort(b, e.Quoted.Dst)
	return string(appendField(b, " seq ", e.Quoted.Seq))
}

// isICMPError tells the error types that Decode reads from all other messages.
// Redirects quote a packet, too, but it went its way.
func isICMPError(v6 bool, typ uint8) bool {
	if v6 {
		return typ >= icmpv6Unreachable && typ <= icmpv6Parameter
	}
	switch typ {
	case icmpUnreachable, icmpSourceQuench, icmpTimeExceeded, icmpParameter:
		return true
	}
	return false
}

// hasMTU tells the errors whose second word ends in an MTU (RFC 1191, section
// 4; RFC 4443, section 3.2).
func hasMTU(v6 bool, typ, code uint8) bool {
	return v6 && typ == icmpv6TooBig || !v6 && typ == icmpUnreachable && code == 4
}

// decode reads the message behind the IP header h into e, which has to be zero.
// It returns false for messages that are no errors about a TCP segment.
func (e *ICMPError) decode(b []byte, h *ipHeader) (quotes bool, err *Error) {
	name := "ICMP"
	if h.v6 {
		name = "ICMPv6"
	}
	m := b[h.off:h.end]
	if len(m) == 0 {
		return false, tooShort(name, h.off, 0, icmpLen, h.missing)
	}
	if !isICMPError(h.v6, m[0]) {
		return false, nil
	}
	if len(m) < icmpLen {
		return false, tooShort(name, h.off, len(m), icmpLen, h.missing)
	}
	e.From, e.Type, e.Code = h.src, m[0], m[1]
	if hasMTU(h.v6, e.Type, e.Code) {
		e.MTU = binary.BigEndian.Uint32(m[4:])
		if !h.v6 {
			e.MTU &= 0xffff
		}
	}
	at := h.off + icmpLen
	return e.decodeQuote(b, at, at+quoteLen(h.v6, m), h)
}

// quoteLen returns how much of the message m is the quoted packet: everything
// behind the header, unless RFC 4884 extensions follow. A length below what
// that RFC demands is not believed: older routers leave anything there.
func quoteLen(v6 bool, m []byte) int {
	n := len(m) - icmpLen
	said := 0
	switch {
	case v6 && (m[0] == icmpv6Unreachable || m[0] == icmpv6TimeExceeded):
		said = 8 * int(m[4])
	case !v6 && m[0] != icmpSourceQuench:
		said = 4 * int(m[5])
	}
	if said >= minExtended {
		return min(n, said)
	}
	return n
}

// blame turns a quote that is too short into a malformed one if all of the
// message was captured: then it is the message's sender who cut it.
func (e *Error) blame(outer *ipHeader) *Error {
	if e.err == ErrTruncated && outer.missing == 0 {
		e.Field, e.err = "length", ErrMalformed
	}
	return e
}

// decodeQuote reads the packet that the error outer quotes in b[at:end].
func (e *ICMPError) decodeQuote(b []byte, at, end int, outer *ipHeader) (quotes bool, err *Error) {
	var h ipHeader
	if err := h.decode(b, at, end, true); err != nil {
		return false, err.blame(outer)
	}
	if h.v6 != outer.v6 {
		return false, malformed("quoted IP", "version", at, int(b[at]>>4), "that of the error's own header", 0)
	}
	if h.proto != protoTCP || h.opaque {
		return false, nil
	}
	t := b[h.off:h.end]
	if len(t) < 8 {
		return false, truncated("quoted TCP", h.off, len(t), 8).blame(outer)
	}
	q := &e.Quoted
	q.setIP(&h)
	q.setPorts(t)
	e.QuotedLen = len(t)
	if len(t) < tcpLen {
		return true, nil
	}
	q.setFixed(t)
	if size := int(t[12]>>4) * 4; size >= tcpLen && size <= len(t) {
		q.Options.decode(t[tcpLen:size])
	}
	return true, nil
}

// AppendICMP appends the ICMP or ICMPv6 error e about the packet original, which
// starts at its IP header, with an IP header in front: from e.From to the source
// of original, with e.Type, e.Code and, in the errors that have one, e.MTU.
// Original is quoted as far as it may be: to 576 bytes in all with IPv4 (RFC
// 1812, section 4.3.2.3), to 1280 with IPv6 (RFC 4443, section 2.4). e.Quoted is
// not looked at.
//
// It allocates only what dst has to grow. It returns dst as it was and an
// [*Error] that is [ErrUnencodable] if e.From cannot write to the source of
// original, [ErrTruncated] or [ErrMalformed] if that one has no IP header.
func AppendICMP(dst []byte, e *ICMPError, original []byte) ([]byte, error) {
	var h ipHeader
	if err := h.decode(original, 0, len(original), true); err != nil {
		return dst, err
	}
	if err := checkAddrs(e.From, h.src); err != nil {
		return dst, err
	}
	// Precedence "internetwork control" as in RFC 1812, section 4.3.2.5.
	proto, tos, room := uint8(protoICMP), uint8(0xc0), 576-ipv4Len-icmpLen
	if h.v6 {
		proto, tos, room = protoICMPv6, 0, 1280-ipv6Len-icmpLen
	}
	at := len(dst)
	dst = appendIPHeader(dst, e.From, h.src, proto, 64, tos)
	header := len(dst) - at
	dst = append(dst, e.Type, e.Code, 0, 0)
	mtu := uint32(0)
	if hasMTU(h.v6, e.Type, e.Code) {
		mtu = e.MTU
		if !h.v6 {
			mtu = min(mtu, 0xffff)
		}
	}
	dst = binary.BigEndian.AppendUint32(dst, mtu)
	dst = append(dst, original[:min(len(original), room)]...)
	m := dst[at+header:]
	acc := uint64(0)
	if h.v6 {
		acc = sumPseudo(e.From, h.src, proto, len(m))
	}
	binary.BigEndian.PutUint16(m[2:], ^fold(sum(acc, m)))
	finishIPHeader(dst[at:], header)
	return dst, nil
}
