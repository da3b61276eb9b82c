package packet

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestSegmentsComeBackAsTheyWereWritten(t *testing.T) {
	for name, want := range samples() {
		t.Run(name, func(t *testing.T) {
			b := mustIP(t, want)
			if err := VerifyChecksum(b); err != nil {
				t.Error(err)
			}
			var p Packet
			if err := p.Decode(b); err != nil || p.Kind != KindTCP {
				t.Fatalf("kind %d, error %v", p.Kind, err)
			}
			if d := cmp.Diff(want, p.TCP, same); d != "" {
				t.Error(d)
			}
			agreesWithPeer(t, b, &p.TCP)
		})
	}
}

func TestAnySegmentComesBackAsItWasWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawSegment(t)
		b, err := AppendIP(nil, &want)
		if err != nil {
			t.Skip(err.Error())
		}
		if err := VerifyChecksum(b); err != nil {
			t.Error(err)
		}
		var p Packet
		if err := p.Decode(b); err != nil || p.Kind != KindTCP {
			t.Fatalf("kind %d, error %v", p.Kind, err)
		}
		if d := cmp.Diff(want, p.TCP, same); d != "" {
			t.Fatal(d)
		}
		agreesWithPeer(t, b, &p.TCP)
		if peer := peerEncodes(t, &want, b); !bytes.Equal(b, peer) {
			t.Errorf("encoded\n ours %x\n peer %x", b, peer)
		}
	})
}

// drawSegment makes any segment, without what is not encoded.
func drawSegment(t *rapid.T) Segment {
	size := rapid.SampledFrom([]int{4, 16}).Draw(t, "address size")
	end := func(name string) netip.AddrPort {
		b := rapid.SliceOfN(rapid.Byte(), size, size).Draw(t, name)
		a, _ := netip.AddrFromSlice(b)
		return netip.AddrPortFrom(a, rapid.Uint16().Draw(t, name+" port"))
	}
	return Segment{
		Src: end("src"), Dst: end("dst"),
		Seq: rapid.Uint32().Draw(t, "seq"), Ack: rapid.Uint32().Draw(t, "ack"),
		Flags:   Flags(rapid.Byte().Draw(t, "flags")),
		Window:  rapid.Uint16().Draw(t, "window"),
		Urgent:  rapid.Uint16().Draw(t, "urgent"),
		TTL:     rapid.Byte().Draw(t, "ttl"),
		TOS:     rapid.Byte().Draw(t, "tos"),
		Options: drawOptions(t),
		Payload: rapid.SliceOfN(rapid.Byte(), 0, 64).Draw(t, "payload"),
	}
}

func TestAppendKeepsWhatIsThereAlready(t *testing.T) {
	s := syn(src6, dst6)
	dirty := append(make([]byte, 0, 256), bytes.Repeat([]byte{0xff}, 256)...)
	got, err := AppendIP(dirty[:3], &s)
	if err != nil {
		t.Fatal(err)
	}
	if want := append([]byte{0xff, 0xff, 0xff}, mustIP(t, s)...); !bytes.Equal(got, want) {
		t.Errorf("\n got %x\nwant %x", got, want)
	}
}

func TestSegmentsWithoutAFormAreRefused(t *testing.T) {
	huge := func(src, dst netip.AddrPort, n int) Segment {
		return Segment{Src: src, Dst: dst, Payload: make([]byte, n)}
	}
	tests := []struct {
		name string
		s    Segment
		err  string
	}{
		{"no source", Segment{Dst: dst4},
			"packet: IP: source address is invalid IP, want an IPv4 or an IPv6 address, the latter not IPv4-mapped (not encodable)"},
		{"no destination", Segment{Src: src4},
			"packet: IP: destination address is invalid IP, want an IPv4 or an IPv6 address, the latter not IPv4-mapped (not encodable)"},
		{"an IPv4-mapped source", Segment{Src: addrPort("[::ffff:192.0.2.1]:1"), Dst: dst6},
			"packet: IP: source address is ::ffff:192.0.2.1, want an IPv4 or an IPv6 address, the latter not IPv4-mapped (not encodable)"},
		{"two families", Segment{Src: src4, Dst: dst6},
			"packet: IP: destination address is 2001:db8::2, want one of the same family as 192.0.2.1 (not encodable)"},
		{"more payload than IPv4 can carry", huge(src4, dst4, 65496),
			"packet: TCP: payload length is 65496, want at most 65495 (not encodable)"},
		{"more payload than IPv6 can carry", huge(src6, dst6, 65516),
			"packet: TCP: payload length is 65516, want at most 65515 (not encodable)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := AppendTCP([]byte("kept"), &tt.s)
			wantError(t, err, ErrUnencodable, tt.err)
			if string(got) != "kept" {
				t.Errorf("AppendTCP returned %q", got)
			}
			got, err = AppendIP([]byte("kept"), &tt.s)
			wantError(t, err, ErrUnencodable, tt.err)
			if string(got) != "kept" {
				t.Errorf("AppendIP returned %q", got)
			}
		})
	}
}

func TestTheLargestPayloadFits(t *testing.T) {
	for _, s := range []Segment{
		{Src: src4, Dst: dst4, Payload: make([]byte, 65495)},
		{Src: src6, Dst: dst6, Payload: make([]byte, 65515)},
	} {
		b := mustIP(t, s)
		var p Packet
		if err := p.Decode(b); err != nil || p.TCP.Len() != len(s.Payload) || VerifyChecksum(b) != nil {
			t.Errorf("%v of %d bytes: %v, %v", &p.TCP, len(b), err, VerifyChecksum(b))
		}
	}
}

func TestZonesAreLeftOutOfPackets(t *testing.T) {
	s := syn(addrPort("[fe80::1%eth0]:61000"), addrPort("[fe80::2%eth0]:443"))
	var p Packet
	if err := p.Decode(mustIP(t, s)); err != nil {
		t.Fatal(err)
	}
	if got, want := p.TCP.Dst, addrPort("[fe80::2]:443"); got != want {
		t.Errorf("destination %v, want %v", got, want)
	}
}
