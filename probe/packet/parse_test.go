package packet

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// reheader gives the packet b, whose upper layer was changed, lengths and a
// header checksum that fit again.
func reheader(b []byte) []byte {
	if isV6(b) {
		finishIPHeader(b, ipv6Len)
		return b
	}
	b[10], b[11] = 0, 0
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	binary.BigEndian.PutUint16(b[10:], ^fold(sum(0, b[:int(b[0]&0xf)*4])))
	return b
}

// withIPv4Options puts n bytes of NOPs behind the IPv4 header.
func withIPv4Options(b []byte, n int) []byte {
	out := append([]byte(nil), b[:ipv4Len]...)
	for range n {
		out = append(out, 1)
	}
	out[0] += byte(n / 4)
	return reheader(append(out, b[ipv4Len:]...))
}

// extension is an IPv6 extension header, of which the first two bytes and, if it
// is no fragment header, the options do not matter.
type extension struct {
	proto uint8
	body  string // bytes 2 and on; hexadecimal
}

var (
	hopByHop       = extension{protoHopByHop, "0104 00000000"} // PadN
	destOpts       = extension{protoDestOpts, "0104 00000000"}
	longDestOpts   = extension{protoDestOpts, "010c 00000000 00000000 00000000"}
	routingDone    = extension{protoRouting, "0400 00000000"}
	routingAhead   = extension{protoRouting, "0401 00000000"}
	atomicFragment = extension{protoFragment, "0000 00000007"}
	firstFragment  = extension{protoFragment, "0001 00000007"}
	laterFragment  = extension{protoFragment, "0008 00000007"}
)

// withExtensions puts extension headers behind the IPv6 header.
func withExtensions(t testing.TB, b []byte, xs ...extension) []byte {
	out := append([]byte(nil), b[:ipv6Len]...)
	next := 6 // where the number of the following header stands
	for _, x := range xs {
		out[next] = x.proto
		next = len(out)
		body := fromHex(t, x.body)
		size := byte((len(body) + 2) / 8)
		if x.proto == protoFragment {
			size = 1 // the byte is reserved there, and 0
		}
		out = append(out, 0, size-1)
		out = append(out, body...)
	}
	out[next] = b[6]
	return reheader(append(out, b[ipv6Len:]...))
}

