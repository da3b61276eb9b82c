package packet_test

import (
	"fmt"
	"net/netip"

	"github.com/synmesh/synmesh/probe/packet"
)

// A SYN for every transmission out of one template, and the answer to it.
func Example() {
	source := netip.MustParseAddr("192.0.2.1")
	target := netip.MustParseAddrPort("192.0.2.2:443")

	// Once per address to send from.
	syn := packet.LinuxSYN(source, target, 0)
	template, err := packet.NewTemplate(&syn)
	if err != nil {
		fmt.Println(err)
		return
	}

	// Once per transmission, into a buffer that is used again. A raw IP socket
	// puts the IP header in front.
	buf := make([]byte, 0, 64)
	buf = template.Append(buf[:0], 61000, target, 1, 1000)
	fmt.Println(len(buf), "bytes of SYN")

	// An answer, as a packet socket would show it.
	answer := packet.Segment{
		Src: target, Dst: netip.AddrPortFrom(source, 61000),
		Seq: 9, Ack: 2, Flags: packet.SYN | packet.ACK, Window: 65160, TTL: 64,
		Options: packet.Options{HasMSS: true, MSS: 1460, Timestamps: true, TSVal: 7, TSEcr: 1000},
	}
	received, err := packet.AppendIP(nil, &answer)
	if err != nil {
		fmt.Println(err)
		return
	}

	var p packet.Packet // one per reader
	if err := p.Decode(received); err != nil {
		fmt.Println(err)
		return
	}
	if p.Kind == packet.KindTCP {
		fmt.Println(&p.TCP)
	}
	// Output:
	// 40 bytes of SYN
	// 192.0.2.2:443 > 192.0.2.1:61000 [SYN,ACK] seq 9 ack 2 win 65160 <mss 1460, TS val 7 ecr 1000>
}

// An ICMP error names its sender, its reason, and the SYN that it is about.
func ExampleAppendICMP() {
	syn := packet.LinuxSYN(netip.MustParseAddr("192.0.2.1"), netip.MustParseAddrPort("198.51.100.1:443"), 0)
	syn.Src = netip.MustParseAddrPort("192.0.2.1:61000")
	original, err := packet.AppendIP(nil, &syn)
	if err != nil {
		fmt.Println(err)
		return
	}
	unreachable := packet.ICMPError{From: netip.MustParseAddr("192.0.2.254"), Type: 3, Code: 13}
	received, err := packet.AppendICMP(nil, &unreachable, original)
	if err != nil {
		fmt.Println(err)
		return
	}

	var p packet.Packet
	if err := p.Decode(received); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(&p.ICMP)
	// Output:
	// 192.0.2.254 says admin prohibited (type 3, code 13) of 192.0.2.1:61000 > 198.51.100.1:443 seq 0
}
