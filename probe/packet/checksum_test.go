package packet

import (
	"encoding/binary"
	"testing"

	"pgregory.net/rapid"
)

// naive is RFC 1071, section 4.1, word by word.
func naive(b []byte) uint16 {
	var acc uint32
	for i := 0; i < len(b); i += 2 {
		word := uint32(b[i]) << 8
		if i+1 < len(b) {
			word |= uint32(b[i+1])
		}
		acc += word
		acc = acc&0xffff + acc>>16
	}
	return uint16(acc)
}

func TestSumIsThatOfTheRFC(t *testing.T) {
	// The example of RFC 1071, section 3.
	if got := fold(sum(0, fromHex(t, "0001f203f4f5f6f7"))); got != 0xddf2 {
		t.Errorf("got %#x, want 0xddf2", got)
	}
	rapid.Check(t, func(t *rapid.T) {
		b := rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")
		if got, want := fold(sum(0, b)), naive(b); got != want {
			t.Errorf("sum of %x: got %#x, want %#x", b, got, want)
		}
	})
	ones := make([]byte, 1<<16)
	for i := range ones {
		ones[i] = 0xff
	}
	if got := fold(sum(0, ones)); got != 0xffff {
		t.Errorf("sum of ones: got %#x", got)
	}
}

func TestVerifyChecksumSaysWhatIsWrong(t *testing.T) {
	syn4, syn6 := mustIP(t, syn(src4, dst4)), mustIP(t, syn(src6, dst6))
	icmp4 := mustICMP(t, ICMPError{From: dst4.Addr(), Type: 3, Code: 1}, syn4)
	icmp6 := mustICMP(t, ICMPError{From: dst6.Addr(), Type: 1}, syn6)
	partial := func(b []byte, header int) []byte {
		var h ipHeader
		if err := h.decode(b, 0, len(b), false); err != nil {
			t.Fatal(err)
		}
		return edit(b, func(b []byte) {
			binary.BigEndian.PutUint16(b[header+16:], fold(sumPseudo(h.src, h.dst, protoTCP, 40)))
		})
	}
	tests := []struct {
		name  string
		b     []byte
		about error
		err   string
	}{
		{"a flipped bit in IPv4's header", edit(syn4, func(b []byte) { b[8] ^= 1 }), ErrChecksum,
			"packet: IPv4 at byte 10: checksum is 0xb6b8, want 0xb5b8 (wrong checksum)"},
		{"a flipped bit in a segment over IPv4", edit(syn4, func(b []byte) { b[59] ^= 1 }), ErrChecksum,
			"packet: TCP at byte 36: checksum is 0x5a4f, want 0x5a50 (wrong checksum)"},
		{"a flipped bit in a segment over IPv6", edit(syn6, func(b []byte) { b[47] ^= 1 }), ErrChecksum,
			"packet: TCP at byte 56: checksum is 0x80c2, want 0x80c3 (wrong checksum)"},
		{"a checksum left to the device, IPv4", partial(syn4, ipv4Len), ErrPartialChecksum,
			"packet: TCP at byte 36: checksum is 0x8432, want 0x5a4f (wrong checksum: partial, left to the device)"},
		{"a checksum left to the device, IPv6", partial(syn6, ipv6Len), ErrPartialChecksum,
			"packet: TCP at byte 56: checksum is 0x5ba3, want 0x80c2 (wrong checksum: partial, left to the device)"},
		{"a flipped bit in an ICMP message", edit(icmp4, func(b []byte) { b[21] ^= 1 }), ErrChecksum,
			"packet: ICMP at byte 22: checksum is 0x8131, want 0x8132 (wrong checksum)"},
		{"a flipped bit in an ICMPv6 message", edit(icmp6, func(b []byte) { b[41] ^= 1 }), ErrChecksum,
			"packet: ICMPv6 at byte 42: checksum is 0x3cbe, want 0x3cbd (wrong checksum)"},
		{"a capture that was cut", syn4[:50], ErrTruncated,
			"packet: TCP at byte 20: captured length is 30, want the whole datagram, at its destination (truncated)"},
		{"the first fragment", edit(syn4, func(b []byte) { b[6], b[10], b[11] = 0x20, 0, 0; finishIPHeader(b, ipv4Len) }), ErrTruncated,
			"packet: TCP at byte 20: captured length is 40, want the whole datagram, at its destination (truncated)"},
		{"headers that make no sense", edit(syn4, func(b []byte) { b[0] = 0x44 }), ErrMalformed,
			"packet: IPv4 at byte 0: header length is 16, want at least 20 (malformed)"},
		{"a segment without room for a checksum", edit(syn6, func(b []byte) { b[5] = 17 }), ErrMalformed,
			"packet: TCP at byte 40: length is 17, want at least 18 (malformed)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			wantError(t, VerifyChecksum(tt.b), tt.about, tt.err)
		})
	}
	t.Run("other protocols have none that is checked", func(t *testing.T) {
		if err := VerifyChecksum(edit(syn6, func(b []byte) { b[6] = 17 })); err != nil {
			t.Error(err)
		}
	})
}

func TestAnyChangedByteIsNoticed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSegment(t)
		b, err := AppendIP(nil, &s)
		if err != nil {
			t.Skip(err.Error())
		}
		at := rapid.IntRange(12, len(b)-1).Draw(t, "at") // behind what steers the decoder
		b[at] ^= rapid.ByteRange(1, 255).Draw(t, "change")
		if VerifyChecksum(b) == nil {
			t.Errorf("a change at %d passes: %x", at, b)
		}
	})
}

func TestAChecksumThatHasToBeZeroIsSaidToBeZero(t *testing.T) {
	s := bare(src4, dst4, ACK, 1, 2)
	b := mustIP(t, s)
	s.Window = binary.BigEndian.Uint16(b[36:]) // so that the sum comes to all ones
	b = mustIP(t, s)
	if got := binary.BigEndian.Uint16(b[36:]); got != 0 {
		t.Fatalf("checksum is %#04x, want 0", got)
	}
	if err := VerifyChecksum(b); err != nil {
		t.Error(err)
	}
	b[37] = 1
	wantError(t, VerifyChecksum(b), ErrChecksum, "packet: TCP at byte 36: checksum is 0x0001, want 0x0000 (wrong checksum)")
}
