package probe

import (
	"bytes"
	"encoding/json"
	"flag"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write the golden files anew")

// sameResults compares addresses, which have fields that are not exported, as values.
var sameResults = cmp.Options{
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
}

// samples are results of every outcome, in the order of the golden file.
func samples() []Result {
	sent := time.Date(2026, 11, 20, 19, 12, 51, 369785123, time.UTC)
	remote := netip.MustParseAddrPort("10.0.0.2:5432")
	base := Result{
		Time: sent, Agent: "fra-1", Target: "db.fra:5432", Remote: remote, LocalPort: 61003, Attempts: 1,
		Stamp: StampKernel, Lateness: 81 * time.Microsecond, HostDelay: 34 * time.Microsecond,
	}
	open := base
	open.Outcome, open.RTT = Open, 23456
	open.SynAck = &SynAck{Seq: 549557783, Window: 64240, MSS: 1460, WindowScale: 7, SACKPermitted: true, Timestamps: true, TTL: 64}

	bare := base // a SYN-ACK without options, over IPv6, asked for by a run
	bare.Outcome, bare.RTT, bare.Source, bare.Stamp = Open, 2925890498, "runs/k3", StampHardware
	bare.Target, bare.Remote = "[2001:db8::2]:443", netip.MustParseAddrPort("[2001:db8::2]:443")
	bare.SynAck = &SynAck{Window: 1024, WindowScale: -1, TTL: 250}

	unscaled := base // a shift count of 0 is not the same as none
	unscaled.Outcome, unscaled.RTT = Open, time.Second
	unscaled.SynAck = &SynAck{Seq: 1, Window: 512, MSS: 536, TTL: 1}

	closed := base
	closed.Outcome, closed.RTT, closed.Stamp = Closed, 0, StampUser // too near for a slow clock, and still a round trip

	unreachable := base
	unreachable.Outcome, unreachable.ICMP = Unreachable, &ICMP{Type: 3, Code: 13, From: netip.MustParseAddr("10.0.9.1")}

	timeout := base
	timeout.Outcome, timeout.Attempts, timeout.Drops, timeout.Stamp = Timeout, 3, 2, StampTCPInfo

	full := base // answered at the second SYN, opened and closed
	full.Outcome, full.RTT, full.Attempts, full.SYN = Open, 31*time.Microsecond, 2, 2864434397
	full.Retry = &Retry{Answered: 2, Lost: LostSYN, Waited: time.Second + 31*time.Microsecond}
	full.SynAck = &SynAck{Seq: 7, Window: 65535, MSS: 1440, WindowScale: 14, SACKPermitted: true, Timestamps: true, ECN: true, TTL: 57}
	full.Close = &Close{Ending: Orderly, Ack: 29 * time.Microsecond, Fin: 1200 * time.Microsecond}

	first := open // of a target whose neighbour nobody had spoken to
	first.NeighbourLookup, first.HostDelay = true, 12*time.Millisecond

	rude := full                                              // closed without a word of the target's
	rude.RTT, rude.Retry = 0, &Retry{Waited: 3 * time.Second} // which SYN was answered is unknown
	rude.Close = &Close{Ending: Unclosed}

	failed := base
	failed.Outcome, failed.Remote, failed.LocalPort, failed.Attempts = Error, netip.AddrPort{}, 0, 0
	failed.Err = `lookup db.fra: no such "host"`
	failed.Lateness, failed.HostDelay = 0, 0
	failed.Time = sent.Truncate(time.Second).In(time.FixedZone("EST", -5*3600))
	return []Result{open, bare, unscaled, closed, unreachable, timeout, failed, full, rude, first}
}

func TestResultsHaveThePublishedShape(t *testing.T) {
	var got bytes.Buffer
	e := json.NewEncoder(&got)
	for _, r := range samples() {
		if err := e.Encode(r); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join("testdata", "results.golden")
	if *update {
		if err := os.WriteFile(path, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got.String(), "\n")); d != "" {
		t.Errorf("the shape that programs read has changed (-want +got):\n%s", d)
	}
}

func TestResultsAreReadBackFromTheirPublishedShape(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("testdata", "results.golden"))
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	var got []Result
	for d.More() {
		var r Result
		if err := d.Decode(&r); err != nil {
			t.Fatal(err)
		}
		got = append(got, r)
	}
	if d := cmp.Diff(samples(), got, sameResults); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestReadingAResultLeavesNothingOfTheOneBefore(t *testing.T) {
	all := samples()
	r := all[0]
	b, err := json.Marshal(all[5])
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if d := cmp.Diff(all[5], r, sameResults); err != nil || d != "" {
		t.Errorf("%v (-want +got):\n%s", err, d)
	}
}

func TestDurationsAreDecimalNumbersOfSeconds(t *testing.T) {
	for _, tt := range []struct {
		d    time.Duration
		want string
	}{
		{0, "0"},
		{1, "0.000000001"},
		{-1, "-0.000000001"},
		{100 * time.Millisecond, "0.1"},
		{time.Second, "1"},
		{90 * time.Minute, "5400"},
		{2925890498, "2.925890498"},   // by way of floating point: 2.9258904980000002
		{11297221779, "11.297221779"}, // 11.297221779000001
		{1<<53 + 1, "9007199.254740993"},
		{math.MaxInt64, "9223372036.854775807"},
		{math.MinInt64, "-9223372036.854775808"},
	} {
		t.Run(tt.want, func(t *testing.T) {
			b, err := json.Marshal(seconds(tt.d))
			if err != nil || string(b) != tt.want {
				t.Fatalf("written as %s (%v)", b, err)
			}
			var again seconds
			if err := json.Unmarshal(b, &again); err != nil || time.Duration(again) != tt.d {
				t.Errorf("read as %d (%v), want %d", again, err, tt.d)
			}
		})
	}
}

func TestDurationsOfOthersAreReadToTheNearestNanosecond(t *testing.T) {
	for _, tt := range []struct {
		text string
		want time.Duration
	}{
		{"1e-3", time.Millisecond},
		{"2.5E1", 25 * time.Second},
		{"0.0000000014", 1},
		{"0.0000000016", 2},
		{"-0.0000000016", -2},
		{"-0.5", -500 * time.Millisecond},
		{"0.1000000000", 100 * time.Millisecond},
	} {
		t.Run(tt.text, func(t *testing.T) {
			var got seconds
			if err := json.Unmarshal([]byte(tt.text), &got); err != nil || time.Duration(got) != tt.want {
				t.Errorf("read as %d (%v), want %d", got, err, tt.want)
			}
		})
	}
}

func TestWhatIsNoResultIsRefused(t *testing.T) {
	const whole = `{"time":"2026-11-20T19:12:51Z","outcome":"open","rtt_seconds":0.5,"stamp":"kernel"}`
	for _, tt := range []struct{ name, old, new, want string }{
		{"no time", `"time":"2026-11-20T19:12:51Z",`, ``, `time "" is not RFC 3339`},
		{"a time of another form", `2026-11-20T19`, `2026-11-20 19`, `time "2026-11-20 19:12:51Z" is not RFC 3339`},
		{"a time whose year has five digits elsewhere", `2026-11-20T19:12:51Z`, `9999-12-31T23:59:59-01:00`, `time "9999-12-31T23:59:59-01:00" is not RFC 3339`},
		{"no outcome", `"outcome":"open","rtt_seconds":0.5,`, ``, "outcome is missing"},
		{"an unknown outcome", `"open"`, `"ajar"`, `outcome "ajar" is unknown; it is one of [open closed unreachable timeout error]`},
		{"no stamp", `,"stamp":"kernel"`, ``, "stamp is missing"},
		{"an answer without a round trip", `"rtt_seconds":0.5,`, ``, "outcome open does not fit: open and closed have rtt_seconds, unless it is unknown which SYN was answered; the others do not"},
		{"a round trip without an answer", `"open"`, `"timeout"`, "outcome timeout does not fit: open and closed have rtt_seconds, unless it is unknown which SYN was answered; the others do not"},
		{"a round trip in words", `0.5`, `"0.5"`, `"\"0.5\"" is not a number of seconds`},
		{"a round trip of three centuries", `0.5`, `1e10`, `"1e10" seconds do not fit a duration`},
		{"a round trip just above the longest", `0.5`, `9223372036.854775808`, `"9223372036.854775808" seconds do not fit a duration`},
		{"a remote that is no address", `"outcome"`, `"remote":"db.fra:5432","outcome"`, `remote "db.fra:5432" is not address:port`},
		{"a close without an ending", `"outcome"`, `"close":{"ack_seconds":1},"outcome"`, "close.ending is missing"},
		{"a close with an unknown ending", `"outcome"`, `"close":{"ending":"sudden"},"outcome"`, `ending "sudden" is unknown; it is one of [orderly reset unclosed]`},
		{"an unknown loss", `"outcome"`, `"retry":{"lost":"all"},"outcome"`, `loss "all" is unknown; it is one of [unknown syn syn_ack]`},
		{"a negative window scale", `"outcome"`, `"syn_ack":{"window_scale":-1},"outcome"`, "syn_ack.window_scale -1 is no shift count"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := strings.Replace(whole, tt.old, tt.new, 1)
			kept := samples()[0]
			if err := json.Unmarshal([]byte(text), &kept); err == nil || err.Error() != tt.want {
				t.Errorf("%s\nsays %v\nwant %s", text, err, tt.want)
			}
		})
	}
}

func TestUnknownFieldsOfAResultArePassedOver(t *testing.T) {
	const text = `{"time":"2026-11-20T20:12:51.5+01:00","outcome":"timeout","stamp":"user","path":["a","b"]}`
	var got Result
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatal(err)
	}
	want := Result{Time: time.Date(2026, 11, 20, 19, 12, 51, 5e8, time.UTC), Outcome: Timeout, Stamp: StampUser}
	if d := cmp.Diff(want, got, sameResults); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestAResultThatIsNotWholeIsNotWritten(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Result)
		want   string
	}{
		{"no outcome", func(r *Result) { r.Outcome = 0 }, "outcome 0 has no name"},
		{"no stamp", func(r *Result) { r.Stamp = 0 }, "stamp 0 has no name"},
		{"a close without an ending", func(r *Result) { r.Close = &Close{} }, "ending 0 has no name"},
		{"a loss that is none", func(r *Result) { r.Retry = &Retry{Lost: LostSYNACK + 1} }, "loss 3 has no name"},
		{"a year that RFC 3339 does not have", func(r *Result) { r.Time = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) }, "RFC 3339 has no year 10000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := samples()[5]
			tt.change(&r)
			if b, err := json.Marshal(r); err == nil || !strings.HasSuffix(err.Error(), tt.want) {
				t.Errorf("written as %s (%v), want the error %s", b, err, tt.want)
			}
		})
	}
}

