package packet

import "encoding/binary"

// TCP option kinds (RFC 9293, section 3.2; RFC 2018; RFC 7323).
const (
	optEnd           = 0
	optNOP           = 1
	optMSS           = 2
	optWindowScale   = 3
	optSACKPermitted = 4
	optSACK          = 5
	optTimestamps    = 8
)

const maxOptionsLen = 40

// Options are the TCP options that a handshake is made of. Other kinds are
// skipped when decoding.
type Options struct {
	HasMSS bool
	MSS    uint16 // bytes (RFC 9293, section 3.7.1)

	HasWindowScale bool
	WindowScale    uint8 // shift as it was sent; above 14 counts as 14 (RFC 7323, section 2.3)

	SACKPermitted bool // RFC 2018, section 2

	Timestamps   bool // RFC 7323, section 3
	TSVal, TSEcr uint32

	SACKCount uint8 // how many of SACK were sent, 0 to 4
	SACK      [4]SACKBlock

	// Malformed says that an option had a length that cannot be. What could be
	// read beside it is there, as Linux does it. It is not encoded.
	Malformed bool
}

// SACKBlock is one run of bytes received out of order: from Left up to, not
// including, Right (RFC 2018, section 3).
type SACKBlock struct{ Left, Right uint32 }

// Decode reads the options of a TCP header, which are what follows its first 20
// bytes. Where several are wrong, the [*Error] is about the first; the others
// have been read, and o.Malformed is set. If a kind comes twice, the last
// counts.
func (o *Options) Decode(b []byte) error {
	*o = Options{}
	if at := o.decode(b); at >= 0 {
		return optionError(b, at)
	}
	return nil
}

// decode fills o, which has to be zero, and returns where the first malformed
// option stands, or -1. It makes no error itself: a segment is worth having
// with malformed options, and must not cost an allocation then.
func (o *Options) decode(b []byte) (bad int) {
	bad = -1
	for i := 0; i < len(b); {
		kind := b[i]
		if kind == optEnd {
			break
		}
		if kind == optNOP {
			i++
			continue
		}
		if i+1 >= len(b) || b[i+1] < 2 || int(b[i+1]) > len(b)-i {
			// Without a length there is no way to what follows.
			o.Malformed = true
			if bad < 0 {
				bad = i
			}
			break
		}
		size := int(b[i+1])
		if !o.set(kind, b[i+2:i+size]) {
			o.Malformed = true
			if bad < 0 {
				bad = i
			}
		}
		i += size
	}
	return bad
}

// set stores one option, whose kind and length bytes are not in v, and returns
// false if v is not as long as its kind wants it.
func (o *Options) set(kind uint8, v []byte) bool {
	switch kind {
	case optMSS:
		if len(v) != 2 {
			return false
		}
		o.HasMSS, o.MSS = true, binary.BigEndian.Uint16(v)
	case optWindowScale:
		if len(v) != 1 {
			return false
		}
		o.HasWindowScale, o.WindowScale = true, v[0]
	case optSACKPermitted:
		if len(v) != 0 {
			return false
		}
		o.SACKPermitted = true
	case optTimestamps:
		if len(v) != 8 {
			return false
		}
		o.Timestamps = true
		o.TSVal = binary.BigEndian.Uint32(v)
		o.TSEcr = binary.BigEndian.Uint32(v[4:])
	case optSACK:
		if len(v) == 0 || len(v)%8 != 0 || len(v)/8 > len(o.SACK) {
			return false
		}
		o.SACK = [4]SACKBlock{}
		o.SACKCount = uint8(len(v) / 8)
		for i := range o.SACK[:o.SACKCount] {
			o.SACK[i].Left = binary.BigEndian.Uint32(v[8*i:])
			o.SACK[i].Right = binary.BigEndian.Uint32(v[8*i+4:])
		}
	}
	return true
}

// optionError explains why decode stumbled over the option at b[at].
func optionError(b []byte, at int) *Error {
	left := len(b) - at
	if left < 2 {
		return malformed("TCP option", "length", at, left, atLeast, 2)
	}
	size := int(b[at+1])
	field, rule, limit := "", exactly, 0
	switch b[at] {
	case optMSS:
		field, limit = "MSS length", 4
	case optWindowScale:
		field, limit = "window scale length", 3
	case optSACKPermitted:
		field, limit = "SACK permitted length", 2
	case optTimestamps:
		field, limit = "timestamps length", 10
	case optSACK:
		field, rule = "SACK length", "10, 18, 26 or 34"
	default:
		field, rule, limit = "length", atLeast, 2
	}
	if size > left {
		rule, limit = atMost, left
	}
	return malformed("TCP option", field, at+1, size, rule, limit)
}

