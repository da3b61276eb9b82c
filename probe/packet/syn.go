package packet

import (
	"encoding/binary"
	"net/netip"
)

// LinuxSYN describes the SYN that Linux would send from src to dst: MSS, SACK
// permitted, timestamps and a window scale of 7, 40 bytes of TCP header, TTL 64.
// mss is the largest segment to be received in bytes, which Linux derives from
// the route: its MTU less 40 with IPv4, less 60 with IPv6. 0 stands for that of
// Ethernet, 1460 and 1440. The window follows from it (64240 for 1460).
//
// What a [Template] stamps is still zero. Change whatever else is to differ
// before making one.
func LinuxSYN(src netip.Addr, dst netip.AddrPort, mss uint16) Segment {
	if mss == 0 {
		mss = 1460
		if src.Is6() {
			mss = 1440
		}
	}
	return Segment{
		Src:    netip.AddrPortFrom(src, 0),
		Dst:    dst,
		Flags:  SYN,
		Window: linuxWindow(mss),
		TTL:    64,
		Options: Options{
			HasMSS: true, MSS: mss,
			HasWindowScale: true, WindowScale: 7,
			SACKPermitted: true,
			Timestamps:    true,
		},
	}
}

// linuxWindow is what Linux offers first: as many whole segments as fit into
// half of its default receive buffer of 128 KiB (tcp_select_initial_window).
func linuxWindow(mss uint16) uint16 {
	const space = 64 << 10
	return uint16(min(space/int(mss)*int(mss), 0xffff))
}

// Template is a TCP header that is complete but for what differs between
// transmissions from one address. It holds no pointers, and any number of
// goroutines may use one at the same time.
type Template struct {
	sum    uint64 // of header, and of the pseudo-header without the destination
	size   uint8
	tsval  uint8 // where TSVal stands, or 0
	header [tcpMaxLen]byte
}

// NewTemplate makes a template of a segment without payload, such as one from
// [LinuxSYN]. Its source port, destination, sequence number and TSVal do not
// matter, as every transmission has its own, but the destination has to be of
// the same IP version. It returns an [*Error] that is [ErrUnencodable] under
// the conditions of [AppendTCP], and if there is a payload.
func NewTemplate(s *Segment) (Template, error) {
	var t Template
	src, dst := s.Src.Addr(), s.Dst.Addr()
	if err := checkAddrs(src, dst); err != nil {
		return t, err
	}
	if len(s.Payload) > 0 {
		return t, unencodable("TCP template", "payload length", len(s.Payload), exactly, 0)
	}
	size, aligned, err := s.Options.layout()
	if err != nil {
		return t, err
	}
	blank := *s
	blank.Src, blank.Dst = netip.AddrPortFrom(src, 0), netip.AddrPortFrom(dst, 0)
	blank.Seq, blank.Options.TSVal = 0, 0
	t.size = uint8(tcpLen + size)
	if at := blank.putHeader(t.header[:t.size], aligned); at >= 0 {
		t.tsval = uint8(at)
	}
	t.sum = sum(sumAddr(uint64(protoTCP)+uint64(t.size), src), t.header[:t.size])
	return t, nil
}

// Len returns how many bytes Append appends.
func (t *Template) Len() int { return int(t.size) }

// Append appends the TCP header to buf with the source port, the destination,
// the sequence number and, if the template has timestamps, the TSVal of one
// transmission, and with the checksum that results. The destination is of the
// template's IP version. It allocates only what buf has to grow. The zero
// Template appends nothing.
func (t *Template) Append(buf []byte, srcPort uint16, dst netip.AddrPort, seq, tsval uint32) []byte {
	at := len(buf)
	buf = append(buf, t.header[:t.size]...)
	b := buf[at:]
	if len(b) < tcpLen {
		return buf
	}
	// All of these stand on even offsets, where a 32-bit word adds up to the
	// same as its halves (RFC 1071, section 2).
	acc := sumAddr(t.sum, dst.Addr()) + uint64(srcPort) + uint64(dst.Port()) + uint64(seq)
	binary.BigEndian.PutUint16(b, srcPort)
	binary.BigEndian.PutUint16(b[2:], dst.Port())
	binary.BigEndian.PutUint32(b[4:], seq)
	if t.tsval != 0 {
		acc += uint64(tsval)
		binary.BigEndian.PutUint32(b[t.tsval:], tsval)
	}
	binary.BigEndian.PutUint16(b[16:], ^fold(acc))
	return buf
}
