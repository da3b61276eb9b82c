package main

import (
	"strings"
	"testing"
	"time"

	"github.com/synmesh/synmesh/probe/packet"
)

func TestEveryEndOfAConnectionIsExplained(t *testing.T) {
	const synAck, finAck = packet.SYN | packet.ACK, packet.FIN | packet.ACK
	type said struct {
		out      bool
		flags    packet.Flags
		seq, ack uint32
	}
	opened := []said{{true, packet.SYN, 0, 0}, {false, synAck, 0, 1}, {true, packet.ACK, 1, 1}}
	for _, tt := range []struct {
		name string
		then []said
		want []string // how the lines begin, behind the handshake
	}{
		{"the target's FIN is in its ACK", []said{{true, finAck, 1, 1}, {false, finAck, 1, 2}, {true, packet.ACK, 2, 2}},
			[]string{"FIN: ", "ACK of our FIN after 1.000ms; FIN: the target closes", "ACK of their FIN: closed; we closed first"}},
		{"both close at once", []said{{true, finAck, 1, 1}, {false, finAck, 1, 1}, {true, packet.ACK, 2, 2}, {false, packet.ACK, 2, 2}},
			[]string{"FIN: ", "FIN: the target closes", "ACK of their FIN", "ACK of our FIN after 3.000ms: closed; both closed at once"}},
		{"the target closes first", []said{{false, finAck, 1, 1}, {true, finAck, 1, 2}, {false, packet.ACK, 2, 2}},
			[]string{"FIN: the target closes", "FIN: ", "ACK of our FIN after 1.000ms: closed; the target closed first"}},
		{"the target resets", []said{{true, finAck, 1, 1}, {false, packet.RST, 1, 0}},
			[]string{"FIN: ", "RST: the target gives the connection up"}},
		{"the target is silent", []said{{true, finAck, 1, 1}, {true, packet.RST | packet.ACK, 2, 1}},
			[]string{"FIN: ", "RST: we give the connection up"}},
		{"what was sent is sent again", []said{{false, synAck, 0, 1}, {true, finAck, 1, 1}, {false, finAck, 1, 2}, {false, finAck, 1, 2}},
			[]string{"SYN,ACK again: our ACK was late or lost", "FIN: ", "ACK of our FIN", "FIN again: our ACK was late or lost"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var hops []hop
			for i, s := range append(opened[:3:3], tt.then...) {
				hops = append(hops, hop{
					number: i + 1, time: time.UnixMilli(int64(i)), outgoing: s.out, segment: packet.Segment{Flags: s.flags},
					seq: s.seq, ack: s.ack, seqs: true, acks: s.flags&packet.ACK != 0,
				})
			}
			lines := explain(hops)[3:]
			for i, want := range tt.want {
				if i >= len(lines) || !strings.HasPrefix(lines[i][3:], want) {
					t.Fatalf("the lines are\n%s\nwant line %d to begin with %q", strings.Join(lines, "\n"), i, want)
				}
			}
		})
	}
}

func TestAnAnswerToAnotherConnectionIsExplained(t *testing.T) {
	lines := explain([]hop{
		{number: 1, outgoing: true, segment: packet.Segment{Flags: packet.SYN}},
		{number: 2, segment: packet.Segment{Flags: packet.ACK, Ack: 7}},
		{number: 3, outgoing: true, segment: packet.Segment{Flags: packet.RST}},
	})
	if !strings.Contains(lines[1], "does not acknowledge our SYN") || !strings.Contains(lines[2], "RST: our host ends the handshake") {
		t.Errorf("the lines are\n%s", strings.Join(lines, "\n"))
	}
}
