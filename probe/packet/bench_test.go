package packet

import (
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// Every benchmark has the peer, google/gopacket used as its own documentation
// advises for speed, beside ours.

func BenchmarkStampSYN(b *testing.B) {
	for _, bb := range []struct {
		name string
		s    Segment
	}{{"v4", syn(src4, dst4)}, {"v6", syn(src6, dst6)}} {
		b.Run(bb.name+"/ours", func(b *testing.B) {
			tmpl, err := NewTemplate(&bb.s)
			if err != nil {
				b.Fatal(err)
			}
			buf := make([]byte, 0, tcpMaxLen)
			b.ReportAllocs()
			n := uint32(0)
			for b.Loop() {
				n++
				buf = tmpl.Append(buf[:0], uint16(n), bb.s.Dst, n, n)
			}
		})
		b.Run(bb.name+"/ours-AppendTCP", func(b *testing.B) {
			s := bb.s
			buf := make([]byte, 0, tcpMaxLen)
			b.ReportAllocs()
			for b.Loop() {
				s.Seq++
				buf, _ = AppendTCP(buf[:0], &s)
			}
		})
		b.Run(bb.name+"/peer", func(b *testing.B) {
			l := peerTCP(b, &bb.s)
			buf := gopacket.NewSerializeBuffer()
			options := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
			b.ReportAllocs()
			for b.Loop() {
				l.Seq++
				_ = buf.Clear()
				if err := l.SerializeTo(buf, options); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	v4, v6 := mustIP(b, synAck(dst4, src4)), mustIP(b, synAck(dst6, src6))
	for _, bb := range []struct {
		name string
		b    []byte
	}{
		{"SYN-ACK-v4", v4},
		{"SYN-ACK-v6", v6},
		{"RST-v4", mustIP(b, bare(dst4, src4, RST|ACK, 0, 1))},
		{"unreachable-v4", mustICMP(b, ICMPError{From: router4, Type: 3, Code: 1}, v4)},
		{"unreachable-v6", mustICMP(b, ICMPError{From: router6, Type: 1}, v6)},
	} {
		b.Run(bb.name+"/ours", func(b *testing.B) {
			var p Packet
			b.ReportAllocs()
			for b.Loop() {
				if err := p.Decode(bb.b); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(bb.name+"/peer", func(b *testing.B) {
			parser := newPeerParser(bb.b)
			b.ReportAllocs()
			for b.Loop() {
				if err := parser.decode(bb.b); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkChecksum(b *testing.B) {
	for _, bb := range []struct {
		name string
		b    []byte
	}{
		{"SYN-v4", mustIP(b, syn(src4, dst4))},
		{"1460-bytes-v4", mustIP(b, withPayload(bare(src4, dst4, ACK, 0, 0), string(make([]byte, 1460))))},
	} {
		b.Run(bb.name+"/ours", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := VerifyChecksum(bb.b); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(bb.name+"/peer", func(b *testing.B) {
			p := gopacket.NewPacket(bb.b, layers.LayerTypeIPv4, gopacket.NoCopy)
			l := p.TransportLayer().(*layers.TCP)
			_ = l.SetNetworkLayerForChecksum(p.NetworkLayer())
			b.ReportAllocs()
			for b.Loop() {
				if _, err := l.ComputeChecksum(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// peerParser is the peer's decoder that reuses its layers.
type peerParser struct {
	ip4     layers.IPv4
	ip6     layers.IPv6
	tcp     layers.TCP
	icmp4   layers.ICMPv4
	icmp6   layers.ICMPv6
	payload gopacket.Payload
	parser  *gopacket.DecodingLayerParser
	decoded []gopacket.LayerType
}

func newPeerParser(b []byte) *peerParser {
	first := layers.LayerTypeIPv4
	if isV6(b) {
		first = layers.LayerTypeIPv6
	}
	p := &peerParser{}
	p.parser = gopacket.NewDecodingLayerParser(first, &p.ip4, &p.ip6, &p.tcp, &p.icmp4, &p.icmp6, &p.payload)
	p.parser.IgnoreUnsupported = true
	return p
}

// decode reads a packet; an ICMP error's quote stays unread, which the peer does
// not do by itself.
func (p *peerParser) decode(b []byte) error { return p.parser.DecodeLayers(b, &p.decoded) }

// peerTCP makes the peer's layer of a SYN, for it to be written again and again.
func peerTCP(b *testing.B, s *Segment) *layers.TCP {
	packet := mustIP(b, *s)
	parser := newPeerParser(packet)
	if err := parser.decode(packet); err != nil {
		b.Fatal(err)
	}
	l := &parser.tcp
	network := gopacket.NetworkLayer(&parser.ip4)
	if isV6(packet) {
		network = &parser.ip6
	}
	if err := l.SetNetworkLayerForChecksum(network); err != nil {
		b.Fatal(err)
	}
	return l
}
