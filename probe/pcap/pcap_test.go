package pcap

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"testing"

	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"github.com/synmesh/synmesh/probe/packet"
)

func pcapSYN(t *testing.T, src, dst string) []byte {
	t.Helper()
	syn := packet.LinuxSYN(netip.MustParseAddr(src), netip.MustParseAddrPort(dst), 0)
	syn.Src = netip.AddrPortFrom(syn.Src.Addr(), 61000)
	b, err := packet.AppendIP(nil, &syn)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestPacketsAreReadBackFromPcapng(t *testing.T) {
	v4, v6 := pcapSYN(t, "10.0.0.1", "10.0.0.2:443"), pcapSYN(t, "2001:db8::1", "[2001:db8::2]:443")
	long := pcapSYN(t, "10.0.0.1", "10.0.0.2:443")
	long[3] += 100 // of which nothing was captured
	written := []struct {
		stamp  int64
		device string
		data   []byte
		want   int // bytes
		length int // of the packet
	}{
		{1732132392369785123, "eth0", v4, 60, 60},
		{1732132392369785124, "eth1", v6, 80, 80},
		{1732132392369785999, "eth0", append(append([]byte(nil), v4...), 0, 0, 0), 60, 60},
		{1732132392369786000, "eth0", long, 60, 160},
	}
	var file bytes.Buffer
	w := NewWriter(&file, "probectl 1", "a test", 256)
	for _, p := range written {
		if err := w.Write(p.stamp, p.device, p.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(7); err != nil {
		t.Fatal(err)
	}
	r, err := pcapgo.NewNgReader(&file, pcapgo.DefaultNgReaderOptions)
	if err != nil {
		t.Fatal(err)
	}
	if s := r.SectionInfo(); s.Application != "probectl 1" || s.Comment != "a test" || s.Hardware == "" || s.OS == "" {
		t.Errorf("the header says %+v", s)
	}
	for i, p := range written {
		data, info, err := r.ReadPacketData()
		if err != nil {
			t.Fatal(err)
		}
		on, err := r.Interface(info.InterfaceIndex)
		if err != nil || on.Name != p.device || on.LinkType != layers.LinkTypeRaw || on.SnapLength != 256 {
			t.Errorf("packet %d is on %+v (%v), want %s", i, on, err, p.device)
		}
		if info.Timestamp.UnixNano() != p.stamp || !bytes.Equal(data, p.data[:p.want]) || info.Length != p.length {
			t.Errorf("packet %d: %+v with %d bytes, want the time %d and %d bytes of %d", i, info, len(data), p.stamp, p.want, p.length)
		}
	}
	if _, _, err := r.ReadPacketData(); !errors.Is(err, io.EOF) {
		t.Errorf("behind the last packet: %v, want the end", err)
	}
	for i, want := range []uint64{3, 1} {
		if on, err := r.Interface(i); err != nil || on.Statistics.PacketsReceived != want || on.Statistics.PacketsDropped != 7 {
			t.Errorf("device %d: %+v (%v), want %d packets and 7 dropped", i, on.Statistics, err, want)
		}
	}
}

func TestPcapngWithoutPacketsIsSound(t *testing.T) {
	var file bytes.Buffer
	if err := NewWriter(&file, "probectl 1", "", 256).Close(0); err != nil {
		t.Fatal(err)
	}
	r, err := pcapgo.NewNgReader(&file, pcapgo.DefaultNgReaderOptions)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.ReadPacketData(); !errors.Is(err, io.EOF) {
		t.Errorf("reading says %v, want the end", err)
	}
}

func TestWhatIsNoPacketDoesNotGetIntoPcapng(t *testing.T) {
	if err := NewWriter(io.Discard, "", "", 256).Write(1, "eth0", []byte{0x45}); !errors.Is(err, packet.ErrTruncated) {
		t.Errorf("the error is %v, want ErrTruncated", err)
	}
}
