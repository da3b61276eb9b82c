package engine

import (
	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/probe/packet"
	"github.com/synmesh/synmesh/probe/rawsock"
)

// receive matches packets until the capture is closed.
func (e *Engine) receive() error {
	var p packet.Packet
	for {
		frames, err := e.capture.Read()
		if err != nil {
			return err
		}
		e.handle(frames, e.capture.Drops(), &p)
	}
}

func (e *Engine) handle(frames []rawsock.Frame, drops uint64, p *packet.Packet) {
	now := e.clock()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stats.Drops = drops
	for i := range frames {
		if p.Decode(frames[i].Data) != nil {
			e.stats.Strays++
			continue
		}
		switch {
		case frames[i].Outgoing:
			if p.Kind == packet.KindTCP {
				e.departed(&p.TCP, frames[i].Stamp)
			}
		case p.Kind == packet.KindTCP:
			if f, a := e.matchTCP(&p.TCP); f != nil {
				e.arrived(f, a, &frames[i], now)
			}
		case p.Kind == packet.KindICMP:
			if f, a := e.matchICMP(&p.ICMP); f != nil {
				e.arrived(f, a, &frames[i], now)
			}
		}
	}
	if len(e.answered) > 0 {
		e.settle()
	}
}

// matchTCP returns the flight that a segment answers and what it says, or nil.
func (e *Engine) matchTCP(s *packet.Segment) (*flight, answer) {
	var a answer
	switch s.Flags & (packet.SYN | packet.ACK | packet.RST) {
	case packet.SYN | packet.ACK:
		a.outcome, a.synAck = probe.Open, synAckOf(s)
	case packet.RST | packet.ACK:
		a.outcome = probe.Closed
	case packet.SYN:
		return nil, a // on the loopback, our own on its way in
	default:
		e.stats.Strays++
		return nil, a
	}
	f := e.table[s.Ack-1]
	if f == nil || f.local != s.Dst.Port() || f.target.plain != s.Src || f.target.src != s.Dst.Addr() {
		e.stats.Strays++
		return nil, a
	}
	return f, a
}

// matchICMP does the same for an ICMP error. Those that tell of a smaller MTU
// are none about a SYN's fate.
func (e *Engine) matchICMP(m *packet.ICMPError) (*flight, answer) {
	a := answer{outcome: probe.Unreachable, icmp: probe.ICMP{Type: m.Type, Code: m.Code, From: m.From}}
	q := &m.Quoted
	f := e.table[q.Seq]
	if m.MTU != 0 || f == nil || f.local != q.Src.Port() || f.target.plain != q.Dst || f.target.src != q.Src.Addr() {
		e.stats.Strays++
		return nil, a
	}
	return f, a
}

// arrived notes an answer. The first counts: where a packet is seen on several
// devices, that is the one nearest to the wire.
func (e *Engine) arrived(f *flight, a answer, frame *rawsock.Frame, now reading) {
	if f.answer.outcome != 0 {
		e.stats.Duplicates++
		return
	}
	a.stamp, a.read, a.drops = frame.Stamp, now, e.stats.Drops
	f.answer = a
	e.answered = append(e.answered, f)
}

// departed notes when a SYN left. The last time counts: where it passes
// several devices, that is the one nearest to the wire.
func (e *Engine) departed(s *packet.Segment, stamp int64) {
	if f := e.table[s.Seq]; f != nil && f.local == s.Src.Port() {
		f.sent = stamp
	}
}

// settle takes in the transmit stamps that are waiting and completes the
// flights of which both stamps are known. Nothing wakes up for a stamp: they
// are read, in batches, when an answer asks for them. The lock is held.
func (e *Engine) settle() {
	e.readStamps()
	waiting := e.answered[:0]
	for _, f := range e.answered {
		switch {
		case f.done: // has expired
		case f.sent == 0:
			waiting = append(waiting, f)
		default:
			e.complete(f)
		}
	}
	clear(e.answered[len(waiting):])
	e.answered = waiting
}

// readStamps takes in the transmit stamps that are waiting. The lock is held.
func (e *Engine) readStamps() {
	if e.cfg.Stamping != Quiet {
		return
	}
	for _, s := range e.senders {
		if s == nil {
			continue
		}
		var seg packet.Segment
		err := s.Stamps(func(stamp int64, sent []byte) {
			if seg.DecodeTail(sent, synLen) == nil {
				e.departed(&seg, stamp)
			}
		})
		if err != nil {
			e.cfg.Logger.Warn("transmit stamps are lost", "reason", err)
		}
	}
}

func synAckOf(s *packet.Segment) probe.SynAck {
	a := probe.SynAck{
		Seq: s.Seq, Window: s.Window, MSS: s.Options.MSS, WindowScale: -1,
		SACKPermitted: s.Options.SACKPermitted, Timestamps: s.Options.Timestamps, TTL: s.TTL,
	}
	if s.Options.HasWindowScale {
		a.WindowScale = int8(min(s.Options.WindowScale, 14)) // RFC 7323 section 2.3
	}
	return a
}
