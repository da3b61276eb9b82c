package packet

import (
	"net/netip"
	"strconv"
)

// Flags are the control bits of a TCP header (RFC 9293, section 3.1). The bit
// beside them, AE of RFC 9768, is neither read nor written.
type Flags uint8

// The control bits, from the lowest.
const (
	FIN Flags = 1 << iota
	SYN
	RST
	PSH
	ACK
	URG
	ECE
	CWR
)

var flagNames = [8]string{"FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"}

// String lists the flags that are set, such as "SYN,ACK", or says "none".
func (f Flags) String() string { return string(f.append(nil)) }

func (f Flags) append(b []byte) []byte {
	if f == 0 {
		return append(b, "none"...)
	}
	sep := ""
	for i, name := range flagNames {
		if f&(1<<i) != 0 {
			b = append(append(b, sep...), name...)
			sep = ","
		}
	}
	return b
}

// Segment is one TCP segment with the fields of the IP header that tell
// something about its way (RFC 9293, section 3.1; RFC 791; RFC 8200).
type Segment struct {
	Src, Dst netip.AddrPort // never with a zone when decoded
	Seq, Ack uint32
	Flags    Flags
	Window   uint16 // as it stands in the header, not scaled
	Urgent   uint16 // urgent pointer; means something only with URG
	Options  Options

	TTL uint8 // time to live, or hop limit
	TOS uint8 // DSCP in the upper six bits, ECN in the lower two (RFC 2474, RFC 3168)

	Payload []byte // when decoded, a part of the decoder's input
	Missing int    // payload bytes that the capture cut off; not encoded
}

// Len returns how many sequence numbers the segment takes, SEG.LEN in RFC 9293,
// section 3.4: its payload, SYN and FIN. An answer acknowledges Seq + Len.
func (s *Segment) Len() int {
	n := len(s.Payload) + s.Missing
	if s.Flags&SYN != 0 {
		n++
	}
	if s.Flags&FIN != 0 {
		n++
	}
	return n
}

// String shows the segment on one line, as analysers do:
//
//	10.0.0.1:61000 > 10.0.0.2:443 [SYN] seq 1 ack 0 win 64240 <mss 1460, sackOK, TS val 1 ecr 0, wscale 7>
func (s *Segment) String() string {
	b := make([]byte, 0, 160)
	b = appendAddrPort(b, s.Src)
	b = append(b, " > "...)
	b = appendAddrPort(b, s.Dst)
	b = append(b, " ["...)
	b = s.Flags.append(b)
	b = appendField(b, "] seq ", s.Seq)
	b = appendField(b, " ack ", s.Ack)
	b = appendField(b, " win ", uint32(s.Window))
	if s.Flags&URG != 0 {
		b = appendField(b, " urg ", uint32(s.Urgent))
	}
	if s.Options != (Options{}) {
		b = append(b, ' ')
		b = s.Options.append(b)
	}
	if n := len(s.Payload) + s.Missing; n > 0 {
		b = appendField(b, " length ", uint32(n))
	}
	return string(b)
}

// appendAddr shows an address that is not known, as in a segment out of
// DecodeTail, as "?".
func appendAddr(b []byte, a netip.Addr) []byte {
	if a.IsValid() {
		return a.AppendTo(b)
	}
	return append(b, '?')
}

func appendAddrPort(b []byte, a netip.AddrPort) []byte {
	if a.Addr().IsValid() {
		return a.AppendTo(b)
	}
	return appendField(appendAddr(b, a.Addr()), ":", uint32(a.Port()))
}

func appendField(b []byte, name string, v uint32) []byte {
	return strconv.AppendUint(append(b, name...), uint64(v), 10)
}
