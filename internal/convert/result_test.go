package convert

import (
	"encoding/json"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

func TestEveryResultComesBackFromItsMessage(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := anyResult.Draw(t, "result")
		if want.Remote.Addr().Is6() && rapid.Bool().Draw(t, "zone") {
			want.Remote = netip.AddrPortFrom(netip.MustParseAddr("fe80::1%eth0"), want.Remote.Port())
		}
		got, err := ToResult(wired(t, FromResult(&want), &synmeshv1.Result{}))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got, same); d != "" {
			t.Fatalf("(-want +got):\n%s", d)
		}
	})
}

func TestAMessageHasARoundTripOnlyIfTheTargetAnswered(t *testing.T) {
	for _, o := range probe.Outcomes() {
		r := probe.Result{Outcome: o, RTT: 5}
		m := FromResult(&r)
		if got := m.GetRtt() != nil; got != o.Answered() {
			t.Errorf("the message of outcome %v has a round trip: %t", o, got)
		}
		m = FromResult(&probe.Result{Outcome: probe.Open, RTT: 5, Stamp: probe.StampKernel})
		m.Outcome = synmeshv1.Outcome(o)
		got, err := ToResult(m)
		must(t, err)
		if (got.RTT != 0) != o.Answered() {
			t.Errorf("the result of outcome %v has the round trip %v", o, got.RTT)
		}
	}
}

func TestAMessageThatIsNoResultIsRefused(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*synmeshv1.Result)
		want   string
	}{
		{"no time", func(m *synmeshv1.Result) { m.Time = nil }, "time is missing or outside the years 1 to 9999"},
		{"a time out of bounds", func(m *synmeshv1.Result) { m.Time = &timestamppb.Timestamp{Seconds: 1 << 40} }, "time is missing or outside the years 1 to 9999"},
		{"no outcome", func(m *synmeshv1.Result) { m.Outcome = 0 }, "outcome: 0 is no outcome"},
		{"an unknown outcome", func(m *synmeshv1.Result) { m.Outcome = 6 }, "outcome: 6 is no outcome"},
		{"an outcome that would be known if it were cut", func(m *synmeshv1.Result) { m.Outcome = 256 + 1 }, "outcome: 257 is no outcome"},
		{"an answer without a round trip", func(m *synmeshv1.Result) { m.Rtt = nil }, "rtt is missing, and the outcome is open"},
		{"no stamp", func(m *synmeshv1.Result) { m.Stamp = 0 }, "stamp: 0 is none"},
		{"an unknown stamp", func(m *synmeshv1.Result) { m.Stamp = -1 }, "stamp: -1 is none"},
		{"a local port that is too high", func(m *synmeshv1.Result) { m.LocalPort = 1 << 16 }, "local_port 65536 is above 65535"},
		{"a remote that is a name", func(m *synmeshv1.Result) { m.Remote = "db.fra:5432" }, `remote "db.fra:5432" is not address:port`},
		{"a remote without a port", func(m *synmeshv1.Result) { m.Remote = "10.0.0.2" }, `remote "10.0.0.2" is not address:port`},
		{"a window that is too large", func(m *synmeshv1.Result) { m.SynAck.Window = 1 << 16 }, "syn_ack.window 65536 is above 65535"},
		{"an MSS that is too large", func(m *synmeshv1.Result) { m.SynAck.Mss = 1 << 16 }, "syn_ack.mss 65536 is above 65535"},
		{"a TTL that is too large", func(m *synmeshv1.Result) { m.SynAck.Ttl = 256 }, "syn_ack.ttl 256 is above 255"},
		{"a loss that is unknown", func(m *synmeshv1.Result) { m.Retry = &synmeshv1.Retry{Lost: -1} }, "retry.lost: -1 is none"},
		{"a close without an ending", func(m *synmeshv1.Result) { m.Close = &synmeshv1.Close{} }, "close.ending: 0 is none"},
		{"a close with an unknown ending", func(m *synmeshv1.Result) { m.Close = &synmeshv1.Close{Ending: 4} }, "close.ending: 4 is none"},
		{"an ICMP error from nowhere", func(m *synmeshv1.Result) { m.Icmp = &synmeshv1.Icmp{From: []byte{1}} }, "icmp.from has 1 bytes; an address has 4 or 16"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := sample(0)
			m := FromResult(&r)
			tt.change(m)
			got, err := ToResult(m)
			if err == nil || err.Error() != tt.want {
				t.Errorf("the error is %v, want %s", err, tt.want)
			}
			if got != (probe.Result{}) {
				t.Errorf("%+v beside the error", got)
			}
		})
	}
}

func FuzzResult(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		var m synmeshv1.Result
		if proto.Unmarshal(b, &m) != nil {
			return
		}
		r, err := ToResult(&m)
		if err != nil {
			return
		}
		var s probe.Summary
		s.Add(&r)
		if shown, err := json.Marshal(r); err != nil {
			t.Fatalf("%s cannot be shown: %v", shown, err)
		}
		again, err := ToResult(FromResult(&r))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(r, again, same); d != "" {
			t.Fatalf("(-read +read again):\n%s", d)
		}
	})
}

func BenchmarkFromResult(b *testing.B) {
	r := sample(0)
	b.ReportAllocs()
	for b.Loop() {
		FromResult(&r)
	}
}

func BenchmarkToResult(b *testing.B) {
	r := sample(0)
	m := FromResult(&r)
	b.ReportAllocs()
	var sum time.Duration
	for b.Loop() {
		r, err := ToResult(m)
		must(b, err)
		sum += r.RTT
	}
}
