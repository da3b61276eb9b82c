package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"charm.land/lipgloss/v2"

	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/probe/packet"
)

// ladderWidth is the room between the two ends, in columns.
const ladderWidth = 18

var (
	faint  = lipgloss.NewStyle().Faint(true)
	strong = lipgloss.NewStyle().Bold(true)
	alarm  = lipgloss.NewStyle().Foreground(lipgloss.Red)
)

// show shows a hop as soon as it is there, in formats where that can be. The lock is held.
func (t *trace) show(h *hop) {
	var err error
	switch t.app.output {
	case asJSONL:
		err = json.NewEncoder(t.app.out).Encode(h)
	case asTable:
		text := ""
		if h.number == 1 {
			text = t.head(h)
		}
		err = print(t.app.out, rendered(text+t.line(h)))
	}
	if err != nil && t.failed == nil {
		t.failed = fmt.Errorf("write the trace: %w", err)
	}
}

// head says which connection this is, above the columns.
func (t *trace) head(h *hop) string {
	columns := fmt.Sprintf("%2s %8s %8s  %-*s %10s %10s %4s  %s", "#", "TIME/ms", "DELTA/ms", ladderWidth,
		"HERE"+strings.Repeat(" ", ladderWidth-9)+"THERE", "SEQ", "ACK", "LEN", "WINDOW")
	return fmt.Sprintf("%s here, %s there, on %s\n\n%s\n", h.segment.Src, h.segment.Dst, h.device, strong.Render(columns))
}

// line is one rung of the ladder, and below it what else the packet says.
func (t *trace) line(h *hop) string {
	s := &h.segment
	label, window := s.Flags.String(), strconv.Itoa(int(s.Window))
	if h.scaled {
		window += fmt.Sprintf(" (%d)", h.window)
	}
	seq, ack, length := t.number(s.Seq, h.seq, h.seqs && s.Flags&packet.SYN == 0), "", strconv.Itoa(h.length)
	if s.Flags&packet.ACK != 0 {
		ack = t.number(s.Ack, h.ack, h.acks)
	}
	style := lipgloss.NewStyle()
	if h.icmp != nil {
		label, seq, ack, length, window = "ICMP", "", "", "", ""
	}
	if h.icmp != nil || s.Flags&packet.RST != 0 {
		style = alarm
	}
	delta := ""
	if h.number > 1 {
		delta = inMilliseconds(h.delta)
	}
	line := fmt.Sprintf("%2d %8s %8s  %s %10s %10s %4s  %s", h.number, inMilliseconds(h.since), delta,
		style.Render(rung(label, h.outgoing)), seq, ack, length, window)
	return strings.TrimRight(line, " ") + "\n" + faint.Render(strings.Repeat(" ", 6)+h.detail()) + "\n"
}

// detail is what a hop says besides its numbers.
func (h *hop) detail() string {
	if h.icmp != nil {
		return fmt.Sprintf("%s (type %d, code %d), from %s", h.icmp.Reason(), h.icmp.Type, h.icmp.Code, h.icmp.From)
	}
	var parts []string
	if _, options, found := strings.Cut(h.segment.String(), " <"); found {
		options, _, _ = strings.Cut(options, ">")
		parts = append(parts, options)
	}
	if !h.outgoing {
		parts = append(parts, fmt.Sprintf("ttl %d", h.segment.TTL))
	}
	if len(parts) == 0 {
		return "no options"
	}
	return strings.Join(parts, ", ")
}

// number shows a sequence number as it was asked for.
func (t *trace) number(absolute, relative uint32, known bool) string {
	if known && !t.absolute {
		absolute = relative
	}
	return strconv.FormatUint(uint64(absolute), 10)
}

// rung is an arrow with a label in its middle.
func rung(label string, outgoing bool) string {
	room := ladderWidth - 1 - len(label) - 2
	left := strings.Repeat("─", max(0, room/2))
	right := strings.Repeat("─", max(0, room-room/2))
	if outgoing {
		return left + " " + label + " " + right + "▶"
	}
	return "◀" + right + " " + label + " " + left
}

// finish shows what is to be shown at the end.
func (t *trace) finish(spec *probe.Spec) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.failed != nil {
		return t.failed
	}
	switch t.app.output {
	case asJSON, asYAML:
		if t.hops == nil {
			t.hops = []hop{}
		}
		return printValue(t.app.out, t.app.output, t.hops)
	case asTable:
		if len(t.hops) == 0 {
			return nil
		}
		var b strings.Builder
		if t.more > 0 {
			fmt.Fprintf(&b, "   and %d more\n", t.more)
		}
		b.WriteString("\n")
		for _, line := range explain(t.hops) {
			b.WriteString(line + "\n")
		}
		if end := verdict(&t.result, spec); end != "" {
			b.WriteString(strong.Render(end) + "\n")
		}
		return print(t.app.out, rendered(b.String()))
	}
	return nil
}
