package packet

import (
	"encoding/hex"
	"errors"
	"flag"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/gopacket/pcapgo"
)

var update = flag.Bool("update", false, "write the golden files and the seeds of the fuzz targets")

// same compares segments and ICMP errors by what they say.
var same = cmp.Options{
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmpopts.EquateEmpty(),
}

func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

var (
	src4, dst4 = addrPort("192.0.2.1:61000"), addrPort("192.0.2.2:443")
	src6, dst6 = addrPort("[2001:db8::1]:61000"), addrPort("[2001:db8::2]:443")
)

// The segments of a handshake, and of what may come instead.
func syn(src, dst netip.AddrPort) Segment {
	s := LinuxSYN(src.Addr(), dst, 0)
	s.Src, s.Seq, s.Options.TSVal = src, 3253611009, 827548021
	return s
}

func synAck(src, dst netip.AddrPort) Segment {
	s := syn(dst, src)
	s.Flags, s.Seq, s.Ack, s.Window = SYN|ACK, 881169227, 3253611010, 65160
	s.Options.TSVal, s.Options.TSEcr = 3622157516, 827548021
	return s
}

func bare(src, dst netip.AddrPort, flags Flags, seq, ack uint32) Segment {
	return Segment{Src: src, Dst: dst, Flags: flags, Seq: seq, Ack: ack, TTL: 64}
}

func withPayload(s Segment, payload string) Segment {
	s.Payload = []byte(payload)
	return s
}

// samples are segments by name, as every one of them must survive a round trip.
func samples() map[string]Segment {
	sacked := bare(src4, dst4, ACK, 1, 2)
	sacked.Options = Options{
		Timestamps: true, TSVal: 1, TSEcr: 2,
		SACKCount: 3, SACK: [4]SACKBlock{{10, 20}, {30, 40}, {50, 60}},
	}
	dense := syn(src4, dst4)
	dense.Options.MSS, dense.Options.HasMSS = 0, false
	dense.Options.SACKPermitted = false
	dense.Options.SACKCount, dense.Options.SACK = 3, sacked.Options.SACK
	marked := syn(src6, dst6)
	marked.TOS, marked.Flags, marked.TTL = 0xb9, SYN|ECE|CWR, 255
	urgent := withPayload(bare(src6, dst6, PSH|ACK|URG, 7, 8), "urgent")
	urgent.Urgent = 3
	return map[string]Segment{
		"syn_v4":          syn(src4, dst4),
		"syn_v6":          syn(src6, dst6),
		"syn_ack_v4":      synAck(src4, dst4),
		"syn_ack_v6":      synAck(src6, dst6),
		"ack_v4":          bare(src4, dst4, ACK, 3253611010, 881169228),
		"rst_v4":          bare(src4, dst4, RST, 3253611010, 0),
		"rst_ack_v4":      bare(dst4, src4, RST|ACK, 0, 3253611010),
		"rst_ack_v6":      bare(dst6, src6, RST|ACK, 0, 3253611010),
		"fin_v6":          bare(src6, dst6, FIN|ACK, 5, 6),
		"data_v4":         withPayload(bare(src4, dst4, PSH|ACK, 5, 6), "hello"),
		"sack_v4":         sacked,
		"dense_options":   dense,
		"ecn_setup_v6":    marked,
		"urgent_v6":       urgent,
		"no_flags_at_all": bare(src4, dst4, 0, 0, 0),
	}
}

// mustIP is AppendIP for segments that are known to have a form.
func mustIP(t testing.TB, s Segment) []byte {
	t.Helper()
	b, err := AppendIP(nil, &s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func mustICMP(t testing.TB, e ICMPError, original []byte) []byte {
	t.Helper()
	b, err := AppendICMP(nil, &e, original)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// edit returns a changed copy of b.
func edit(b []byte, change func([]byte)) []byte {
	c := append([]byte(nil), b...)
	change(c)
	return c
}

// fromHex reads bytes that are spaced for people.
func fromHex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// wantError checks what an error is about, where it is, and how it reads.
func wantError(t *testing.T, err, about error, text string) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("error is %v, want an *Error", err)
	}
	if !errors.Is(err, about) {
		t.Errorf("error %q is not %v", err, about)
	}
	if err.Error() != text {
		t.Errorf("error\n got %s\nwant %s", err, text)
	}
}

// linuxPackets reads testdata/linux.pcap: what two Linux 6.18 hosts said to each
// other over a veth pair without checksum offload. From 192.0.2.1 and
// 2001:db8::1, six connections each: to a listener with some data, to a closed
// port, to an unreachable and to a prohibited route, with one hop too few, and to
// a port that a firewall rejects.
func linuxPackets(t testing.TB) [][]byte {
	t.Helper()
	f, err := os.Open("testdata/linux.pcap")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := pcapgo.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var all [][]byte
	for {
		b, _, err := r.ReadPacketData()
		if err != nil {
			break
		}
		all = append(all, b)
	}
	if len(all) != 40 {
		t.Fatalf("the capture has %d packets, want 40", len(all))
	}
	return all
}
