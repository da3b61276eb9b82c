package packet

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// seed is one input of a fuzz target.
type seed struct {
	target, name string
	args         []any
}

// seeds are the inputs that every fuzz target starts from: what Linux sent, our
// own samples, and what the tables of this package have to say about corners.
func seeds(t *testing.T) []seed {
	var all []seed
	add := func(target, name string, args ...any) {
		all = append(all, seed{target, name, args})
	}
	linux := linuxPackets(t)
	for name, i := range map[string]int{
		"syn_v4": 0, "syn_ack_v4": 1, "ack_v4": 2, "data_v4": 3, "fin_v4": 7, "rst_ack_v4": 11,
		"host_unreachable_v4": 13, "prohibited_v4": 15, "ttl_exceeded_v4": 17, "port_unreachable_v4": 19,
		"syn_v6": 20, "syn_ack_v6": 21, "rst_ack_v6": 31, "no_route_v6": 33, "hop_limit_v6": 37, "port_unreachable_v6": 39,
	} {
		add("FuzzDecode", "linux_"+name, linux[i])
	}
	for name, s := range samples() {
		b := mustIP(t, s)
		add("FuzzDecode", "crafted_"+name, b)
		header := len(b) - len(s.Payload)
		add("FuzzOptions", name, b[ipHeaderLen(b)+tcpLen:header])
		if s.Flags&(SYN|ACK|FIN|RST) == SYN && len(s.Payload) == 0 {
			n := len(b) - ipHeaderLen(b)
			add("FuzzTail", name, append(make([]byte, 14), b...), n)
			add("FuzzTail", name+"_short", b[len(b)-n+1:], n)
		}
	}
	syn4, syn6 := mustIP(t, syn(src4, dst4)), mustIP(t, syn(src6, dst6))
	add("FuzzDecode", "truncated_v4", syn4[:39])
	add("FuzzDecode", "truncated_options_v6", syn6[:79])
	add("FuzzDecode", "padded_v4", append(append([]byte(nil), linux[11]...), make([]byte, 6)...))
	add("FuzzDecode", "ip_options_v4", withIPv4Options(syn4, 40))
	add("FuzzDecode", "later_fragment_v4", edit(syn4, func(b []byte) { b[7] = 1 }))
	add("FuzzDecode", "extensions_v6", withExtensions(t, syn6, hopByHop, longDestOpts, routingDone, atomicFragment))
	add("FuzzDecode", "later_fragment_v6", withExtensions(t, syn6, laterFragment))
	add("FuzzDecode", "routing_ahead_v6", withExtensions(t, syn6, routingAhead))
	add("FuzzDecode", "malformed_option_v4", edit(syn4, func(b []byte) { b[41] = 3 }))
	add("FuzzDecode", "unreachable_8_bytes_v4", mustICMP(t, ICMPError{From: router4, Type: 3, Code: 1}, syn4[:28]))
	add("FuzzDecode", "too_big_v6", mustICMP(t, ICMPError{From: router6, Type: 2, MTU: 1280}, syn6))
	extended := make([]byte, icmpLen+minExtended)
	extended[0], extended[5] = icmpTimeExceeded, minExtended/4
	copy(extended[icmpLen:], syn4)
	add("FuzzDecode", "extended_v4", icmpOver(router4, src4.Addr(), append(extended, fromHex(t, "2000 0000 0008 0101 000001ff")...)))

	add("FuzzOptions", "unknown_kinds", fromHex(t, "fe04f989 2208001122334455 030302"))
	add("FuzzOptions", "no_length", fromHex(t, "020405b4 02"))
	add("FuzzOptions", "length_0", fromHex(t, "030307 fd00 020405b4"))
	add("FuzzOptions", "wrong_lengths", fromHex(t, "020305 030207 0402 08060000"))
	add("FuzzOptions", "dense_40_bytes", fromHex(t, "030307 080a0000000100000002 051a000000010000000200000003000000040000000500000006 00"))

	add("FuzzICMPQuote", "host_unreachable", uint8(3), uint8(1), uint32(0), syn4)
	add("FuzzICMPQuote", "fragmentation_needed", uint8(3), uint8(4), uint32(1400), syn4)
	add("FuzzICMPQuote", "eight_bytes", uint8(3), uint8(3), uint32(0), syn4[:28])
	add("FuzzICMPQuote", "seven_bytes", uint8(3), uint8(3), uint32(0), syn4[:27])
	add("FuzzICMPQuote", "ip_options", uint8(11), uint8(0), uint32(0), withIPv4Options(syn4, 8))
	add("FuzzICMPQuote", "no_route_v6", uint8(1), uint8(0), uint32(0), syn6)
	add("FuzzICMPQuote", "too_big_v6", uint8(2), uint8(0), uint32(1280), syn6)
	add("FuzzICMPQuote", "extensions_v6", uint8(4), uint8(1), uint32(0), withExtensions(t, syn6, hopByHop, destOpts))
	add("FuzzICMPQuote", "about_udp", uint8(3), uint8(3), uint32(0), edit(syn4, func(b []byte) { b[9] = 17 }))
	return all
}

func ipHeaderLen(b []byte) int {
	if isV6(b) {
		return ipv6Len
	}
	return ipv4Len
}

// encode writes a seed in the format of go test's corpora.
func (s seed) encode() string {
	var w strings.Builder
	w.WriteString("go test fuzz v1\n")
	for _, a := range s.args {
		switch a := a.(type) {
		case []byte:
			fmt.Fprintf(&w, "[]byte(%q)\n", a)
		case uint8:
			fmt.Fprintf(&w, "byte(%q)\n", rune(a))
		default:
			fmt.Fprintf(&w, "%T(%d)\n", a, a)
		}
	}
	return w.String()
}

// The seeds that are kept are those that this package would make; -update writes
// them. Inputs that a fuzzer found stand beside them under other names.
func TestSeedsOfTheFuzzTargetsAreKept(t *testing.T) {
	for _, s := range seeds(t) {
		path := filepath.Join("testdata", "fuzz", s.target, s.name)
		if *update {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(s.encode()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != s.encode() {
			t.Errorf("%s is not what -update would write", path)
		}
	}
}
