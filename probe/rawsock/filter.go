package rawsock

import (
	"fmt"

	"golang.org/x/net/bpf"
)

// snapLen is how much of a packet is captured: an IPv6 header, an ICMPv6
// error, and the quoted IPv6 and TCP headers with all options.
const snapLen = 256

// answerFilter passes what a probe from one of the ports can be answered by,
// seen from the IP header on: TCP to the ports, and ICMP errors that quote TCP
// from them. Fragments other than the first are dropped.
func answerFilter(ports PortRange) ([]bpf.RawInstruction, error) {
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
	p.ports(ports, "pass", "drop")

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
	p.ports(ports, "pass", "drop")

	p.label("tcp")
	p.add(bpf.LoadIndirect{Off: 2, Size: 2})
	p.ports(ports, "pass", "drop")

	p.label("drop")
	p.add(bpf.RetConstant{Val: 0})
	p.label("pass")
	p.add(bpf.RetConstant{Val: snapLen})
	return p.assemble()
}

// sentFilter passes the SYNs and FINs from one of the ports.
func sentFilter(ports PortRange) ([]bpf.RawInstruction, error) {
	var p program
	p.add(bpf.LoadAbsolute{Off: 0, Size: 1})
	p.add(bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 4})
	p.jump(bpf.JumpEqual, 4, "v4", "")
	p.jump(bpf.JumpEqual, 6, "v6", "drop")

	p.label("v4")
	p.add(bpf.LoadMemShift{Off: 0})
	p.add(bpf.LoadAbsolute{Off: 9, Size: 1})
	p.jump(bpf.JumpEqual, 6, "tcp", "drop")

	p.label("v6")
	p.add(bpf.LoadConstant{Dst: bpf.RegX, Val: 40})
	p.add(bpf.LoadAbsolute{Off: 6, Size: 1})
	p.jump(bpf.JumpEqual, 6, "", "drop")

	p.label("tcp")
	p.add(bpf.LoadIndirect{Off: 13, Size: 1})
	p.jump(bpf.JumpBitsSet, 0x03, "", "drop") // FIN, SYN
	p.add(bpf.LoadIndirect{Off: 0, Size: 2})
	p.ports(ports, "pass", "drop")

	p.label("drop")
	p.add(bpf.RetConstant{Val: 0})
	p.label("pass")
	p.add(bpf.RetConstant{Val: snapLen})
	return p.assemble()
}

// program is a filter whose jumps go to labels; "" is the next instruction.
type program struct {
	steps  []step
	labels map[string]int
}

type step struct {
	ins     bpf.Instruction
	yes, no string
}

func (p *program) add(ins bpf.Instruction) { p.steps = append(p.steps, step{ins: ins}) }

func (p *program) jump(cond bpf.JumpTest, val uint32, yes, no string) {
	p.steps = append(p.steps, step{bpf.JumpIf{Cond: cond, Val: val}, yes, no})
}

func (p *program) ports(r PortRange, yes, no string) {
	p.jump(bpf.JumpGreaterOrEqual, uint32(r.First), "", no)
	p.jump(bpf.JumpGreaterThan, uint32(r.Last), no, yes)
}

func (p *program) label(name string) {
	if p.labels == nil {
		p.labels = make(map[string]int)
	}
	p.labels[name] = len(p.steps)
}

func (p *program) assemble() ([]bpf.RawInstruction, error) {
	out := make([]bpf.Instruction, len(p.steps))
	for i, s := range p.steps {
		j, ok := s.ins.(bpf.JumpIf)
		if !ok {
			out[i] = s.ins
			continue
		}
		var err error
		if j.SkipTrue, err = p.skip(i, s.yes); err != nil {
			return nil, err
		}
		if j.SkipFalse, err = p.skip(i, s.no); err != nil {
			return nil, err
		}
		out[i] = j
	}
	return bpf.Assemble(out)
}

func (p *program) skip(from int, name string) (uint8, error) {
	if name == "" {
		return 0, nil
	}
	to, ok := p.labels[name]
	if n := to - from - 1; ok && n >= 0 && n <= 255 {
		return uint8(n), nil
	}
	return 0, fmt.Errorf("filter: no jump from %d to %q", from, name)
}
