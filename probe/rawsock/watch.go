package rawsock

import "golang.org/x/net/bpf"

// Seen is a packet that left this host or came to it.
type Seen struct {
	// Stamp is the kernel's time of it, in nanoseconds since 1970; 0 if it has none.
	Stamp int64
	// Outgoing says that this host sent it.
	Outgoing bool
	// Interface is the index of the device where it was seen.
	Interface int
	// Device is its name, or its number if it has gone.
	Device string
	// Data starts at the IP header and may be cut short, at 256 bytes. It is valid
	// during the call that hands it over.
	Data []byte
}

// What Linux says of a packet besides its bytes (linux/if_arp.h, linux/if_packet.h).
const (
	loopbackDevice = 772 // ARPHRD_LOOPBACK
	outgoingPacket = 4   // PACKET_OUTGOING
)

// watchFilter passes TCP from and to the ports, and ICMP errors that quote
// such. A loopback device shows every packet as it leaves and as it comes in:
// what is from the ports passes as it leaves, and the rest as it comes in.
func watchFilter(ports PortRange) ([]bpf.RawInstruction, error) {
	var p program
	p.add(bpf.LoadAbsolute{Off: 0, Size: 1})
	p.add(bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 4})
	p.jump(bpf.JumpEqual, 4, "v4", "")
	p.jump(bpf.JumpEqual, 6, "v6", "drop")

	p.label("v4")
	p.add(bpf.LoadAbsolute{Off: 6, Size: 2})
	p.jump(bpf.JumpBitsSet, 0x1fff, "drop", "")
	p.add(bpf.LoadMemShift{Off: 0}) // X = length of the IP header
	p.add(bpf.LoadAbsolute{Off: 9, Size: 1})
	p.jump(bpf.JumpEqual, 6, "tcp", "")
	p.jump(bpf.JumpEqual, 1, "", "drop")
	p.add(bpf.LoadIndirect{Off: 0, Size: 1})
	p.jump(bpf.JumpEqual, 3, "quote4", "") // destination unreachable
	p.jump(bpf.JumpEqual, 11, "quote4", "")
	p.jump(bpf.JumpEqual, 12, "quote4", "drop")
	p.label("quote4")
	p.add(bpf.LoadIndirect{Off: 8 + 9, Size: 1})
	p.jump(bpf.JumpEqual, 6, "", "drop")
	p.add(bpf.LoadIndirect{Off: 8, Size: 1})
	p.add(bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xf})
	p.add(bpf.ALUOpConstant{Op: bpf.ALUOpShiftLeft, Val: 2})
	p.add(bpf.ALUOpX{Op: bpf.ALUOpAdd})
	p.add(bpf.TAX{})
	p.add(bpf.LoadIndirect{Off: 8, Size: 2})
	p.ports(ports, "came", "quoted to 4")
	p.label("quoted to 4")
	p.add(bpf.LoadIndirect{Off: 8 + 2, Size: 2})
	p.ports(ports, "came", "drop")

	p.label("v6")
	p.add(bpf.LoadConstant{Dst: bpf.RegX, Val: 40})
	p.add(bpf.LoadAbsolute{Off: 6, Size: 1})
	p.jump(bpf.JumpEqual, 6, "tcp", "")
	p.jump(bpf.JumpEqual, 58, "", "drop")
	p.add(bpf.LoadAbsolute{Off: 40, Size: 1})
	p.jump(bpf.JumpLessThan, 128, "", "drop") // errors, RFC 4443 section 2.1
	p.add(bpf.LoadAbsolute{Off: 48 + 6, Size: 1})
	p.jump(bpf.JumpEqual, 6, "", "drop")
	p.add(bpf.LoadAbsolute{Off: 48 + 40, Size: 2})
	p.ports(ports, "came", "quoted to 6")
	p.label("quoted to 6")
	p.add(bpf.LoadAbsolute{Off: 48 + 40 + 2, Size: 2})
	p.ports(ports, "came", "drop")

	p.label("tcp")
	p.add(bpf.LoadIndirect{Off: 0, Size: 2})
	p.ports(ports, "left", "tcp to")
	p.label("tcp to")
	p.add(bpf.LoadIndirect{Off: 2, Size: 2})
	p.ports(ports, "came", "drop")

	p.label("left")
	p.add(bpf.LoadExtension{Num: bpf.ExtLinkLayerType})
	p.jump(bpf.JumpEqual, loopbackDevice, "", "pass")
	p.add(bpf.LoadExtension{Num: bpf.ExtType})
	p.jump(bpf.JumpEqual, outgoingPacket, "pass", "drop")

	p.label("came")
	p.add(bpf.LoadExtension{Num: bpf.ExtLinkLayerType})
	p.jump(bpf.JumpEqual, loopbackDevice, "", "pass")
	p.add(bpf.LoadExtension{Num: bpf.ExtType})
	p.jump(bpf.JumpEqual, outgoingPacket, "drop", "pass")

	p.label("drop")
	p.add(bpf.RetConstant{Val: 0})
	p.label("pass")
	p.add(bpf.RetConstant{Val: snapLen})
	return p.assemble()
}
