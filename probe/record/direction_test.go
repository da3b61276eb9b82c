package record

import (
	"net/netip"
	"testing"

	"github.com/synmesh/synmesh/probe/packet"
	"github.com/synmesh/synmesh/probe/rawsock"
)

func TestAddressesTellWhoseAPacketIs(t *testing.T) {
	at := netip.MustParseAddrPort
	target, inRange, us := at("10.0.0.2:443"), at("127.0.0.1:61100"), at("10.0.0.1:61000")
	r := &Recorder{
		cfg:     Config{Holds: func(p uint16) bool { return p == 61000 }},
		remotes: map[netip.AddrPort]bool{target: true, inRange: true},
	}
	for _, tt := range []struct {
		name           string
		src, dst       netip.AddrPort
		quoted         bool
		outgoing, ours bool
	}{
		{"what we send", us, target, false, true, true},
		{"what comes back", target, us, false, false, true},
		{"from another port", at("10.0.0.1:61001"), target, false, false, false},
		{"to another port", target, at("10.0.0.1:61001"), false, false, false},
		{"to another port of the target", us, at("10.0.0.2:444"), false, false, false},
		{"to another host", us, at("10.0.0.3:443"), false, false, false},
		{"to a target whose port might be ours", at("127.0.0.1:61000"), inRange, false, true, true},
		{"from a target whose port might be ours", inRange, at("127.0.0.1:61000"), false, false, true},
		{"an error about what we sent", us, target, true, false, true},
		{"our error about what came", target, us, true, true, true},
		{"an error about another's", at("10.0.0.1:61001"), target, true, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := packet.Packet{Kind: packet.KindTCP, TCP: packet.Segment{Src: tt.src, Dst: tt.dst}}
			if tt.quoted {
				p = packet.Packet{Kind: packet.KindICMP, ICMP: packet.ICMPError{Quoted: p.TCP}}
			}
			if outgoing, ours := r.direction(&p); outgoing != tt.outgoing || ours != tt.ours {
				t.Errorf("outgoing %t, ours %t, want %t and %t", outgoing, ours, tt.outgoing, tt.ours)
			}
		})
	}
}

func TestCopiesOnOtherDevicesAreFound(t *testing.T) {
	const ms = 1e6
	var c copies
	for i, tt := range []struct {
		name     string
		device   int
		outgoing bool
		stamp    int64
		data     string
		again    bool
	}{
		{"the first", 1, false, 1 * ms, "a", false},
		{"on the bridge above", 2, false, 1*ms + 500, "a", true},
		{"on the VLAN above that", 3, false, 1*ms + 900, "a", true},
		{"sent again by the target", 1, false, 2 * ms, "a", false},
		{"that on the bridge", 2, false, 2*ms + 500, "a", true},
		{"the other direction", 2, true, 2*ms + 600, "a", false},
		{"another", 2, false, 2*ms + 700, "b", false},
		{"much later by another way", 2, false, 500 * ms, "a", false},
	} {
		if again := c.again(&rawsock.Seen{Stamp: tt.stamp, Outgoing: tt.outgoing, Interface: tt.device, Data: []byte(tt.data)}); again != tt.again {
			t.Errorf("%d, %s: again is %t, want %t", i, tt.name, again, tt.again)
		}
	}
}
