package packet

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/go-cmp/cmp"
	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// The peer is google/gopacket: an independent decoder and encoder.

// testingT is what *testing.T and *rapid.T have in common.
type testingT interface {
	Helper()
	Errorf(format string, args ...any)
	Fatal(args ...any)
}

func isV6(b []byte) bool { return len(b) > 0 && b[0]>>4 == 6 }

// peerDecodes returns the segment as the peer reads it, or false if it does not
// read one.
func peerDecodes(b []byte) (Segment, bool) {
	first := layers.LayerTypeIPv4
	if isV6(b) {
		first = layers.LayerTypeIPv6
	}
	p := gopacket.NewPacket(b, first, gopacket.NoCopy)
	l, _ := p.Layer(layers.LayerTypeTCP).(*layers.TCP)
	if l == nil || p.ErrorLayer() != nil {
		return Segment{}, false // it keeps a layer that it could not read to its end
	}
	s := peerSegment(l)
	switch ip := p.NetworkLayer().(type) {
	case *layers.IPv4:
		s.setIP(&ipHeader{src: addr(ip.SrcIP), dst: addr(ip.DstIP), ttl: ip.TTL, tos: ip.TOS})
	case *layers.IPv6:
		s.setIP(&ipHeader{src: addr(ip.SrcIP), dst: addr(ip.DstIP), ttl: ip.HopLimit, tos: ip.TrafficClass})
	default:
		return Segment{}, false
	}
	s.Src = netip.AddrPortFrom(s.Src.Addr(), uint16(l.SrcPort))
	s.Dst = netip.AddrPortFrom(s.Dst.Addr(), uint16(l.DstPort))
	return s, true
}

func addr(b []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(b)
	return a
}

// peerSegment takes over what a TCP layer says.
func peerSegment(l *layers.TCP) Segment {
	s := Segment{Seq: l.Seq, Ack: l.Ack, Window: l.Window, Urgent: l.Urgent, Payload: l.Payload}
	for i, set := range []bool{l.FIN, l.SYN, l.RST, l.PSH, l.ACK, l.URG, l.ECE, l.CWR} {
		if set {
			s.Flags |= 1 << i
		}
	}
	o := &s.Options
	for _, x := range l.Options {
		switch v := x.OptionData; {
		case x.OptionType == layers.TCPOptionKindMSS && len(v) == 2:
			o.HasMSS, o.MSS = true, binary.BigEndian.Uint16(v)
		case x.OptionType == layers.TCPOptionKindWindowScale && len(v) == 1:
			o.HasWindowScale, o.WindowScale = true, v[0]
		case x.OptionType == layers.TCPOptionKindSACKPermitted && len(v) == 0:
			o.SACKPermitted = true
		case x.OptionType == layers.TCPOptionKindTimestamps && len(v) == 8:
			o.Timestamps = true
			o.TSVal, o.TSEcr = binary.BigEndian.Uint32(v), binary.BigEndian.Uint32(v[4:])
		case x.OptionType == layers.TCPOptionKindSACK && len(v)%8 == 0 && len(v) > 0:
			o.SACK, o.SACKCount = [4]SACKBlock{}, uint8(len(v)/8)
			for i := range len(v) / 8 {
				o.SACK[i] = SACKBlock{binary.BigEndian.Uint32(v[8*i:]), binary.BigEndian.Uint32(v[8*i+4:])}
			}
		}
	}
	return s
}

// agreesWithPeer fails unless the peer reads b as we do.
func agreesWithPeer(t testingT, b []byte, s *Segment) {
	t.Helper()
	peer, ok := peerDecodes(b)
	if !ok {
		t.Errorf("the peer sees no TCP in %x", b)
		return
	}
	ours := *s
	ours.Missing = 0
	if d := cmp.Diff(peer, ours, same); d != "" {
		t.Errorf("peer and ours differ (-peer +ours) on %x:\n%s", b, d)
	}
}

// peerEncodes writes the segment with the peer, whose lengths and checksums are
// its own. The options are the bytes out of ours, as their layout is a choice.
func peerEncodes(t testingT, s *Segment, ours []byte) []byte {
	l := &layers.TCP{
		SrcPort: layers.TCPPort(s.Src.Port()), DstPort: layers.TCPPort(s.Dst.Port()),
		Seq: s.Seq, Ack: s.Ack, Window: s.Window, Urgent: s.Urgent,
		FIN: s.Flags&FIN != 0, SYN: s.Flags&SYN != 0, RST: s.Flags&RST != 0, PSH: s.Flags&PSH != 0,
		ACK: s.Flags&ACK != 0, URG: s.Flags&URG != 0, ECE: s.Flags&ECE != 0, CWR: s.Flags&CWR != 0,
	}
	header := ipv4Len
	if isV6(ours) {
		header = ipv6Len
	}
	end := header + int(ours[header+12]>>4)*4
	for o := ours[header+tcpLen : end]; len(o) > 0 && o[0] != optEnd; {
		size := 1
		if o[0] != optNOP {
			size = int(o[1])
		}
		x := layers.TCPOption{OptionType: layers.TCPOptionKind(o[0]), OptionLength: uint8(size)}
		if size > 2 {
			x.OptionData = o[2:size]
		}
		l.Options = append(l.Options, x)
		o = o[size:]
	}
	var ip gopacket.SerializableLayer
	if isV6(ours) {
		v6 := &layers.IPv6{
			Version: 6, TrafficClass: s.TOS, HopLimit: s.TTL, NextHeader: layers.IPProtocolTCP,
			SrcIP: s.Src.Addr().AsSlice(), DstIP: s.Dst.Addr().AsSlice(),
		}
		_ = l.SetNetworkLayerForChecksum(v6)
		ip = v6
	} else {
		v4 := &layers.IPv4{
			Version: 4, IHL: 5, TOS: s.TOS, TTL: s.TTL, Protocol: layers.IPProtocolTCP, Flags: layers.IPv4DontFragment,
			SrcIP: s.Src.Addr().AsSlice(), DstIP: s.Dst.Addr().AsSlice(),
		}
		_ = l.SetNetworkLayerForChecksum(v4)
		ip = v4
	}
	buf := gopacket.NewSerializeBuffer()
	options := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buf, options, ip, l, gopacket.Payload(s.Payload)); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}
