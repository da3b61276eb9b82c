package packet

import (
	"bytes"
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// The seeds of these targets are under testdata/fuzz; seeds_test.go makes them.

// isTyped fails unless err is an *Error that says what it is about and reads
// well.
func isTyped(t *testing.T, err error) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Error() == "" || e.Offset < -1 {
		t.Fatalf("error is %#v, want an *Error", err)
	}
	for _, about := range []error{ErrTruncated, ErrMalformed, ErrChecksum, ErrUnencodable} {
		if errors.Is(err, about) {
			return
		}
	}
	t.Fatalf("error %v wraps nothing known", err)
}

func FuzzDecode(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		input := bytes.Clone(b)
		var p Packet
		err := p.Decode(b)
		if checksum := VerifyChecksum(b); checksum != nil {
			isTyped(t, checksum)
		}
		if !bytes.Equal(b, input) {
			t.Fatal("the input was changed")
		}
		if err != nil {
			isTyped(t, err)
			if peer, ok := peerDecodes(b); ok && plain(b) {
				t.Fatalf("error is %v, but the peer reads %v", err, &peer)
			}
			if d := cmp.Diff(Packet{Fragment: p.Fragment}, p, same); d != "" {
				t.Fatalf("left behind beside an error: %s", d)
			}
			return
		}
		again := Packet{Kind: KindICMP, TCP: syn(src4, dst4), ICMP: ICMPError{MTU: 1, QuotedLen: 9}}
		if err := again.Decode(b); err != nil || cmp.Diff(p, again, same) != "" {
			t.Fatalf("a packet that was used before: %v, %s", err, cmp.Diff(p, again, same))
		}
		switch p.Kind {
		case KindTCP:
			_ = p.TCP.String()
			comesBack(t, p.TCP)
			if peer, ok := peerDecodes(b); ok && !p.TCP.Options.Malformed {
				p.TCP.Missing = 0
				if isV6(b) && b[6] == protoHopByHop {
					// The peer takes padding as long as that header for payload.
					peer.Payload = p.TCP.Payload
				}
				if d := cmp.Diff(peer, p.TCP, same); d != "" {
					t.Fatalf("peer and ours differ (-peer +ours):\n%s", d)
				}
			}
		case KindICMP:
			_ = p.ICMP.String()
			q := &p.ICMP.Quoted
			if p.ICMP.QuotedLen < 8 || q.Src.Addr().Is4() != p.ICMP.From.Is4() || len(q.Payload)+q.Missing > 0 {
				t.Fatalf("quotes %d bytes of %v", p.ICMP.QuotedLen, q)
			}
		}
	})
}

// plain says that b has none of what the peer is more lenient with: versions
// that are not there, a length of 0, as segmentation offload leaves it, and
// chains of extension headers that RFC 8200 does not allow.
func plain(b []byte) bool {
	switch b[0] >> 4 {
	case 4:
		return b[2]|b[3] != 0
	case 6:
		return b[6] == protoTCP && b[4]|b[5] != 0
	}
	return false
}

// comesBack fails unless the decoded segment, encoded, decodes to itself.
func comesBack(t *testing.T, s Segment) {
	t.Helper()
	s.Missing, s.Options.Malformed = 0, false
	b, err := AppendIP(nil, &s)
	if err != nil {
		if s.Src.Addr().Is4In6() || s.Dst.Addr().Is4In6() {
			return
		}
		t.Fatalf("decodes and does not encode: %v", err)
	}
	if err := VerifyChecksum(b); err != nil {
		t.Fatal(err)
	}
	var p Packet
	if err := p.Decode(b); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(s, p.TCP, same); d != "" {
		t.Fatalf("encoded and decoded again: %s", d)
	}
}