// encodedLen returns how long put's form is, a multiple of four. Aligned is
// Linux's form, with NOPs that put 32-bit values on 32-bit boundaries.
func (o *Options) encodedLen(aligned bool) int {
	n := 0
	if o.HasMSS {
		n += 4
	}
	if o.Timestamps {
		n += 10
	}
	if o.SACKPermitted || o.Timestamps && aligned {
		n += 2
	}
	if o.SACKPermitted && !o.Timestamps && aligned {
		n += 2
	}
	if o.HasWindowScale {
		n += 3
		if aligned {
			n++
		}
	}
	if o.SACKCount > 0 {
		n += 2 + 8*int(o.SACKCount)
		if aligned {
			n += 2
		}
	}
	return (n + 3) &^ 3
}

// layout chooses the aligned form where it fits, as everything that Linux sends
// does, and the dense one where only that fits.
func (o *Options) layout() (size int, aligned bool, err *Error) {
	if int(o.SACKCount) > len(o.SACK) {
		return 0, false, unencodable("TCP option", "SACK count", int(o.SACKCount), atMost, len(o.SACK))
	}
	if n := o.encodedLen(true); n <= maxOptionsLen {
		return n, true, nil
	}
	n := o.encodedLen(false)
	if n > maxOptionsLen {
		return 0, false, unencodable("TCP options", "length", n, atMost, maxOptionsLen)
	}
	return n, false, nil
}

// put writes the options in Linux's order into b, which is as long as layout
// says and zero, and returns where TSVal stands, or -1. That is an even offset
// in both forms, on which checksum arithmetic by words relies.
func (o *Options) put(b []byte, aligned bool) (tsval int) {
	i, tsval := 0, -1
	nops := func(n int) {
		for ; aligned && n > 0; n-- {
			b[i] = optNOP
			i++
		}
	}
	if o.HasMSS {
		b[i], b[i+1] = optMSS, 4
		binary.BigEndian.PutUint16(b[i+2:], o.MSS)
		i += 4
	}
	if o.SACKPermitted {
		if !o.Timestamps {
			nops(2)
		}
		b[i], b[i+1] = optSACKPermitted, 2
		i += 2
	}
	if o.Timestamps {
		if !o.SACKPermitted {
			nops(2)
		}
		b[i], b[i+1] = optTimestamps, 10
		tsval = i + 2
		binary.BigEndian.PutUint32(b[i+2:], o.TSVal)
		binary.BigEndian.PutUint32(b[i+6:], o.TSEcr)
		i += 10
	}
	if o.HasWindowScale {
		nops(1)
		b[i], b[i+1], b[i+2] = optWindowScale, 3, o.WindowScale
		i += 3
	}
	if o.SACKCount > 0 {
		nops(2)
		b[i], b[i+1] = optSACK, 2+8*o.SACKCount
		i += 2
		for _, s := range o.SACK[:o.SACKCount] {
			binary.BigEndian.PutUint32(b[i:], s.Left)
			binary.BigEndian.PutUint32(b[i+4:], s.Right)
			i += 8
		}
	}
	return tsval
}

// append shows the options as tcpdump does, in angle brackets.
func (o *Options) append(b []byte) []byte {
	sep := "<"
	next := func(name string) {
		b = append(append(b, sep...), name...)
		sep = ", "
	}
	if o.HasMSS {
		next("mss")
		b = appendField(b, " ", uint32(o.MSS))
	}
	if o.SACKPermitted {
		next("sackOK")
	}
	if o.Timestamps {
		next("TS val")
		b = appendField(b, " ", o.TSVal)
		b = appendField(b, " ecr ", o.TSEcr)
	}
	if o.HasWindowScale {
		next("wscale")
		b = appendField(b, " ", uint32(o.WindowScale))
	}
	for _, s := range o.SACK[:min(int(o.SACKCount), len(o.SACK))] {
		next("sack")
		b = appendField(b, " ", s.Left)
		b = appendField(b, "-", s.Right)
	}
	if o.Malformed {
		next("malformed")
	}
	if sep == "<" {
		b = append(b, sep...)
	}
	return append(b, '>')
}
