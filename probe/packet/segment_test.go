package packet

import "testing"

func TestSegmentsReadLikeAnAnalysersLine(t *testing.T) {
	linux := LinuxSYN(addrPort("10.0.0.1:0").Addr(), addrPort("10.0.0.2:443"), 1460)
	linux.Src, linux.Seq, linux.Options.TSVal = addrPort("10.0.0.1:61000"), 1, 1
	everything := samples()["urgent_v6"]
	everything.Options = Options{
		HasMSS: true, MSS: 536, SACKPermitted: true, HasWindowScale: true, WindowScale: 14,
		SACKCount: 2, SACK: [4]SACKBlock{{1, 2}, {3, 4}}, Malformed: true,
	}
	var tail Segment
	if err := tail.DecodeTail(mustIP(t, syn(src4, dst4)), 40); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		s    Segment
		want string
	}{
		{"a SYN of Linux", linux,
			"10.0.0.1:61000 > 10.0.0.2:443 [SYN] seq 1 ack 0 win 64240 <mss 1460, sackOK, TS val 1 ecr 0, wscale 7>"},
		{"a reset without options", samples()["rst_ack_v6"],
			"[2001:db8::2]:443 > [2001:db8::1]:61000 [RST,ACK] seq 0 ack 3253611010 win 0"},
		{"everything that can be shown", everything,
			"[2001:db8::1]:61000 > [2001:db8::2]:443 [PSH,ACK,URG] seq 7 ack 8 win 0 urg 3 " +
				"<mss 536, sackOK, wscale 14, sack 1-2, sack 3-4, malformed> length 6"},
		{"a payload that the capture cut off counts", Segment{Src: src4, Dst: dst4, Flags: ACK, Payload: []byte("ab"), Missing: 98},
			"192.0.2.1:61000 > 192.0.2.2:443 [ACK] seq 0 ack 0 win 0 length 100"},
		{"no flags", samples()["no_flags_at_all"],
			"192.0.2.1:61000 > 192.0.2.2:443 [none] seq 0 ack 0 win 0"},
		{"the tail of a transmitted SYN has no addresses", tail,
			"?:61000 > ?:443 [SYN] seq 3253611009 ack 0 win 64240 <mss 1460, sackOK, TS val 827548021 ecr 0, wscale 7>"},
		{"the zero segment", Segment{}, "?:0 > ?:0 [none] seq 0 ack 0 win 0"},
		{"a SACK count that cannot be", Segment{Options: Options{SACKCount: 9}},
			"?:0 > ?:0 [none] seq 0 ack 0 win 0 <sack 0-0, sack 0-0, sack 0-0, sack 0-0>"},
		{"values whose options were not sent", Segment{Options: Options{MSS: 9}}, "?:0 > ?:0 [none] seq 0 ack 0 win 0 <>"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.s.String(); got != tt.want {
				t.Errorf("\n got %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestFlagsAreNamedFromTheLowestBit(t *testing.T) {
	if got, want := Flags(0xff).String(), "FIN,SYN,RST,PSH,ACK,URG,ECE,CWR"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestLenCountsPayloadAndSYNAndFIN(t *testing.T) {
	tests := []struct {
		name string
		s    Segment
		want int
	}{
		{"an ACK takes nothing", Segment{Flags: ACK}, 0},
		{"a SYN takes one", Segment{Flags: SYN}, 1},
		{"a FIN with data takes one more than the data", Segment{Flags: FIN | ACK, Payload: []byte("abc")}, 4},
		{"data that was not captured was sent", Segment{Flags: PSH | ACK, Payload: []byte("abc"), Missing: 7}, 10},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.s.Len(); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}