func TestDecodesAroundWhatStandsBeforeAndBehindTheSegment(t *testing.T) {
	syn4, syn6 := mustIP(t, syn(src4, dst4)), mustIP(t, syn(src6, dst6))
	data4 := mustIP(t, withPayload(syn(src4, dst4), "hello"))
	cut := withPayload(syn(src4, dst4), "he")
	cut.Missing = 3
	eight := make([]extension, 0, maxExtensions)
	for range maxExtensions {
		eight = append(eight, destOpts)
	}
	tests := []struct {
		name     string
		b        []byte
		want     Segment
		fragment bool
	}{
		{"IPv4 with 4 bytes of options", withIPv4Options(syn4, 4), syn(src4, dst4), false},
		{"IPv4 with 40 bytes of options", withIPv4Options(syn4, 40), syn(src4, dst4), false},
		{"padding behind the packet", append(append([]byte(nil), syn4...), 1, 2, 3, 4), syn(src4, dst4), false},
		{"padding behind an IPv6 packet", append(append([]byte(nil), syn6...), 1, 2, 3, 4), syn(src6, dst6), false},
		{"a capture that ends within the payload", data4[:len(data4)-3], cut, false},
		{"don't-fragment and the reserved bit are no fragment", edit(syn4, func(b []byte) { b[6] = 0xc0 }), syn(src4, dst4), false},
		{"the first fragment over IPv4", edit(syn4, func(b []byte) { b[6] = 0x20 }), syn(src4, dst4), true},
		{"hop-by-hop options", withExtensions(t, syn6, hopByHop), syn(src6, dst6), false},
		{"a routing header at its end", withExtensions(t, syn6, routingDone), syn(src6, dst6), false},
		{"all extension headers in a row", withExtensions(t, syn6, hopByHop, longDestOpts, routingDone, atomicFragment, destOpts), syn(src6, dst6), false},
		{"as many extension headers as are followed", withExtensions(t, syn6, eight...), syn(src6, dst6), false},
		{"an atomic fragment is a whole packet", withExtensions(t, syn6, atomicFragment), syn(src6, dst6), false},
		{"the first fragment over IPv6", withExtensions(t, syn6, firstFragment), syn(src6, dst6), true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var p Packet
			if err := p.Decode(tt.b); err != nil {
				t.Fatal(err)
			}
			if p.Kind != KindTCP || p.Fragment != tt.fragment {
				t.Errorf("kind %d, fragment %t", p.Kind, p.Fragment)
			}
			if d := cmp.Diff(tt.want, p.TCP, same); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestPacketsThatSayNothingOfAHandshakeAreOther(t *testing.T) {
	syn4, syn6 := mustIP(t, syn(src4, dst4)), mustIP(t, syn(src6, dst6))
	tests := []struct {
		name     string
		b        []byte
		fragment bool
	}{
		{"UDP over IPv4", edit(syn4, func(b []byte) { b[9] = 17 }), false},
		{"UDP over IPv6", edit(syn6, func(b []byte) { b[6] = 17 }), false},
		{"ICMPv6 over IPv4", edit(syn4, func(b []byte) { b[9] = protoICMPv6 }), false},
		{"ICMP over IPv6", edit(syn6, func(b []byte) { b[6] = protoICMP }), false},
		{"no next header", edit(syn6[:40], func(b []byte) { b[4], b[5], b[6] = 0, 0, 59 }), false},
		{"a later fragment over IPv4", edit(syn4, func(b []byte) { b[7] = 1 }), true},
		{"a later fragment over IPv6", withExtensions(t, syn6, laterFragment), true},
		{"what a later fragment holds is no extension header", withExtensions(t, syn6, laterFragment, routingAhead), true},
		{"on the way along a routing header", withExtensions(t, syn6, routingAhead), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var p Packet
			if err := p.Decode(tt.b); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(Packet{Fragment: tt.fragment}, p, same); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestSaysWhatIsWrongWithAPacket(t *testing.T) {
	syn4, syn6 := mustIP(t, syn(src4, dst4)), mustIP(t, syn(src6, dst6))
	nine := make([]extension, 0, maxExtensions+1)
	for range maxExtensions + 1 {
		nine = append(nine, destOpts)
	}
	tests := []struct {
		name  string
		b     []byte
		about error
		err   string
	}{
		{"nothing at all", nil, ErrTruncated,
			"packet: IP at byte 0: captured length is 0, want at least 20 (truncated)"},
		{"a version of its own", []byte{0x50}, ErrMalformed,
			"packet: IP at byte 0: version is 5, want 4 or 6 (malformed)"},
		{"half an IPv4 header", syn4[:19], ErrTruncated,
			"packet: IPv4 at byte 0: captured length is 19, want at least 20 (truncated)"},
		{"half an IPv6 header", syn6[:39], ErrTruncated,
			"packet: IPv6 at byte 0: captured length is 39, want at least 40 (truncated)"},
		{"an IPv4 header below its minimum", edit(syn4, func(b []byte) { b[0] = 0x44 }), ErrMalformed,
			"packet: IPv4 at byte 0: header length is 16, want at least 20 (malformed)"},
		{"an IPv4 header beyond the capture", edit(syn4[:40], func(b []byte) { b[0] = 0x4f }), ErrTruncated,
			"packet: IPv4 at byte 0: captured length is 40, want at least 60 (truncated)"},
		{"an IPv4 header beyond its packet", edit(syn4, func(b []byte) { b[0], b[3] = 0x46, 20 }), ErrMalformed,
			"packet: IPv4 at byte 2: total length is 20, want at least 24 (malformed)"},
		{"an IPv4 packet of 0 bytes", edit(syn4, func(b []byte) { b[3] = 0 }), ErrMalformed,
			"packet: IPv4 at byte 2: total length is 0, want at least 20 (malformed)"},
		{"an IPv6 packet of 0 bytes", edit(syn6, func(b []byte) { b[5] = 0 }), ErrMalformed,
			"packet: TCP at byte 40: length is 0, want at least 20 (malformed)"},
		{"a packet that ends within TCP's header", edit(syn4, func(b []byte) { b[3] = 39 }), ErrMalformed,
			"packet: TCP at byte 20: length is 19, want at least 20 (malformed)"},
		{"a capture that ends within TCP's header", syn4[:39], ErrTruncated,
			"packet: TCP at byte 20: captured length is 19, want at least 20 (truncated)"},
		{"a capture that ends within TCP's options", syn4[:59], ErrTruncated,
			"packet: TCP at byte 20: captured length is 39, want at least 40 (truncated)"},
		{"a TCP header below its minimum", edit(syn6, func(b []byte) { b[52] = 0x40 }), ErrMalformed,
			"packet: TCP at byte 52: header length is 16, want at least 20 (malformed)"},
		{"a TCP header beyond its packet", edit(syn6, func(b []byte) { b[52] = 0xf0 }), ErrMalformed,
			"packet: TCP at byte 52: header length is 60, want at most 40 (malformed)"},
		{"a TCP header beyond its packet, the capture being cut, too", edit(syn6[:70], func(b []byte) { b[52] = 0xf0 }), ErrMalformed,
			"packet: TCP at byte 52: header length is 60, want at most 40 (malformed)"},
		{"a hop-by-hop header behind another", withExtensions(t, syn6, destOpts, hopByHop), ErrMalformed,
			"packet: IPv6 at byte 48: position of the hop-by-hop header is 2, want 1 (malformed)"},
		{"too many extension headers", withExtensions(t, syn6, nine...), ErrMalformed,
			"packet: IPv6 at byte 104: number of extension headers is 9, want at most 8 (malformed)"},
		{"a capture that ends within an extension header", withExtensions(t, syn6, longDestOpts)[:55], ErrTruncated,
			"packet: IPv6 extension header at byte 40: captured length is 15, want at least 16 (truncated)"},
		{"an extension header beyond its packet", edit(withExtensions(t, syn6, destOpts), func(b []byte) { b[41] = 9 }), ErrMalformed,
			"packet: IPv6 extension header at byte 40: length is 48, want at least 80 (malformed)"},
		{"a packet that ends within an extension header", reheader(withExtensions(t, syn6, destOpts)[:47]), ErrMalformed,
			"packet: IPv6 extension header at byte 40: length is 7, want at least 8 (malformed)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := Packet{Kind: KindICMP, TCP: syn(src4, dst4)}
			wantError(t, p.Decode(tt.b), tt.about, tt.err)
			if d := cmp.Diff(Packet{}, p, same); d != "" {
				t.Errorf("left behind: %s", d)
			}
		})
	}
}

func TestMalformedOptionsDoNotCostTheSegment(t *testing.T) {
	b := edit(mustIP(t, synAck(dst4, src4)), func(b []byte) { b[41] = 3 }) // the length of MSS
	want := synAck(dst4, src4)
	// The walk goes on behind what the wrong length says, where Linux's next
	// options are out of step.
	want.Options = Options{Malformed: true}
	var p Packet
	if err := p.Decode(b); err != nil || p.Kind != KindTCP {
		t.Fatalf("kind %d, error %v", p.Kind, err)
	}
	if d := cmp.Diff(want, p.TCP, same); d != "" {
		t.Error(d)
	}
}

// Whatever the capture is cut to, what can be read of a segment stays the same.
func TestACutCaptureIsTruncatedAndNothingElse(t *testing.T) {
	for name, s := range samples() {
		t.Run(name, func(t *testing.T) {
			b := mustIP(t, s)
			var p Packet
			for n := range b {
				err := p.Decode(b[:n:n])
				if header := len(b) - len(s.Payload); n >= header {
					if err != nil || p.TCP.Len() != s.Len() || p.TCP.Missing != len(b)-n {
						t.Errorf("cut to %d: %v, %v", n, &p.TCP, err)
					}
					continue
				}
				wantError(t, err, ErrTruncated, err.Error())
			}
		})
	}
}

func TestReadsBackASYNFromTheTailOfATransmittedPacket(t *testing.T) {
	for _, s := range []Segment{syn(src4, dst4), syn(src6, dst6)} {
		want := s
		want.Src, want.Dst, want.TTL = addrPort("0.0.0.0:61000"), addrPort("0.0.0.0:443"), 0
		for _, link := range []int{0, 4, 14, 18, 100} {
			t.Run(fmt.Sprintf("%v behind %d bytes", s.Src.Addr(), link), func(t *testing.T) {
				b := append(make([]byte, link), mustIP(t, s)...)
				var got Segment
				if err := got.DecodeTail(b, 40); err != nil {
					t.Fatal(err)
				}
				if got.Src.Addr().IsValid() || got.Src.Port() != 61000 || got.Dst.Port() != 443 {
					t.Errorf("from %v to %v", got.Src, got.Dst)
				}
				got.Src, got.Dst = want.Src, want.Dst
				if d := cmp.Diff(want, got, same); d != "" {
					t.Error(d)
				}
			})
		}
	}
}

func TestATailWithoutOurSYNIsRefused(t *testing.T) {
	b := mustIP(t, syn(src4, dst4))
	tests := []struct {
		name  string
		b     []byte
		n     int
		about error
		err   string
	}{
		{"shorter than the segment", b[21:], 40, ErrTruncated,
			"packet: TCP at byte 0: captured length is 39, want at least 40 (truncated)"},
		{"shorter than any segment", b, 19, ErrMalformed,
			"packet: TCP at byte 41: length of the tail is 19, want 20 to 60 (malformed)"},
		{"a length that no header has", b, 61, ErrMalformed,
			"packet: TCP at byte 0: length of the tail is 61, want 20 to 60 (malformed)"},
		{"a negative length", b, -1, ErrMalformed,
			"packet: TCP at byte 61: length of the tail is -1, want 20 to 60 (malformed)"},
		{"a header of another length", edit(b, func(b []byte) { b[32] = 0x90 }), 40, ErrMalformed,
			"packet: TCP at byte 32: header length is 36, want 40 (malformed)"},
		{"a SYN-ACK", edit(b, func(b []byte) { b[33] |= byte(ACK) }), 40, ErrMalformed,
			"packet: TCP at byte 33: control bits is SYN,ACK, want SYN alone, or FIN and ACK (malformed)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := syn(src6, dst6)
			wantError(t, s.DecodeTail(tt.b, tt.n), tt.about, tt.err)
			if d := cmp.Diff(Segment{}, s, same); d != "" {
				t.Errorf("left behind: %s", d)
			}
		})
	}
}
