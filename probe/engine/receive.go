package engine

import (
	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/probe/packet"
	"github.com/synmesh/synmesh/probe/rawsock"
)

// receive matches packets until the capture is closed.
func (e *Engine) receive() error {
	for {
		if err := e.capture.Wait(e.awaits()); err != nil {
			return err
		}
		if err := e.capture.Take(e.handle); err != nil {
			return err
		}
	}
}

// awaits tells whether any probe has not been answered yet.
func (e *Engine) awaits() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.table) > 0
}

// handle takes in packets; the capture calls it for one batch at a time.
func (e *Engine) handle(frames []rawsock.Frame, drops uint64) {
	p := &e.packet
	now := e.clock()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stats.Drops = drops
	for i := range frames {
		if p.Decode(frames[i].Data) != nil {
			e.stats.Strays++
			continue
		}
		switch p.Kind {
		case packet.KindTCP:
			e.takeTCP(&p.TCP, &frames[i], now)
		case packet.KindICMP:
			e.takeICMP(&p.ICMP, &frames[i], now)
		}
	}
	if len(e.answered) > 0 {
		e.settle()
	}
}

// takeTCP finds the flight that a segment is for. A SYN-ACK with timestamps
// echoes that of our SYN (RFC 7323 section 3.2), so one that echoes what none of the
// flight's SYNs had is not the target's. One that echoes 0 says what a stack
// says that has nothing to echo, against the RFC, and is taken as if it had no timestamps:
// refused, an open port would be reported as silent, and a forger who cannot
// guess our timestamp would only leave the option out.
func (e *Engine) takeTCP(s *packet.Segment, frame *rawsock.Frame, now reading) {
	if f := e.conns[pair{s.Dst.Port(), s.Src}]; f != nil && f.conn.state != connNone {
		before := f.conn
		f.hears(s, frame.Stamp)
		if f.conn != before {
			e.hand(f)
		}
		return
	}
	var a answer
	switch s.Flags & (packet.SYN | packet.ACK | packet.RST) {
	case packet.SYN | packet.ACK:
		a.outcome, a.synAck, a.tsval = probe.Open, synAckOf(s), s.Options.TSVal
	case packet.RST | packet.ACK:
		a.outcome = probe.Closed
	case packet.SYN:
		return // on the loopback, our own on its way in
	case packet.ACK:
		e.stats.Challenges++
		e.challenge(pair{s.Dst.Port(), s.Src}, now.mono)
		return
	}
	f := e.table[s.Ack-1]
	if a.outcome == 0 || f == nil || f.local != s.Dst.Port() || f.target.plain != s.Src || f.way.src != s.Dst.Addr() {
		e.stats.Strays++
		return
	}
	if s.Options.Timestamps {
		a.to = f.named(s.Options.TSEcr)
	}
	if a.outcome == probe.Open && a.to == 0 && s.Options.Timestamps && s.Options.TSEcr != 0 {
		e.stats.Strays++
		return
	}
	e.arrived(f, a, frame, now)
}

// named returns which SYN of the flight has the timestamp, counted from 1, or 0.
func (f *flight) named(tsval uint32) int {
	for i := range f.syns {
		if f.syns[i].tsval == tsval {
			return i + 1
		}
	}
	return 0
}

// takeICMP finds the flight that an ICMP error is about. Those that tell of a
// smaller MTU are none about a SYN's fate.
func (e *Engine) takeICMP(m *packet.ICMPError, frame *rawsock.Frame, now reading) {
	q := &m.Quoted
	f := e.table[q.Seq]
	if m.MTU != 0 || f == nil || f.local != q.Src.Port() || f.target.plain != q.Dst || f.way.src != q.Src.Addr() {
		e.stats.Strays++
		return
	}
	a := answer{outcome: probe.Unreachable, icmp: probe.ICMP{Type: m.Type, Code: m.Code, From: m.From}}
	if q.Options.Timestamps {
		a.to = f.named(q.Options.TSVal)
	}
	e.arrived(f, a, frame, now)
}

// arrived notes an answer. The first counts: where a packet is seen on several
// devices, that is the one nearest to the wire.
func (e *Engine) arrived(f *flight, a answer, frame *rawsock.Frame, now reading) {
	if f.answer.outcome != 0 {
		e.stats.Duplicates++
		return
	}
	a.stamp, a.hardware, a.read, a.drops = frame.Stamp, frame.Hardware, now, e.stats.Drops
	f.answer = a
	e.answered = append(e.answered, f)
}

// departed notes when a SYN or a FIN left. The last time counts: where it passes
// several devices, that is the one nearest to the wire. It tells what is ours,
// and what has its stamp for the first time. One by a device comes apart from the
// kernel's, and later; that of a FIN is of no use.
func (e *Engine) departed(s *packet.Segment, stamp, hardware int64) (ours, first bool) {
	isn := s.Seq
	if s.Flags&packet.FIN != 0 {
		isn--
	}
	f := e.table[isn]
	if f == nil || f.local != s.Src.Port() || f.target.plain.Port() != s.Dst.Port() {
		return false, false
	}
	if s.Flags&packet.FIN != 0 {
		first = f.conn.finSent == 0 && stamp != 0
		if first { // of several copies, the one that asked first
			f.conn.finSent = stamp
		}
		return true, first
	}
	n := f.named(s.Options.TSVal)
	if n == 0 {
		return false, false
	}
	if hardware != 0 {
		f.syns[n-1].hardware = hardware
	}
	if stamp == 0 {
		return true, false
	}
	first = f.syns[n-1].sent == 0
	f.syns[n-1].sent = stamp
	return true, first
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
		case f.answered().sent == 0 && f.answer.outcome != probe.Unreachable:
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
	var seg packet.Segment
	for _, s := range e.stamps {
		if s.awaited.Load() <= 0 {
			continue // spares a system call
		}
		err := s.source.Stamps(func(stamp, hardware int64, sent []byte) {
			// A header says how long it is, but where it begins has to be tried:
			// other bytes may look like one, but not like one of a flight.
			for _, size := range tailLens {
				if seg.DecodeTail(sent, size) != nil {
					continue
				}
				if ours, first := e.departed(&seg, stamp, hardware); ours {
					if first {
						s.awaited.Add(-1)
					}
					return
				}
			}
		})
		if err != nil {
			e.cfg.Logger.Warn("transmit stamps are lost", "reason", err)
		}
		if len(e.table) == 0 {
			s.awaited.Store(0) // what else there was is nobody's
		}
	}
}

// tailLens are how long the headers of our SYNs are, and those of our FINs,
// with timestamps and without.
var tailLens = [...]int{synLen, 32, 20}

func synAckOf(s *packet.Segment) probe.SynAck {
	a := probe.SynAck{
		Seq: s.Seq, Window: s.Window, MSS: s.Options.MSS, WindowScale: -1,
		SACKPermitted: s.Options.SACKPermitted, Timestamps: s.Options.Timestamps, TTL: s.TTL,
		ECN: s.Flags&(packet.ECE|packet.CWR) == packet.ECE,
	}
	if s.Options.HasWindowScale {
		a.WindowScale = int8(min(s.Options.WindowScale, 14)) // RFC 7323 section 2.3
	}
	return a
}