func FuzzOptions(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		var o Options
		if err := o.Decode(b); err != nil {
			isTyped(t, err)
			if !o.Malformed {
				t.Fatalf("not marked as malformed: %v", err)
			}
		} else if o.Malformed {
			t.Fatal("malformed without an error")
		}
		if len(b) > maxOptionsLen {
			return // no TCP header holds them
		}
		comesBack(t, Segment{Src: src4, Dst: dst4, Options: o})

		header := make([]byte, tcpLen, tcpMaxLen)
		header = append(header, b...)
		for len(header)%4 != 0 {
			header = append(header, optEnd)
		}
		header[12] = byte(len(header) / 4 << 4)
		var l layers.TCP
		if err := l.DecodeFromBytes(header, gopacket.NilDecodeFeedback); err != nil || o.Malformed {
			return
		}
		if d := cmp.Diff(peerSegment(&l).Options, o); d != "" {
			t.Fatalf("peer and ours differ (-peer +ours):\n%s", d)
		}
	})
}

func FuzzTail(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte, n int) {
		var s Segment
		if err := s.DecodeTail(b, n); err != nil {
			isTyped(t, err)
			return
		}
		whole := s
		whole.Src = netip.AddrPortFrom(src6.Addr(), s.Src.Port())
		whole.Dst = netip.AddrPortFrom(dst6.Addr(), s.Dst.Port())
		comesBack(t, whole)

		// A full decode of the same bytes behind an IP header sees the same.
		packet := appendIPHeader(nil, src6.Addr(), dst6.Addr(), protoTCP, 0, 0)
		packet = reheader(append(packet, b[len(b)-n:]...))
		var p Packet
		if err := p.Decode(packet); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(whole, p.TCP, same); d != "" {
			t.Fatalf("tail and packet differ: %s", d)
		}
	})
}

func FuzzICMPQuote(f *testing.F) {
	f.Fuzz(func(t *testing.T, typ, code uint8, mtu uint32, original []byte) {
		e := ICMPError{From: router4, Type: typ, Code: code, MTU: mtu}
		if isV6(original) {
			e.From = router6
		}
		b, err := AppendICMP(nil, &e, original)
		if err != nil {
			isTyped(t, err)
			return
		}
		if err := VerifyChecksum(b); err != nil {
			t.Fatal(err)
		}
		var p, o Packet
		if err := p.Decode(b); err != nil {
			isTyped(t, err)
		}
		if ICMPReason(e.From.Is6(), typ, code) == "" {
			t.Fatal("no reason")
		}

		// The peer reads the same type and code.
		if l := peerICMP(b); l[0] != typ || l[1] != code {
			t.Fatalf("peer reads type %d code %d, ours are %d and %d", l[0], l[1], typ, code)
		}
		// Whatever decodes as a segment is quoted as that segment.
		if o.Decode(original) != nil || o.Kind != KindTCP || !isICMPError(e.From.Is6(), typ) {
			return
		}
		got := p.ICMP.Quoted
		if p.Kind != KindICMP || got.Src != o.TCP.Src || got.Dst != o.TCP.Dst || got.Seq != o.TCP.Seq {
			t.Fatalf("kind %d, quotes %v, want %v", p.Kind, &got, &o.TCP)
		}
		if d := cmp.Diff(o.TCP.Options, got.Options); d != "" && len(original) < 512 {
			t.Fatalf("quoted options: %s", d)
		}
		if want := e.MTU; hasMTU(e.From.Is6(), typ, code) && e.From.Is6() && p.ICMP.MTU != want {
			t.Fatalf("MTU is %d, want %d", p.ICMP.MTU, want)
		}
	})
}

// peerICMP returns type and code of the ICMP message in b as the peer reads them.
func peerICMP(b []byte) [2]uint8 {
	first := layers.LayerTypeIPv4
	if isV6(b) {
		first = layers.LayerTypeIPv6
	}
	p := gopacket.NewPacket(b, first, gopacket.NoCopy)
	if l, ok := p.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4); ok {
		return [2]uint8{l.TypeCode.Type(), l.TypeCode.Code()}
	}
	if l, ok := p.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6); ok {
		return [2]uint8{l.TypeCode.Type(), l.TypeCode.Code()}
	}
	return [2]uint8{}
}
