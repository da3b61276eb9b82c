package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/probe/packet"
)

// inMilliseconds shows a duration in a column that has its unit above.
func inMilliseconds(d time.Duration) string { return strings.TrimSuffix(milliseconds(d), "ms") }

// story is what has been told of a handshake.
type story struct {
	syns             []hop
	synAck, ourFin   *hop
	theirFin         *hop
	completed, acked bool // our handshake; their acknowledgement of our FIN
	theyFirst        bool // their FIN came before ours left
}

// explain says in a line for each hop what it meant.
func explain(hops []hop) []string {
	var s story
	lines := make([]string, len(hops))
	for i := range hops {
		lines[i] = fmt.Sprintf("%2d %s", hops[i].number, s.tell(&hops[i]))
	}
	return lines
}

func (s *story) tell(h *hop) string {
	switch {
	case h.icmp != nil && h.outgoing:
		return fmt.Sprintf("ICMP: our host refuses what came: %s", h.icmp.Reason())
	case h.icmp != nil:
		return fmt.Sprintf("ICMP after %s: our segment got no further, says %s", s.after(h), h.icmp.From)
	case h.outgoing:
		return s.we(h)
	}
	return s.they(h)
}

// we tells what this host's segment meant.
func (s *story) we(h *hop) string {
	switch {
	case h.is(packet.SYN):
		s.syns = append(s.syns, *h)
		if len(s.syns) == 1 {
			return fmt.Sprintf("SYN: asks for a connection; our bytes count from %d", h.segment.Seq)
		}
		return fmt.Sprintf("SYN again after %s without an answer", milliseconds(h.delta))
	case h.segment.Flags&packet.RST != 0:
		if s.completed {
			return "RST: we give the connection up"
		}
		return "RST: our host ends the handshake half-open"
	case h.is(packet.FIN | packet.ACK):
		s.ourFin = h
		return "FIN: we have nothing to say, and close our direction"
	case h.is(packet.ACK) && !s.completed && s.synAck != nil:
		s.completed = true
		return "ACK: completes the handshake; the connection is established"
	case h.is(packet.ACK) && s.theirFin != nil && s.acked:
		return "ACK of their FIN: closed; we closed first, so TIME_WAIT is ours"
	case h.is(packet.ACK) && s.theirFin != nil:
		return "ACK of their FIN"
	case h.is(packet.ACK):
		return "ACK of what the target said"
	}
	return h.segment.Flags.String()
}

// they tells what the target's segment meant.
func (s *story) they(h *hop) string {
	flags := h.segment.Flags
	switch {
	case flags&packet.RST != 0 && s.synAck == nil:
		return fmt.Sprintf("RST after %s: the host is there, and nothing listens on the port", s.after(h))
	case flags&packet.RST != 0:
		return "RST: the target gives the connection up"
	case h.is(packet.SYN|packet.ACK) && s.synAck == nil:
		s.synAck = h
		which := ""
		if n := s.answers(h); n > 0 && len(s.syns) > 1 {
			which = fmt.Sprintf(", to SYN %d of %d", n, len(s.syns))
		}
		return fmt.Sprintf("SYN,ACK after %s%s: the port is open; its bytes count from %d", s.after(h), which, h.segment.Seq)
	case h.is(packet.SYN | packet.ACK):
		return "SYN,ACK again: our ACK was late or lost"
	case s.synAck == nil:
		return fmt.Sprintf("%v: it does not acknowledge our SYN; the target takes it for an older connection's (RFC 5961)", flags)
	}
	var parts []string
	if s.ourFin != nil && !s.acked && flags&packet.ACK != 0 && h.acks && h.ack == s.ourFin.seq+1 {
		s.acked = true
		text := "ACK of our FIN after " + milliseconds(h.time.Sub(s.ourFin.time))
		switch {
		case s.theyFirst:
			text += ": closed; the target closed first, so TIME_WAIT is there"
		case s.theirFin != nil:
			text += ": closed; both closed at once, so TIME_WAIT is on both sides"
		}
		parts = append(parts, text)
	}
	if h.length > 0 {
		parts = append(parts, fmt.Sprintf("%d bytes, which we do not read", h.length))
	}
	if flags&packet.FIN != 0 {
		again := ""
		if s.theirFin != nil {
			again = " again: our ACK was late or lost"
		}
		s.theyFirst = s.theyFirst || s.ourFin == nil
		s.theirFin = h
		parts = append(parts, "FIN"+again+": the target closes its direction")
	}
	if parts == nil {
		return "ACK: the target has what we sent"
	}
	return strings.Join(parts, "; ")
}

// answers returns which SYN the segment names by its timestamp echo, counted
// from 1, or 0.
func (s *story) answers(h *hop) int {
	o := &h.segment.Options
	for i := range s.syns {
		if o.Timestamps && s.syns[i].segment.Options.TSVal == o.TSEcr {
			return i + 1
		}
	}
	return 0
}

// after is the time since the SYN that is answered, as far as that is known, or
// else the last.
func (s *story) after(h *hop) string {
	if len(s.syns) == 0 {
		return milliseconds(h.since)
	}
	n := s.answers(h)
	if n == 0 {
		n = len(s.syns)
	}
	return milliseconds(h.time.Sub(s.syns[n-1].time))
}

// verdict is what the engine has found, in one line.
func verdict(r *probe.Result, spec *probe.Spec) string {
	switch r.Outcome {
	case probe.Open:
		text := "open: round trip " + milliseconds(r.RTT) + " by the kernel's stamps"
		if r.Attempts > 1 {
			text += ", with " + strconv.Itoa(r.Attempts) + " SYNs"
		}
		if r.Close == nil {
			return text
		}
		switch r.Close.Ending {
		case probe.Orderly:
			return text + ", closed in order"
		case probe.Reset:
			return text + ", ended by the target's RST"
		}
		return text + fmt.Sprintf(", not closed by the target within %v", spec.Timeout)
	case probe.Closed:
		return "closed: round trip " + milliseconds(r.RTT) + " by the kernel's stamps"
	case probe.Unreachable:
		return fmt.Sprintf("unreachable: %s, says %s", packet.ICMPReason(r.ICMP.From.Is6(), r.ICMP.Type, r.ICMP.Code), r.ICMP.From)
	case probe.Timeout:
		return fmt.Sprintf("timeout: nothing within %v of the last SYN: the host is down, or a firewall is silent", spec.Timeout)
	}
	return ""
}
