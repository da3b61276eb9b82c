package main

import (
	"encoding/json"
	"net/netip"
	"sync"
	"time"

	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/probe/packet"
	"github.com/synmesh/synmesh/probe/record"
)

// trace is one handshake as it is seen from this host.
type trace struct {
	app      *app
	absolute bool
	result   probe.Result

	mu     sync.Mutex // guards the rest
	hops   []hop
	ours   side
	theirs side
	more   int   // hops that found no room
	failed error // of writing
}

// maxHops bounds what is kept and shown: a handshake takes seven, and a target
// may go on talking.
const maxHops = 200

// side is what one end has said of itself.
type side struct {
	spoken bool
	isn    uint32
	scale  uint8
	scales bool // it sent the window scale option
}

// hop is one packet of the handshake. With an ICMP error, the segment is what
// that one quotes.
type hop struct {
	number   int
	time     time.Time
	since    time.Duration // the first SYN
	delta    time.Duration // from the hop before
	outgoing bool
	device   string
	segment  packet.Segment
	length   int
	icmp     *packet.ICMPError

	// relative numbers, where it is known from what they count.
	seq, ack   uint32
	seqs, acks bool
	window     int // in bytes
	scaled     bool
}

func (h *hop) is(flags packet.Flags) bool {
	return h.icmp == nil && h.segment.Flags&(packet.SYN|packet.ACK|packet.FIN|packet.RST) == flags
}

// add takes in a packet, and shows it if that is done one by one.
func (t *trace) add(p *record.Packet) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.hops) == maxHops {
		t.more++
		return
	}
	h := hop{number: len(t.hops) + 1, time: p.Time, outgoing: p.Outgoing, device: p.Device, segment: p.TCP}
	if p.Kind == packet.KindICMP {
		icmp := p.ICMP
		h.icmp, h.segment = &icmp, icmp.Quoted
	}
	h.length = len(h.segment.Payload) + h.segment.Missing
	h.segment.Payload, h.segment.Missing = nil, 0 // valid during the call only
	if len(t.hops) > 0 {
		h.since, h.delta = p.Time.Sub(t.hops[0].time), p.Time.Sub(t.hops[len(t.hops)-1].time)
	}
	t.place(&h)
	t.hops = append(t.hops, h)
	t.show(&h)
}

// place learns from a hop where each side's numbers begin, and counts from there.
func (t *trace) place(h *hop) {
	s := &h.segment
	h.window = int(s.Window)
	from, to := &t.theirs, &t.ours
	if h.outgoing != (h.icmp != nil) { // what an error quotes went the other way
		from, to = to, from
	}
	if s.Flags&packet.SYN != 0 && h.icmp == nil {
		*from = side{spoken: true, isn: s.Seq, scale: min(s.Options.WindowScale, 14), scales: s.Options.HasWindowScale}
	} else if from.scales && to.scales && h.icmp == nil {
		h.window, h.scaled = int(s.Window)<<from.scale, true
	}
	if h.seqs = from.spoken && near(s.Seq, from.isn); h.seqs {
		h.seq = s.Seq - from.isn
	}
	if h.acks = to.spoken && s.Flags&packet.ACK != 0 && near(s.Ack, to.isn); h.acks {
		h.ack = s.Ack - to.isn
	}
}

// near tells whether a number belongs to the connection: other numbers would
// only look meaningful if they were counted from its beginning.
func near(n, isn uint32) bool { return n-isn < 1<<24 }

// MarshalJSON writes the hop as -o json shows it. Programs read this shape.
func (h hop) MarshalJSON() ([]byte, error) {
	s := &h.segment
	type options struct {
		MSS           *uint16 `json:"mss,omitempty"`
		WindowScale   *uint8  `json:"window_scale,omitempty"`
		SACKPermitted bool    `json:"sack_permitted,omitempty"`
		TSVal         *uint32 `json:"ts_val,omitempty"`
		TSEcr         *uint32 `json:"ts_ecr,omitempty"`
	}
	type icmp struct {
		Type uint8      `json:"type"`
		Code uint8      `json:"code"`
		From netip.Addr `json:"from"`
		Says string     `json:"says"`
	}
	v := struct {
		Number      int            `json:"number"`
		Time        time.Time      `json:"time"`
		Since       float64        `json:"since_syn_seconds"`
		Delta       float64        `json:"delta_seconds"`
		Direction   string         `json:"direction"`
		Device      string         `json:"interface"`
		Source      netip.AddrPort `json:"source"`
		Destination netip.AddrPort `json:"destination"`
		Flags       string         `json:"flags"`
		Seq         uint32         `json:"seq"`
		Ack         *uint32        `json:"ack,omitempty"`
		RelativeSeq *uint32        `json:"relative_seq,omitempty"`
		RelativeAck *uint32        `json:"relative_ack,omitempty"`
		Window      uint16         `json:"window"`
		WindowBytes int            `json:"window_bytes"`
		Length      int            `json:"length"`
		TTL         uint8          `json:"ttl"`
		Options     options        `json:"options"`
		ICMP        *icmp          `json:"icmp,omitempty"`
	}{
		Number: h.number, Time: h.time.UTC(), Since: h.since.Seconds(), Delta: h.delta.Seconds(), Direction: "in", Device: h.device,
		Source: s.Src, Destination: s.Dst, Flags: s.Flags.String(), Seq: s.Seq, Window: s.Window, WindowBytes: h.window, Length: h.length, TTL: s.TTL,
	}
	if h.outgoing {
		v.Direction = "out"
	}
	if s.Flags&packet.ACK != 0 {
		v.Ack = &s.Ack
	}
	if h.seqs {
		v.RelativeSeq = &h.seq
	}
	if h.acks {
		v.RelativeAck = &h.ack
	}
	o := &s.Options
	if o.HasMSS {
		v.Options.MSS = &o.MSS
	}
	if o.HasWindowScale {
		v.Options.WindowScale = &o.WindowScale
	}
	v.Options.SACKPermitted = o.SACKPermitted
	if o.Timestamps {
		v.Options.TSVal, v.Options.TSEcr = &o.TSVal, &o.TSEcr
	}
	if h.icmp != nil {
		v.ICMP = &icmp{h.icmp.Type, h.icmp.Code, h.icmp.From, h.icmp.Reason()}
	}
	return json.Marshal(v)
}
