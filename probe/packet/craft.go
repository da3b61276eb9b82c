package packet

import (
	"encoding/binary"
	"net/netip"
)

// AppendTCP appends the segment to dst, from its TCP header on, with the
// checksum it needs between s.Src and s.Dst. Options stand in Linux's order, and
// aligned as Linux does it wherever they fit that way. s.TTL, s.TOS, s.Missing
// and s.Options.Malformed have no place in it.
//
// It allocates only what dst has to grow. If the segment cannot be encoded, it
// returns dst as it was, and an [*Error] that is [ErrUnencodable]: addresses that
// are invalid, IPv4-mapped or of two families, options of more than 40 bytes, or
// a payload that does not fit into an IP packet.
func AppendTCP(dst []byte, s *Segment) ([]byte, error) {
	out, err := appendTCP(dst, s)
	if err != nil {
		return dst, err
	}
	return out, nil
}

// AppendIP appends the segment as [AppendTCP] does, with an IPv4 or IPv6 header
// in front of it: no options, no extension headers, don't-fragment set, an
// identification and a flow label of 0, TTL and TOS as s has them. Zones are
// left out.
func AppendIP(dst []byte, s *Segment) ([]byte, error) {
	if err := checkAddrs(s.Src.Addr(), s.Dst.Addr()); err != nil {
		return dst, err
	}
	at := len(dst)
	out := appendIPHeader(dst, s.Src.Addr(), s.Dst.Addr(), protoTCP, s.TTL, s.TOS)
	header := len(out) - at
	out, err := appendTCP(out, s)
	if err != nil {
		return dst, err
	}
	finishIPHeader(out[at:], header)
	return out, nil
}

func appendTCP(dst []byte, s *Segment) ([]byte, *Error) {
	src, to := s.Src.Addr(), s.Dst.Addr()
	if err := checkAddrs(src, to); err != nil {
		return nil, err
	}
	size, aligned, err := s.Options.layout()
	if err != nil {
		return nil, err
	}
	size += tcpLen
	room := 0xffff - size
	if src.Is4() {
		room -= ipv4Len
	}
	if len(s.Payload) > room {
		return nil, unencodable("TCP", "payload length", len(s.Payload), atMost, room)
	}
	var header [tcpMaxLen]byte
	s.putHeader(header[:size], aligned)
	at := len(dst)
	dst = append(append(dst, header[:size]...), s.Payload...)
	t := dst[at:]
	acc := sumPseudo(src, to, protoTCP, len(t))
	binary.BigEndian.PutUint16(t[16:], ^fold(sum(acc, t)))
	return dst, nil
}

// putHeader writes the TCP header into b, which is as long as the header and
// zero, leaves its checksum zero, and returns where TSVal stands, or -1.
func (s *Segment) putHeader(b []byte, aligned bool) (tsval int) {
	binary.BigEndian.PutUint16(b, s.Src.Port())
	binary.BigEndian.PutUint16(b[2:], s.Dst.Port())
	binary.BigEndian.PutUint32(b[4:], s.Seq)
	binary.BigEndian.PutUint32(b[8:], s.Ack)
	b[12] = uint8(len(b) / 4 << 4)
	b[13] = uint8(s.Flags)
	binary.BigEndian.PutUint16(b[14:], s.Window)
	binary.BigEndian.PutUint16(b[18:], s.Urgent)
	if at := s.Options.put(b[tcpLen:], aligned); at >= 0 {
		return tcpLen + at
	}
	return -1
}

// checkAddrs refuses address pairs that no IP header can hold. An IPv4-mapped
// address is nearly always an IPv4 address that somebody forgot to unmap; as an
// IPv6 packet it would go nowhere.
func checkAddrs(src, dst netip.Addr) *Error {
	const plain = "an IPv4 or an IPv6 address, the latter not IPv4-mapped"
	switch {
	case !src.IsValid() || src.Is4In6():
		return badAddr("source address", src, plain)
	case !dst.IsValid() || dst.Is4In6():
		return badAddr("destination address", dst, plain)
	case src.Is4() != dst.Is4():
		return badAddr("destination address", dst, "one of the same family as "+src.String())
	}
	return nil
}

func badAddr(field string, a netip.Addr, want string) *Error {
	e := unencodable("IP", field, 0, want, 0)
	e.shown = a.String()
	return e
}

// appendIPHeader appends an IP header that lacks its lengths and its checksum.
func appendIPHeader(dst []byte, from, to netip.Addr, proto, ttl, tos uint8) []byte {
	if from.Is4() {
		var p [ipv4Len]byte
		p[0], p[1] = 4<<4|ipv4Len/4, tos
		p[6] = 0x40 // don't fragment
		p[8], p[9] = ttl, proto
		s, d := from.As4(), to.As4()
		copy(p[12:], s[:])
		copy(p[16:], d[:])
		return append(dst, p[:]...)
	}
	var p [ipv6Len]byte
	binary.BigEndian.PutUint16(p[:], 6<<12|uint16(tos)<<4)
	p[6], p[7] = proto, ttl
	s, d := from.As16(), to.As16()
	copy(p[8:], s[:])
	copy(p[24:], d[:])
	return append(dst, p[:]...)
}

// finishIPHeader completes the header of the packet p.
func finishIPHeader(p []byte, header int) {
	if header == ipv6Len {
		binary.BigEndian.PutUint16(p[4:], uint16(len(p)-header))
		return
	}
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	binary.BigEndian.PutUint16(p[10:], ^fold(sum(0, p[:header])))
}
