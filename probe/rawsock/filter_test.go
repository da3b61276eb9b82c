package rawsock

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/net/bpf"
	"pgregory.net/rapid"

	"github.com/synmesh/synmesh/probe/packet"
)

var (
	our4, their4, router4 = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.254")
	our6, their6, router6 = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2"), netip.MustParseAddr("2001:db8::fe")

	ourPorts = PortRange{61000, 61255}
)

// running returns a filter as a function: how many bytes of a packet it passes.
func running(t testing.TB, filter func(PortRange) ([]bpf.RawInstruction, error), ports PortRange) func([]byte) int {
	t.Helper()
	raw, err := filter(ports)
	if err != nil {
		t.Fatal(err)
	}
	instructions, known := bpf.Disassemble(raw)
	if !known {
		t.Fatalf("not all of %v is known", raw)
	}
	vm, err := bpf.NewVM(instructions)
	if err != nil {
		t.Fatal(err)
	}
	return func(b []byte) int {
		n, err := vm.Run(b)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
}

// segment returns a packet from one port to another, over IPv4 or IPv6.
func segment(t testing.TB, v6 bool, from, to uint16, flags packet.Flags) []byte {
	t.Helper()
	src, dst := their4, our4
	if v6 {
		src, dst = their6, our6
	}
	s := packet.LinuxSYN(src, netip.AddrPortFrom(dst, to), 0)
	s.Src, s.Flags = netip.AddrPortFrom(src, from), flags
	b, err := packet.AppendIP(nil, &s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// icmpAbout returns an ICMP error of the type about a packet.
func icmpAbout(t testing.TB, typ uint8, about []byte) []byte {
	t.Helper()
	from := router4
	if about[0]>>4 == 6 {
		from = router6
	}
	b, err := packet.AppendICMP(nil, &packet.ICMPError{From: from, Type: typ}, about)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// edit returns a changed copy.
func edit(b []byte, change func([]byte)) []byte {
	b = slices.Clone(b)
	change(b)
	return b
}

// withOptions returns the IPv4 packet at b[at:] with n bytes of options, which
// are all "end of list", in its header; n is a multiple of 4.
func withOptions(b []byte, at, n int) []byte {
	b = slices.Insert(slices.Clone(b), at+20, make([]byte, n)...)
	b[at] += uint8(n / 4)
	for i := 0; i <= at; i += max(at, 1) { // the lengths of all IPv4 headers
		binary.BigEndian.PutUint16(b[i+2:], binary.BigEndian.Uint16(b[i+2:])+uint16(n))
	}
	return b
}

func TestFiltersPassWhatProbingTakes(t *testing.T) {
	const in, out = 61003, 5432 // a port of ours, and one that is not
	const synAck, rstAck, finAck = packet.SYN | packet.ACK, packet.RST | packet.ACK, packet.FIN | packet.ACK
	plain := func(from, to uint16, flags packet.Flags) func(bool) []byte {
		return func(v6 bool) []byte { return segment(t, v6, from, to, flags) }
	}
	about := func(from, to uint16, flags packet.Flags) func(bool) []byte {
		return func(v6 bool) []byte { return icmpAbout(t, unreachable(v6), segment(t, v6, from, to, flags)) }
	}
	for _, tt := range []struct {
		name         string
		packet       func(v6 bool) []byte
		answer, sent bool // what each filter passes
	}{
		{"a SYN-ACK to a port of ours is an answer", plain(out, in, synAck), true, false},
		{"a RST to a port of ours is an answer", plain(out, in, rstAck), true, false},
		{"an ACK to a port of ours is an answer", plain(out, in, packet.ACK), true, false},
		{"a FIN to a port of ours is an answer", plain(out, in, finAck), true, false},
		{"a SYN-ACK to another port is none", plain(out, 22, synAck), false, false},
		{"a RST to another port is none", plain(out, 22, rstAck), false, false},
		{"the first port of the range is ours", plain(out, 61000, synAck), true, false},
		{"the last port of the range is ours", plain(out, 61255, synAck), true, false},
		{"the port below the range is not", plain(out, 60999, synAck), false, false},
		{"the port above the range is not", plain(out, 61256, synAck), false, false},
		{"our own SYN is sent", plain(in, out, packet.SYN), false, true},
		{"our own SYN is sent from the first port", plain(61000, out, packet.SYN), false, true},
		{"our own SYN is sent from the last port", plain(61255, out, packet.SYN), false, true},
		{"our own SYN may ask for ECN", plain(in, out, packet.SYN|packet.ECE|packet.CWR), false, true},
		{"our own FIN is sent", plain(in, out, finAck), false, true},
		{"a SYN from below the range is not ours", plain(60999, out, packet.SYN), false, false},
		{"a SYN from above the range is not ours", plain(61256, out, packet.SYN), false, false},
		{"a FIN from above the range is not ours", plain(61256, out, finAck), false, false},
		{"a RST from a port of ours asks for nothing", plain(in, out, rstAck), false, false},
		{"an ACK from a port of ours asks for nothing", plain(in, out, packet.ACK|packet.PSH), false, false},
		{"our own SYN to a port of ours is sent, and arrives", plain(in, 61004, packet.SYN), true, true},
		{"an error about our SYN is an answer", about(in, out, packet.SYN), true, false},
		{"an error about a SYN from the first port is an answer", about(61000, out, packet.SYN), true, false},
		{"an error about a SYN from the last port is an answer", about(61255, out, packet.SYN), true, false},
		{"an error about a SYN from below the range is none", about(60999, out, packet.SYN), false, false},
		{"an error about a SYN from above the range is none", about(61256, out, packet.SYN), false, false},
		{"an error about what came to a port of ours is none", about(out, in, synAck), false, false},
		{"an error may quote eight bytes of our SYN", func(v6 bool) []byte {
			syn := segment(t, v6, in, out, packet.SYN)
			return icmpAbout(t, unreachable(v6), syn[:headerLen(syn)+8])
		}, true, false},
		{"an error about UDP is none", func(v6 bool) []byte {
			return icmpAbout(t, unreachable(v6), edit(segment(t, v6, in, out, packet.SYN), func(b []byte) { b[protocolAt(b)] = 17 }))
		}, false, false},
		{"UDP to a port of ours is none", func(v6 bool) []byte {
			return edit(segment(t, v6, out, in, synAck), func(b []byte) { b[protocolAt(b)] = 17 })
		}, false, false},
		{"UDP from a port of ours is none", func(v6 bool) []byte {
			return edit(segment(t, v6, in, out, packet.SYN), func(b []byte) { b[protocolAt(b)] = 17 })
		}, false, false},
		{"an unknown version of IP is none", func(v6 bool) []byte {
			return edit(segment(t, v6, in, in, packet.SYN), func(b []byte) { b[0] = 5<<4 | b[0]&0xf })
		}, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, v6 := range []bool{false, true} {
				b := tt.packet(v6)
				if got := running(t, answerFilter, ourPorts)(b) > 0; got != tt.answer {
					t.Errorf("IPv6 %t: an answer %t, want %t: %x", v6, got, tt.answer, b)
				}
				if got := running(t, sentFilter, ourPorts)(b) > 0; got != tt.sent {
					t.Errorf("IPv6 %t: sent %t, want %t: %x", v6, got, tt.sent, b)
				}
			}
		})
	}
}

func protocolAt(b []byte) int {
	if b[0]>>4 == 6 {
		return 6
	}
	return 9
}

func headerLen(b []byte) int {
	if b[0]>>4 == 6 {
		return 40
	}
	return 20
}

func unreachable(v6 bool) uint8 {
	if v6 {
		return 1
	}
	return 3
}

func TestTheFilterPassesICMPErrorsOnly(t *testing.T) {
	passes := running(t, answerFilter, ourPorts)
	for typ := range 256 {
		about4, about6 := segment(t, false, 61003, 5432, packet.SYN), segment(t, true, 61003, 5432, packet.SYN)
		// Destination unreachable, time exceeded, parameter problem (RFC 792); source
		// quench is to be ignored (RFC 6633).
		if got, want := passes(icmpAbout(t, uint8(typ), about4)) > 0, typ == 3 || typ == 11 || typ == 12; got != want {
			t.Errorf("ICMP type %d: passed %t, want %t", typ, got, want)
		}
		if got, want := passes(icmpAbout(t, uint8(typ), about6)) > 0, typ < 128; got != want { // RFC 4443 section 2.1
			t.Errorf("ICMPv6 type %d: passed %t, want %t", typ, got, want)
		}
	}
}

func TestFiltersFindPortsBehindIPv4Options(t *testing.T) {
	const in, out = 61003, 5432
	answers, sent := running(t, answerFilter, ourPorts), running(t, sentFilter, ourPorts)
	for n := 0; n <= 40; n += 4 {
		for _, port := range []uint16{in, out} {
			ours := port == in
			if got := answers(withOptions(segment(t, false, out, port, packet.SYN|packet.ACK), 0, n)) > 0; got != ours {
				t.Errorf("a SYN-ACK to port %d behind %d bytes of options: passed %t, want %t", port, n, got, ours)
			}
			if got := sent(withOptions(segment(t, false, port, out, packet.SYN), 0, n)) > 0; got != ours {
				t.Errorf("a SYN from port %d behind %d bytes of options: passed %t, want %t", port, n, got, ours)
			}
			e := icmpAbout(t, 3, segment(t, false, port, out, packet.SYN))
			for _, b := range [][]byte{withOptions(e, 0, n), withOptions(e, 28, n), withOptions(withOptions(e, 28, n), 0, 40)} {
				if got := answers(b) > 0; got != ours {
					t.Errorf("an error about a SYN from port %d with %d bytes of options: passed %t, want %t: %x", port, n, got, ours, b)
				}
			}
		}
	}
}

func TestOfAFragmentedPacketOnlyTheFirstPiecePasses(t *testing.T) {
	passes := running(t, answerFilter, ourPorts)
	whole := segment(t, false, 5432, 61003, packet.SYN|packet.ACK)
	about := icmpAbout(t, 3, segment(t, false, 61003, 5432, packet.SYN))
	for _, tt := range []struct {
		name string
		bits uint16
		want bool
	}{
		{"whole, and not to be fragmented", 0x4000, true},
		{"whole", 0, true},
		{"the first piece", 0x2000, true},
		{"the second piece", 0x2001, false},
		{"a late piece", 0x3fff, false},
		{"the last piece", 0x1000, false},
		{"the last piece, right behind the first", 0x0001, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, b := range [][]byte{whole, about} {
				b = edit(b, func(b []byte) { binary.BigEndian.PutUint16(b[6:], tt.bits) })
				if got := passes(b) > 0; got != tt.want {
					t.Errorf("passed %t, want %t: %x", got, tt.want, b)
				}
			}
		})
	}
	// With IPv6, what stands behind a fragment header is not looked at.
	fragment := edit(segment(t, true, 5432, 61003, packet.SYN|packet.ACK), func(b []byte) { b[6] = 44 })
	if passes(fragment) > 0 {
		t.Error("an IPv6 fragment passes")
	}
}

// sample is a packet that a filter passes, and how many bytes of it that takes.
type sample struct {
	filter func(PortRange) ([]bpf.RawInstruction, error)
	packet []byte
	needs  int
}

func samples(t testing.TB) map[string]sample {
	const in, out = 61003, 5432
	syn4, syn6 := segment(t, false, in, out, packet.SYN), segment(t, true, in, out, packet.SYN)
	about4 := icmpAbout(t, 11, syn4)
	return map[string]sample{
		"syn_ack_v4":        {answerFilter, segment(t, false, out, in, packet.SYN|packet.ACK), 20 + 4},
		"syn_ack_v6":        {answerFilter, segment(t, true, out, in, packet.SYN|packet.ACK), 40 + 4},
		"options_v4":        {answerFilter, withOptions(segment(t, false, out, in, packet.RST), 0, 40), 60 + 4},
		"time_exceeded_v4":  {answerFilter, about4, 20 + 8 + 20 + 2},
		"quoted_options_v4": {answerFilter, withOptions(withOptions(about4, 28, 12), 0, 8), 28 + 8 + 32 + 2},
		"unreachable_v6":    {answerFilter, icmpAbout(t, 3, syn6), 40 + 8 + 40 + 2},
		"syn_v4":            {sentFilter, syn4, 20 + 14},
		"syn_v6":            {sentFilter, syn6, 40 + 14},
		"fin_v4":            {sentFilter, withOptions(segment(t, false, in, out, packet.FIN|packet.ACK), 0, 8), 28 + 14},
	}
}

func TestATruncatedPacketPassesOnlyIfItsPortsAreThere(t *testing.T) {
	for name, s := range samples(t) {
		t.Run(name, func(t *testing.T) {
			passes := running(t, s.filter, ourPorts)
			for n := range len(s.packet) + 1 {
				if got, want := passes(s.packet[:n]) > 0, n >= s.needs; got != want {
					t.Errorf("%d bytes of %x: passed %t, want %t", n, s.packet, got, want)
				}
			}
		})
	}
}

func TestNoPieceOfWhatIsNotOursPasses(t *testing.T) {
	answers, sent := running(t, answerFilter, ourPorts), running(t, sentFilter, ourPorts)
	for _, b := range [][]byte{
		segment(t, false, 5432, 22, packet.SYN|packet.ACK),
		segment(t, true, 5432, 22, packet.SYN|packet.ACK),
		icmpAbout(t, 3, segment(t, false, 22, 5432, packet.SYN)),
		icmpAbout(t, 1, segment(t, true, 22, 5432, packet.SYN)),
	} {
		for n := range len(b) + 1 {
			if answers(b[:n]) > 0 || sent(b[:n]) > 0 {
				t.Errorf("%d bytes of %x pass", n, b)
			}
		}
	}
}

func TestWhatPassesIsCutToWhatIsRead(t *testing.T) {
	all := samples(t)
	about := icmpAbout(t, 3, segment(t, false, 61003, 5432, packet.SYN))
	all["an error with every option there is room for"] = sample{filter: answerFilter, packet: withOptions(withOptions(about, 28, 40), 0, 40)}
	for name, s := range all {
		if got := running(t, s.filter, ourPorts)(s.packet); got < len(s.packet) {
			t.Errorf("%s: %d of %d bytes pass, and all of them are headers", name, got, len(s.packet))
		}
	}
	long := append(segment(t, false, 5432, 61003, packet.ACK), make([]byte, 1400)...)
	if got := running(t, answerFilter, ourPorts)(long); got != snapLen {
		t.Errorf("%d bytes of %d pass, want %d", got, len(long), snapLen)
	}
}

func TestAnyRangeOfPortsCanBeFiltered(t *testing.T) {
	for _, tt := range []struct {
		name   string
		ports  PortRange
		passes []uint16
		not    []uint16
	}{
		{"a single port", PortRange{443, 443}, []uint16{443}, []uint16{442, 444, 0, 65535}},
		{"every port", PortRange{0, 65535}, []uint16{0, 1, 443, 65535}, nil},
		{"up to the highest", PortRange{65000, 65535}, []uint16{65000, 65535}, []uint16{64999, 0}},
		{"from the lowest", PortRange{0, 1}, []uint16{0, 1}, []uint16{2, 65535}},
		{"a range that runs backwards has none", PortRange{2, 1}, nil, []uint16{0, 1, 2, 3}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			answers, sent := running(t, answerFilter, tt.ports), running(t, sentFilter, tt.ports)
			for _, v6 := range []bool{false, true} {
				for _, port := range tt.passes {
					if answers(segment(t, v6, 9, port, packet.RST)) == 0 || sent(segment(t, v6, port, 9, packet.SYN)) == 0 {
						t.Errorf("port %d does not pass", port)
					}
				}
				for _, port := range tt.not {
					if answers(segment(t, v6, 9, port, packet.RST)) > 0 || sent(segment(t, v6, port, 9, packet.SYN)) > 0 {
						t.Errorf("port %d passes", port)
					}
				}
			}
		})
	}
}

// reader reads fields at fixed offsets; beyond the end there is none.
type reader struct {
	b     []byte
	short bool
}

func (r *reader) byte(at int) int {
	if at >= len(r.b) {
		r.short = true
		return 0
	}
	return int(r.b[at])
}

func (r *reader) port(at int) uint16 { return uint16(r.byte(at)<<8 | r.byte(at+1)) }

// tcpAt returns where the TCP header of a packet is, or -1. As the filters do, it
// looks neither at lengths nor behind IPv6 extension headers.
func (r *reader) tcpAt() int {
	switch v := r.byte(0) >> 4; {
	case v == 4 && r.byte(9) == 6:
		return r.byte(0) & 0xf * 4
	case v == 6 && r.byte(6) == 6:
		return 40
	}
	return -1
}

// answering models answerFilter, as the standards put it.
func answering(b []byte, ports PortRange) bool {
	r := &reader{b: b}
	ours := func(port uint16) bool { return !r.short && ports.First <= port && port <= ports.Last }
	v6 := r.byte(0)>>4 == 6
	if !v6 && (r.byte(6)<<8|r.byte(7))&0x1fff != 0 {
		return false // not the first fragment
	}
	if at := r.tcpAt(); at >= 0 {
		return ours(r.port(at + 2))
	}
	if v6 {
		return r.byte(6) == 58 && r.byte(40) < 128 && r.byte(48+6) == 6 && ours(r.port(48+40))
	}
	if r.byte(0)>>4 != 4 || r.byte(9) != 1 {
		return false
	}
	at := r.byte(0) & 0xf * 4
	typ, quote := r.byte(at), at+8
	return (typ == 3 || typ == 11 || typ == 12) && r.byte(quote+9) == 6 && ours(r.port(quote+r.byte(quote)&0xf*4))
}

// sending models sentFilter.
func sending(b []byte, ports PortRange) bool {
	r := &reader{b: b}
	at := r.tcpAt()
	if at < 0 {
		return false
	}
	const fin, syn = 1, 2
	flags, port := r.byte(at+13), r.port(at)
	return flags&(fin|syn) != 0 && !r.short && ports.First <= port && port <= ports.Last
}

// agree fails unless the filters pass what their models do, and whatever the
// parser finds to be an answer.
func agree(t interface{ Fatalf(string, ...any) }, answers, sent func([]byte) int, b []byte, ports PortRange) {
	if got, want := sent(b) > 0, sending(b, ports); got != want {
		t.Fatalf("ports %v: sent %t, want %t: %x", ports, got, want, b)
	}
	got, want := answers(b) > 0, answering(b, ports)
	if got != want {
		t.Fatalf("ports %v: an answer %t, want %t: %x", ports, got, want, b)
	}
	var p packet.Packet
	if got || p.Decode(b) != nil || p.Kind == packet.KindOther {
		return
	}
	within := func(a netip.AddrPort) bool { return ports.First <= a.Port() && a.Port() <= ports.Last }
	// IPv6 extension headers do not occur in answers to a SYN.
	plain := b[0]>>4 == 4 || b[6] == 6 || b[6] == 58 && b[48+6] == 6
	switch {
	case !plain:
	case p.Kind == packet.KindTCP && within(p.TCP.Dst):
		t.Fatalf("ports %v: %v does not pass: %x", ports, &p.TCP, b)
	case p.Kind == packet.KindICMP && within(p.ICMP.Quoted.Src) && p.ICMP.Type != 4: // source quench
		t.Fatalf("ports %v: %v does not pass: %x", ports, &p.ICMP, b)
	}
}

func TestFiltersAndModelsAgreeOnWhateverArrives(t *testing.T) {
	answers, sent := running(t, answerFilter, ourPorts), running(t, sentFilter, ourPorts)
	var bases [][]byte
	all := samples(t)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		bases = append(bases, all[name].packet)
	}
	rapid.Check(t, func(t *rapid.T) {
		b := slices.Clone(rapid.SampledFrom(bases).Draw(t, "packet"))
		for range rapid.IntRange(0, 4).Draw(t, "mutations") {
			at := rapid.IntRange(0, len(b)-1).Draw(t, "at")
			switch rapid.SampledFrom([]string{"set", "flip", "port", "header"}).Draw(t, "mutation") {
			case "set":
				b[at] = rapid.Byte().Draw(t, "byte")
			case "flip":
				b[at] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
			case "port": // the borders matter, wherever they stand
				at = min(at, len(b)-2)
				binary.BigEndian.PutUint16(b[at:], rapid.SampledFrom([]uint16{60999, 61000, 61255, 61256}).Draw(t, "port"))
			case "header": // what tells kinds of packets apart
				at = rapid.SampledFrom([]int{0, 6, 7, 9, 20, 28, 37, 40, 48, 54}).Draw(t, "field")
				if at < len(b) {
					b[at] = rapid.SampledFrom([]byte{0x45, 0x46, 0x4f, 0x40, 0x60, 1, 2, 3, 6, 11, 12, 58, 127, 128}).Draw(t, "value")
				}
			}
		}
		agree(t, answers, sent, b[:rapid.IntRange(0, len(b)).Draw(t, "length")], ourPorts)
	})
}

func FuzzFilters(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte, first, last uint16) {
		ports := PortRange{first, last}
		agree(t, running(t, answerFilter, ports), running(t, sentFilter, ports), b, ports)
	})
}

func TestAJumpTooFarIsNotAssembled(t *testing.T) {
	var p program
	p.jump(bpf.JumpEqual, 1, "far", "")
	for range 256 {
		p.add(bpf.LoadConstant{})
	}
	p.label("far")
	p.add(bpf.RetConstant{})
	if _, err := p.assemble(); err == nil || err.Error() != `filter: no jump from 0 to "far"` {
		t.Errorf("a jump over 256 instructions: %v", err)
	}
	p = program{}
	p.label("back")
	p.add(bpf.LoadConstant{})
	p.jump(bpf.JumpEqual, 1, "", "back")
	if _, err := p.assemble(); err == nil || err.Error() != `filter: no jump from 1 to "back"` {
		t.Errorf("a jump backwards: %v", err)
	}
	p = program{}
	p.jump(bpf.JumpEqual, 1, "nowhere", "")
	if _, err := p.assemble(); err == nil || err.Error() != `filter: no jump from 0 to "nowhere"` {
		t.Errorf("a jump to a label that is not there: %v", err)
	}
}
