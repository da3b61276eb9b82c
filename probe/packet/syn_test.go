package packet

import (
	"bytes"
	"net/netip"
	"testing"

	"pgregory.net/rapid"
)

func TestLinuxSYNOffersWhatLinuxOffers(t *testing.T) {
	tests := []struct {
		name        string
		src         netip.Addr
		mss         uint16
		wantMSS     uint16
		wantWindow  uint16
		destination netip.AddrPort
	}{
		{"Ethernet, IPv4", src4.Addr(), 0, 1460, 64240, dst4},
		{"Ethernet, IPv6", src6.Addr(), 0, 1440, 64800, dst6},
		{"jumbo frames", src4.Addr(), 8960, 8960, 62720, dst4},
		{"loopback", src4.Addr(), 65495, 65495, 65495, dst4},
		{"the smallest MSS that Linux allows", src4.Addr(), 88, 88, 65472, dst4},
		{"an MSS of one", src4.Addr(), 1, 1, 65535, dst4},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := LinuxSYN(tt.src, tt.destination, tt.mss)
			if s.Options.MSS != tt.wantMSS || s.Window != tt.wantWindow {
				t.Errorf("MSS %d, window %d; want %d, %d", s.Options.MSS, s.Window, tt.wantMSS, tt.wantWindow)
			}
		})
	}
}

func TestTemplateHasTheKnownBytes(t *testing.T) {
	s := LinuxSYN(src4.Addr(), dst4, 1460)
	tmpl, err := NewTemplate(&s)
	if err != nil {
		t.Fatal(err)
	}
	got := tmpl.Append(nil, 61000, dst4, 3253611009, 827548021)
	// Linux's own, out of testdata/linux.pcap, but for the window scale and
	// the checksum that goes with it.
	want := fromHex(t, `
		ee48 01bb  c1ee2a01  00000000  a002 faf0  5a4f 0000
		020405b4  0402 080a 31536175 00000000  01 030307`)
	if !bytes.Equal(got, want) {
		t.Errorf("\n got %x\nwant %x", got, want)
	}
}

func TestTemplateAppendsWhatAppendTCPWould(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSegment(t)
		s.Payload = nil
		tmpl, err := NewTemplate(&s)
		if err != nil {
			t.Skip(err.Error())
		}
		s.Src = netip.AddrPortFrom(s.Src.Addr(), rapid.Uint16().Draw(t, "stamped port"))
		for s.Dst = (netip.AddrPort{}); s.Dst.Addr().Is6() != s.Src.Addr().Is6() || !s.Dst.IsValid(); {
			s.Dst = drawSegment(t).Dst
		}
		s.Seq = rapid.Uint32().Draw(t, "stamped seq")
		tsval := rapid.Uint32().Draw(t, "stamped tsval")
		if s.Options.Timestamps {
			s.Options.TSVal = tsval
		}
		got := tmpl.Append(nil, s.Src.Port(), s.Dst, s.Seq, tsval)
		want, err := AppendTCP(nil, &s)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) || len(got) != tmpl.Len() {
			t.Errorf("\n got %x\nwant %x", got, want)
		}
	})
}

func TestTemplateRefusesAPayload(t *testing.T) {
	s := withPayload(syn(src4, dst4), "x")
	_, err := NewTemplate(&s)
	wantError(t, err, ErrUnencodable, "packet: TCP template: payload length is 1, want 0 (not encodable)")
}

func TestTemplateRefusesTwoFamilies(t *testing.T) {
	s := LinuxSYN(src6.Addr(), dst4, 0)
	_, err := NewTemplate(&s)
	wantError(t, err, ErrUnencodable, "packet: IP: destination address is 192.0.2.2, want one of the same family as 2001:db8::1 (not encodable)")
}

func TestTheZeroTemplateAppendsNothing(t *testing.T) {
	var tmpl Template
	if got := tmpl.Append([]byte("kept"), 1, dst4, 2, 3); string(got) != "kept" {
		t.Errorf("got %q", got)
	}
}