// anyResult draws results that keep what Result promises.
var anyResult = rapid.Custom(func(t *rapid.T) Result {
	duration := func(name string) time.Duration {
		return time.Duration(rapid.OneOf(rapid.Int64Range(0, 1e11), rapid.Int64()).Draw(t, name))
	}
	addr := rapid.Custom(func(t *rapid.T) netip.Addr {
		if rapid.Bool().Draw(t, "v6") {
			return netip.AddrFrom16([16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "address")))
		}
		return netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "address")))
	})
	r := Result{
		Time:      time.Unix(rapid.Int64Range(-62135596800, 253402300799).Draw(t, "seconds"), rapid.Int64Range(0, 999999999).Draw(t, "nanoseconds")).UTC(),
		Agent:     rapid.String().Draw(t, "agent"),
		Source:    rapid.String().Draw(t, "source"),
		Target:    rapid.String().Draw(t, "target"),
		LocalPort: rapid.Uint16().Draw(t, "local port"),
		Outcome:   rapid.SampledFrom(Outcomes()).Draw(t, "outcome"),
		Attempts:  rapid.IntRange(0, 10).Draw(t, "attempts"),
		Stamp:     rapid.SampledFrom([]Stamp{StampHardware, StampKernel, StampTCPInfo, StampUser}).Draw(t, "stamp"),
		Lateness:  duration("lateness"),
		HostDelay: duration("host delay"),
		Drops:     rapid.IntRange(0, 10).Draw(t, "drops"),
		SYN:       rapid.Uint32().Draw(t, "syn"),

		NeighbourLookup: rapid.Bool().Draw(t, "neighbour lookup"),
	}
	if rapid.Bool().Draw(t, "retried") {
		r.Retry = &Retry{
			Answered: rapid.IntRange(0, 7).Draw(t, "answered"), Waited: duration("waited"),
			Lost: rapid.SampledFrom([]Lost{LostUnknown, LostSYN, LostSYNACK}).Draw(t, "lost"),
		}
	}
	if rapid.Bool().Draw(t, "resolved") {
		r.Remote = netip.AddrPortFrom(addr.Draw(t, "remote"), rapid.Uint16().Draw(t, "port"))
	}
	if r.Timed() {
		r.RTT = duration("rtt")
	}
	switch r.Outcome {
	case Open:
		r.SynAck = &SynAck{
			Seq: rapid.Uint32().Draw(t, "seq"), Window: rapid.Uint16().Draw(t, "window"), MSS: rapid.Uint16().Draw(t, "mss"),
			WindowScale: rapid.Int8Range(-1, 14).Draw(t, "scale"), SACKPermitted: rapid.Bool().Draw(t, "sack"),
			Timestamps: rapid.Bool().Draw(t, "timestamps"), ECN: rapid.Bool().Draw(t, "ecn"), TTL: rapid.Uint8().Draw(t, "ttl"),
		}
		if rapid.Bool().Draw(t, "closed") {
			r.Close = &Close{Ending: rapid.SampledFrom([]Ending{Orderly, Reset, Unclosed}).Draw(t, "ending"), Ack: duration("ack"), Fin: duration("fin")}
		}
	case Unreachable:
		r.ICMP = &ICMP{Type: rapid.Uint8().Draw(t, "type"), Code: rapid.Uint8().Draw(t, "code"), From: addr.Draw(t, "from")}
	case Error:
		r.Err = rapid.String().Draw(t, "error")
	}
	return r
})

