package packet

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var (
	router4 = netip.MustParseAddr("198.51.100.9")
	router6 = netip.MustParseAddr("2001:db8::9")
)

// quoted is the segment as an error quotes it.
func quoted(s Segment) Segment {
	s.Payload = nil
	return s
}

// onlyPorts is what is known of a segment of which 8 bytes were quoted.
func onlyPorts(s Segment) Segment {
	return Segment{Src: s.Src, Dst: s.Dst, Seq: s.Seq, TTL: s.TTL, TOS: s.TOS}
}

// icmpOver builds an IP packet with a raw ICMP message.
func icmpOver(from, to netip.Addr, message []byte) []byte {
	proto := uint8(protoICMP)
	if from.Is6() {
		proto = protoICMPv6
	}
	return reheader(append(appendIPHeader(nil, from, to, proto, 64, 0), message...))
}

func TestDecodesICMPErrors(t *testing.T) {
	s4, s6 := syn(src4, dst4), syn(src6, dst6)
	syn4, syn6 := mustIP(t, s4), mustIP(t, s6)
	// An RFC 4884 message: the quote padded to 128 bytes, then an extension.
	extended := func(v6 bool, typ, code byte, quote []byte) []byte {
		m := make([]byte, icmpLen+minExtended, 256)
		m[0], m[1] = typ, code
		if v6 {
			m[4] = minExtended / 8
		} else {
			m[5] = minExtended / 4
		}
		copy(m[icmpLen:], quote)
		return append(m, fromHex(t, "2000 0000 0008 0101 00 00 01 ff")...)
	}
	raw := func(typ, code byte, rest string, quote []byte) []byte {
		return append(append([]byte{typ, code, 0, 0}, fromHex(t, rest)...), quote...)
	}
	data := withPayload(s4, "this went with the SYN")
	fixed := s4
	fixed.Options = Options{}
	sent := func(b []byte) []byte { return icmpOver(router4, src4.Addr(), b) }
	sent6 := func(b []byte) []byte { return icmpOver(router6, src6.Addr(), b) }
	tests := []struct {
		name string
		b    []byte
		want ICMPError
	}{
		{"host unreachable with the whole SYN", sent(raw(3, 1, "00000000", syn4)),
			ICMPError{From: router4, Type: 3, Code: 1, Quoted: s4, QuotedLen: 40}},
		{"host unreachable with 8 bytes of the SYN", sent(raw(3, 1, "00000000", syn4[:28])),
			ICMPError{From: router4, Type: 3, Code: 1, Quoted: onlyPorts(s4), QuotedLen: 8}},
		{"the quote ends before the flags", sent(raw(3, 1, "00000000", syn4[:39])),
			ICMPError{From: router4, Type: 3, Code: 1, Quoted: onlyPorts(s4), QuotedLen: 19}},
		{"the quote ends within the options", sent(raw(3, 1, "00000000", syn4[:59])),
			ICMPError{From: router4, Type: 3, Code: 1, Quoted: fixed, QuotedLen: 39}},
		{"the quote has payload", sent(raw(3, 13, "00000000", mustIP(t, data))),
			ICMPError{From: router4, Type: 3, Code: 13, Quoted: quoted(data), QuotedLen: 62}},
		{"the quoted packet has IP options", sent(raw(3, 10, "00000000", withIPv4Options(syn4, 40)[:68])),
			ICMPError{From: router4, Type: 3, Code: 10, Quoted: onlyPorts(s4), QuotedLen: 8}},
		{"fragmentation needed has an MTU", sent(raw(3, 4, "0000 05dc", syn4)),
			ICMPError{From: router4, Type: 3, Code: 4, MTU: 1500, Quoted: s4, QuotedLen: 40}},
		{"the MTU is no part of other errors", sent(raw(3, 3, "0000 05dc", syn4)),
			ICMPError{From: router4, Type: 3, Code: 3, Quoted: s4, QuotedLen: 40}},
		{"source quench", sent(raw(4, 0, "00000000", syn4)),
			ICMPError{From: router4, Type: 4, Quoted: s4, QuotedLen: 40}},
		{"time exceeded", sent(raw(11, 0, "00000000", syn4)),
			ICMPError{From: router4, Type: 11, Quoted: s4, QuotedLen: 40}},
		{"parameter problem", sent(raw(12, 0, "14000000", syn4)),
			ICMPError{From: router4, Type: 12, Quoted: s4, QuotedLen: 40}},
		{"an extended message", sent(extended(false, 11, 0, syn4)),
			ICMPError{From: router4, Type: 11, Quoted: s4, QuotedLen: 40}},
		{"an extended message that quotes less than it says", sent(extended(false, 11, 0, syn4)[:36]),
			ICMPError{From: router4, Type: 11, Quoted: onlyPorts(s4), QuotedLen: 8}},
		{"a length too short for an extension is noise", sent(raw(3, 1, "00020000", syn4)),
			ICMPError{From: router4, Type: 3, Code: 1, Quoted: s4, QuotedLen: 40}},
		{"a quoted total length of 0 is not believed", sent(raw(3, 1, "00000000", edit(syn4, func(b []byte) { b[3] = 0 }))),
			ICMPError{From: router4, Type: 3, Code: 1, Quoted: s4, QuotedLen: 40}},
		{"a quoted total length without room for TCP is not believed", sent(raw(3, 1, "00000000", edit(syn4, func(b []byte) { b[3] = 39 }))),
			ICMPError{From: router4, Type: 3, Code: 1, Quoted: s4, QuotedLen: 40}},
		{"a quoted total length in the wrong byte order", sent(raw(3, 1, "00000000", edit(syn4, func(b []byte) { b[2], b[3] = 60, 0 }))),
			ICMPError{From: router4, Type: 3, Code: 1, Quoted: s4, QuotedLen: 40}},
		{"a quoted header length that cannot be leaves the options out",
			sent(raw(3, 1, "00000000", edit(syn4, func(b []byte) { b[32] = 0x40 }))),
			ICMPError{From: router4, Type: 3, Code: 1, Quoted: fixed, QuotedLen: 40}},

		{"no route with the whole SYN", sent6(raw(1, 0, "00000000", syn6)),
			ICMPError{From: router6, Type: 1, Quoted: s6, QuotedLen: 40}},
		{"no route with 8 bytes of the SYN", sent6(raw(1, 0, "00000000", syn6[:48])),
			ICMPError{From: router6, Type: 1, Quoted: onlyPorts(s6), QuotedLen: 8}},
		{"packet too big has an MTU of 32 bits", sent6(raw(2, 0, "00010500", syn6)),
			ICMPError{From: router6, Type: 2, MTU: 66816, Quoted: s6, QuotedLen: 40}},
		{"hop limit exceeded", sent6(raw(3, 0, "00000000", syn6)),
			ICMPError{From: router6, Type: 3, Quoted: s6, QuotedLen: 40}},
		{"parameter problem of IPv6", sent6(raw(4, 1, "00000028", syn6)),
			ICMPError{From: router6, Type: 4, Code: 1, Quoted: s6, QuotedLen: 40}},
		{"the quoted packet has extension headers", sent6(raw(1, 4, "00000000", withExtensions(t, syn6, hopByHop, destOpts))),
			ICMPError{From: router6, Type: 1, Code: 4, Quoted: s6, QuotedLen: 40}},
		{"an extended message of IPv6", sent6(extended(true, 1, 3, syn6)),
			ICMPError{From: router6, Type: 1, Code: 3, Quoted: s6, QuotedLen: 40}},
		{"an error behind extension headers", withExtensions(t, sent6(raw(1, 1, "00000000", syn6)), hopByHop),
			ICMPError{From: router6, Type: 1, Code: 1, Quoted: s6, QuotedLen: 40}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var p Packet
			if err := p.Decode(tt.b); err != nil {
				t.Fatal(err)
			}
			if p.Kind != KindICMP {
				t.Fatalf("kind %d", p.Kind)
			}
			if d := cmp.Diff(tt.want, p.ICMP, same); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestICMPMessagesThatAreNoErrorAboutTCPAreOther(t *testing.T) {
	syn4, syn6 := mustIP(t, syn(src4, dst4)), mustIP(t, syn(src6, dst6))
	about4 := func(b []byte) []byte { return mustICMP(t, ICMPError{From: router4, Type: 3}, b) }
	about6 := func(b []byte) []byte { return mustICMP(t, ICMPError{From: router6, Type: 1}, b) }
	tests := []struct {
		name string
		b    []byte
	}{
		{"an echo request", icmpOver(src4.Addr(), dst4.Addr(), fromHex(t, "0800 0000 0001 0001"))},
		{"an echo request over IPv6", icmpOver(src6.Addr(), dst6.Addr(), fromHex(t, "8000 0000 0001 0001"))},
		{"a redirect", icmpOver(router4, src4.Addr(), append(fromHex(t, "0501 0000 c0000209"), syn4...))},
		{"an error about UDP", about4(edit(syn4, func(b []byte) { b[9] = 17 }))},
		{"an error about UDP over IPv6", about6(edit(syn6, func(b []byte) { b[6] = 17 }))},
		{"an error about a later fragment", about4(edit(syn4, func(b []byte) { b[7] = 1 }))},
		{"an error about a packet on the way along a routing header", about6(withExtensions(t, syn6, routingAhead))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var p Packet
			if err := p.Decode(tt.b); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(Packet{}, p, same); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestSaysWhatIsWrongWithAnICMPError(t *testing.T) {
	syn4, syn6 := mustIP(t, syn(src4, dst4)), mustIP(t, syn(src6, dst6))
	whole4 := mustICMP(t, ICMPError{From: router4, Type: 3}, syn4)
	whole6 := mustICMP(t, ICMPError{From: router6, Type: 1}, syn6)
	unreachable := fromHex(t, "0301 0000 00000000")
	unreachable6 := fromHex(t, "0100 0000 00000000")
	sent := func(quote []byte) []byte {
		return icmpOver(router4, src4.Addr(), append(append([]byte(nil), unreachable...), quote...))
	}
	sent6 := func(quote []byte) []byte {
		return icmpOver(router6, src6.Addr(), append(append([]byte(nil), unreachable6...), quote...))
	}
	tests := []struct {
		name  string
		b     []byte
		about error
		err   string
	}{
		{"no message", icmpOver(router4, src4.Addr(), nil), ErrMalformed,
			"packet: ICMP at byte 20: length is 0, want at least 8 (malformed)"},
		{"half a message", icmpOver(router6, src6.Addr(), unreachable6[:7]), ErrMalformed,
			"packet: ICMPv6 at byte 40: length is 7, want at least 8 (malformed)"},
		{"no quote", sent(nil), ErrMalformed,
			"packet: quoted IP at byte 28: length is 0, want at least 20 (malformed)"},
		{"half a quoted IPv4 header", sent(syn4[:19]), ErrMalformed,
			"packet: quoted IPv4 at byte 28: length is 19, want at least 20 (malformed)"},
		{"half a quoted IPv6 header", sent6(syn6[:39]), ErrMalformed,
			"packet: quoted IPv6 at byte 48: length is 39, want at least 40 (malformed)"},
		{"a quoted IPv4 header below its minimum", sent(edit(syn4, func(b []byte) { b[0] = 0x44 })), ErrMalformed,
			"packet: quoted IPv4 at byte 28: header length is 16, want at least 20 (malformed)"},
		{"7 bytes of TCP", sent(syn4[:27]), ErrMalformed,
			"packet: quoted TCP at byte 48: length is 7, want at least 8 (malformed)"},
		{"7 bytes of TCP over IPv6", sent6(syn6[:47]), ErrMalformed,
			"packet: quoted TCP at byte 88: length is 7, want at least 8 (malformed)"},
		{"half an extension header", sent6(withExtensions(t, syn6, longDestOpts)[:50]), ErrMalformed,
			"packet: quoted IPv6 extension header at byte 88: length is 10, want at least 16 (malformed)"},
		{"IPv6 in an error of IPv4", sent(syn6), ErrMalformed,
			"packet: quoted IP at byte 28: version is 6, want that of the error's own header (malformed)"},
		{"something else in the quote", sent(make([]byte, 28)), ErrMalformed,
			"packet: quoted IP at byte 28: version is 0, want 4 or 6 (malformed)"},

		{"a capture that ends before the message", whole4[:20], ErrTruncated,
			"packet: ICMP at byte 20: captured length is 0, want at least 8 (truncated)"},
		{"a capture that ends within the message", whole4[:27], ErrTruncated,
			"packet: ICMP at byte 20: captured length is 7, want at least 8 (truncated)"},
		{"a capture that ends before the quote", whole4[:28], ErrTruncated,
			"packet: quoted IP at byte 28: captured length is 0, want at least 20 (truncated)"},
		{"a capture that ends within the quoted IP header", whole6[:87], ErrTruncated,
			"packet: quoted IPv6 at byte 48: captured length is 39, want at least 40 (truncated)"},
		{"a capture that ends within the quoted ports", whole6[:95], ErrTruncated,
			"packet: quoted TCP at byte 88: captured length is 7, want at least 8 (truncated)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var p Packet
			wantError(t, p.Decode(tt.b), tt.about, tt.err)
			if d := cmp.Diff(Packet{}, p, same); d != "" {
				t.Errorf("left behind: %s", d)
			}
		})
	}
}

func TestCraftsICMPErrors(t *testing.T) {
	big4 := mustIP(t, withPayload(syn(src4, dst4), string(make([]byte, 1400))))
	big6 := mustIP(t, withPayload(syn(src6, dst6), string(make([]byte, 1400))))
	tests := []struct {
		name     string
		e        ICMPError
		original []byte
		size     int
	}{
		{"IPv4 quotes up to 576 bytes in all", ICMPError{From: router4, Type: 3, Code: 4, MTU: 1400}, big4, 576},
		{"IPv6 quotes up to 1280 bytes in all", ICMPError{From: router6, Type: 2, MTU: 1400}, big6, 1280},
		{"a small packet is quoted whole", ICMPError{From: router4, Type: 11}, big4[:60], 88},
		{"the MTU is left out where it does not belong", ICMPError{From: router6, Type: 1, Code: 3, MTU: 9}, big6[:80], 128},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := mustICMP(t, tt.e, tt.original)
			if len(b) != tt.size {
				t.Errorf("%d bytes, want %d", len(b), tt.size)
			}
			if err := VerifyChecksum(b); err != nil {
				t.Error(err)
			}
			var original, p Packet
			if err := original.Decode(tt.original); err != nil {
				t.Fatal(err)
			}
			if err := p.Decode(b); err != nil || p.Kind != KindICMP {
				t.Fatalf("kind %d, error %v", p.Kind, err)
			}
			want := tt.e
			if !hasMTU(want.From.Is6(), want.Type, want.Code) {
				want.MTU = 0
			}
			want.Quoted, want.QuotedLen = quoted(original.TCP), p.ICMP.QuotedLen
			want.Quoted.Missing = 0
			if d := cmp.Diff(want, p.ICMP, same); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestICMPErrorsWithoutAFormAreRefused(t *testing.T) {
	e := ICMPError{From: router6, Type: 1}
	got, err := AppendICMP([]byte("kept"), &e, mustIP(t, syn(src4, dst4)))
	wantError(t, err, ErrUnencodable, "packet: IP: destination address is 192.0.2.1, want one of the same family as 2001:db8::9 (not encodable)")
	if string(got) != "kept" {
		t.Errorf("got %q", got)
	}
	_, err = AppendICMP(nil, &e, nil)
	wantError(t, err, ErrTruncated, "packet: quoted IP at byte 0: captured length is 0, want at least 20 (truncated)")
}

func TestICMPErrorsReadAsALine(t *testing.T) {
	tests := []struct {
		name string
		e    ICMPError
		want string
	}{
		{"a router has no route", ICMPError{From: router6, Type: 1, Quoted: syn(src6, dst6)},
			"2001:db8::9 says no route (type 1, code 0) of [2001:db8::1]:61000 > [2001:db8::2]:443 seq 3253611009"},
		{"an MTU is told", ICMPError{From: router4, Type: 3, Code: 4, MTU: 1400, Quoted: syn(src4, dst4)},
			"198.51.100.9 says fragmentation needed (type 3, code 4, MTU 1400) of 192.0.2.1:61000 > 192.0.2.2:443 seq 3253611009"},
		{"the zero value", ICMPError{}, "? says ICMP type 0, code 0 (type 0, code 0) of ?:0 > ?:0 seq 0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.e.String(); got != tt.want {
				t.Errorf("\n got %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestReasonsAreInWords(t *testing.T) {
	tests := []struct {
		v6        bool
		typ, code uint8
		want      string
	}{
		{false, 3, 0, "network unreachable"},
		{false, 3, 1, "host unreachable"},
		{false, 3, 3, "port unreachable"},
		{false, 3, 4, "fragmentation needed"},
		{false, 3, 9, "network prohibited"},
		{false, 3, 10, "host prohibited"},
		{false, 3, 13, "admin prohibited"},
		{false, 3, 15, "precedence cutoff"},
		{false, 3, 16, "destination unreachable, code 16"},
		{false, 4, 0, "source quench"},
		{false, 11, 0, "TTL exceeded"},
		{false, 11, 1, "reassembly time exceeded"},
		{false, 12, 2, "bad length"},
		{false, 12, 3, "parameter problem, code 3"},
		{false, 8, 0, "ICMP type 8, code 0"},
		{true, 1, 0, "no route"},
		{true, 1, 1, "admin prohibited"},
		{true, 1, 3, "address unreachable"},
		{true, 1, 4, "port unreachable"},
		{true, 1, 6, "route rejected"},
		{true, 1, 8, "headers too long"},
		{true, 1, 255, "destination unreachable, code 255"},
		{true, 2, 0, "packet too big"},
		{true, 3, 0, "hop limit exceeded"},
		{true, 3, 2, "time exceeded, code 2"},
		{true, 4, 10, "option too big"},
		{true, 128, 0, "ICMPv6 type 128, code 0"},
	}
	for _, tt := range tests {
		if got := ICMPReason(tt.v6, tt.typ, tt.code); got != tt.want {
			t.Errorf("ICMPReason(%t, %d, %d) is %q, want %q", tt.v6, tt.typ, tt.code, got, tt.want)
		}
	}
}
