package packet

import "testing"

func TestNothingAllocatesOnTheHotPath(t *testing.T) {
	v4, v6 := mustIP(t, synAck(dst4, src4)), mustIP(t, synAck(dst6, src6))
	s := syn(src4, dst4)
	tmpl, err := NewTemplate(&s)
	if err != nil {
		t.Fatal(err)
	}
	e := ICMPError{From: router4, Type: 3, Code: 1}
	icmp4 := mustICMP(t, e, v4)
	icmp6 := mustICMP(t, ICMPError{From: router6, Type: 1}, v6)
	malformed := edit(v4, func(b []byte) { b[41] = 3 })
	extended := withExtensions(t, v6, hopByHop, destOpts)
	sent := mustIP(t, s)
	buf := make([]byte, 0, 2048)
	var p Packet
	var tail Segment
	decode := func(b []byte) func() error { return func() error { return p.Decode(b) } }
	tests := []struct {
		name string
		f    func() error
	}{
		{"making a template", func() error { _, err := NewTemplate(&s); return err }},
		{"stamping a SYN", func() error { buf = tmpl.Append(buf[:0], 1, dst4, 2, 3); return nil }},
		{"crafting a segment", func() (err error) { buf, err = AppendTCP(buf[:0], &s); return err }},
		{"crafting a packet", func() (err error) { buf, err = AppendIP(buf[:0], &s); return err }},
		{"crafting an ICMP error", func() (err error) { buf, err = AppendICMP(buf[:0], &e, v4); return err }},
		{"decoding a SYN-ACK over IPv4", decode(v4)},
		{"decoding a SYN-ACK over IPv6", decode(v6)},
		{"decoding a SYN-ACK behind extension headers", decode(extended)},
		{"decoding malformed options", decode(malformed)},
		{"decoding an ICMP error", decode(icmp4)},
		{"decoding an ICMPv6 error", decode(icmp6)},
		{"decoding a tail", func() error { return tail.DecodeTail(sent, 40) }},
		{"verifying a checksum over IPv4", func() error { return VerifyChecksum(v4) }},
		{"verifying a checksum over IPv6", func() error { return VerifyChecksum(v6) }},
		{"putting an ICMP error into words", func() error { _ = ICMPReason(true, 1, 0); return nil }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.f(); err != nil {
				t.Fatal(err)
			}
			if n := testing.AllocsPerRun(100, func() { _ = tt.f() }); n != 0 {
				t.Errorf("%v allocations, want none", n)
			}
		})
	}
}