func TestEveryResultIsReadBackAsItWas(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := anyResult.Draw(t, "result")
		b, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var got Result
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		if d := cmp.Diff(want, got, sameResults); d != "" {
			t.Fatalf("%s (-want +got):\n%s", b, d)
		}
	})
}

func FuzzResultUnmarshalJSON(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Result
		if err := json.Unmarshal(b, &r); err != nil {
			return
		}
		if !bytes.HasPrefix(bytes.TrimSpace(b), []byte("{")) {
			return // null leaves a value as it is
		}
		written, err := json.Marshal(r)
		if err != nil {
			t.Fatalf("what was read from %s cannot be written: %v", b, err)
		}
		var again Result
		if err := json.Unmarshal(written, &again); err != nil {
			t.Fatalf("%s was written as %s: %v", b, written, err)
		}
		if d := cmp.Diff(r, again, sameResults); d != "" {
			t.Fatalf("%s was written as %s (-read +read again):\n%s", b, written, d)
		}
		var s Summary
		s.Add(&r) // takes whatever is a result
		if s.Sent() != 1 {
			t.Fatalf("%d results", s.Sent())
		}
	})
}

func BenchmarkResultMarshalJSON(b *testing.B) {
	r := samples()[0]
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.MarshalJSON(); err != nil {
			b.Fatal(err)
		}
	}
}
