package packet

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

// Everything Linux sent reads without complaint, and as tcpdump 4.99 reads it,
// whose output the golden file was compared with, field by field.
func TestReadsWhatLinuxSent(t *testing.T) {
	var got strings.Builder
	var p Packet
	for i, b := range linuxPackets(t) {
		if err := p.Decode(b); err != nil {
			t.Fatalf("packet %d: %v", i, err)
		}
		if err := VerifyChecksum(b); err != nil {
			t.Errorf("packet %d: %v", i, err)
		}
		switch p.Kind {
		case KindTCP:
			got.WriteString(p.TCP.String() + "\n")
		case KindICMP:
			got.WriteString(p.ICMP.String() + "\n")
			if p.ICMP.QuotedLen != 40 || !p.ICMP.Quoted.Options.Timestamps {
				t.Errorf("packet %d: quotes %d bytes, want a whole SYN", i, p.ICMP.QuotedLen)
			}
		default:
			t.Errorf("packet %d is neither TCP nor ICMP", i)
		}
	}
	const golden = "testdata/linux.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got.String(), want)
	}
}

// Options in Linux's order and alignment, header and checksum: what is crafted
// from a decoded segment is Linux's segment, byte for byte.
func TestCraftsLinuxsSegmentsByteForByte(t *testing.T) {
	var p Packet
	for i, b := range linuxPackets(t) {
		if err := p.Decode(b); err != nil || p.Kind != KindTCP {
			continue
		}
		got, err := AppendTCP(nil, &p.TCP)
		if err != nil {
			t.Fatal(err)
		}
		if want := b[len(b)-len(got):]; !bytes.Equal(got, want) {
			t.Errorf("packet %d, %v\n got %x\nwant %x", i, &p.TCP, got, want)
		}
	}
}

func TestTemplateOfLinuxSYNMakesLinuxsSYNsByteForByte(t *testing.T) {
	n := 0
	var p Packet
	for i, b := range linuxPackets(t) {
		if err := p.Decode(b); err != nil || p.Kind != KindTCP || p.TCP.Flags != SYN {
			continue
		}
		n++
		s := LinuxSYN(p.TCP.Src.Addr(), p.TCP.Dst, 0)
		s.Options.WindowScale = 10 // since Linux 6.16, with its larger tcp_rmem
		tmpl, err := NewTemplate(&s)
		if err != nil {
			t.Fatal(err)
		}
		got := tmpl.Append(nil, p.TCP.Src.Port(), p.TCP.Dst, p.TCP.Seq, p.TCP.Options.TSVal)
		if want := b[len(b)-tmpl.Len():]; !bytes.Equal(got, want) {
			t.Errorf("packet %d\n got %x\nwant %x", i, got, want)
		}
	}
	if n != 12 {
		t.Errorf("the capture has %d SYNs, want 12", n)
	}
}

// ICMP errors from Linux quote the whole packet; so do ours.
func TestCraftsLinuxsICMPErrorsByteForByte(t *testing.T) {
	var p Packet
	for i, b := range linuxPackets(t) {
		if err := p.Decode(b); err != nil || p.Kind != KindICMP {
			continue
		}
		header, quote := ipv4Len, ipv4Len+icmpLen
		if p.ICMP.From.Is6() {
			header, quote = ipv6Len, ipv6Len+icmpLen
		}
		got, err := AppendICMP(nil, &p.ICMP, b[quote:])
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got[header:], b[header:]) {
			t.Errorf("packet %d\n got %x\nwant %x", i, got[header:], b[header:])
		}
	}
}
