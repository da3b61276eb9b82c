package convert

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/synmesh/synmesh/probe"
)

// same compares addresses, which have fields that are not exported, as values.
var same = cmp.Options{
	cmpopts.EquateEmpty(),
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
}

var (
	anyAddr = rapid.Custom(func(t *rapid.T) netip.Addr {
		if rapid.Bool().Draw(t, "v6") {
			return netip.AddrFrom16([16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "address")))
		}
		return netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "address")))
	})
	remotes = []netip.AddrPort{
		{}, // the name did not resolve
		netip.MustParseAddrPort("10.0.0.2:5432"), netip.MustParseAddrPort("[2001:db8::2]:443"), netip.MustParseAddrPort("[::ffff:10.0.0.2]:5432"),
	}
)

// anyResult draws results that keep what probe.Result promises, of few series.
var anyResult = rapid.Custom(func(t *rapid.T) probe.Result {
	duration := rapid.Custom(func(t *rapid.T) time.Duration {
		return time.Duration(rapid.OneOf(rapid.Int64Range(0, 1e10), rapid.Int64()).Draw(t, "nanoseconds"))
	})
	r := probe.Result{
		Time:      time.Unix(0, rapid.Int64().Draw(t, "time")),
		Agent:     "fra-1",
		Source:    rapid.SampledFrom([]string{"", "runs/k3", "measurements/mesh"}).Draw(t, "source"),
		Target:    rapid.SampledFrom([]string{"db.fra:5432", "nyc-1"}).Draw(t, "target"),
		Remote:    rapid.SampledFrom(remotes).Draw(t, "remote"),
		LocalPort: rapid.Uint16().Draw(t, "local port"),
		Outcome:   rapid.SampledFrom(probe.Outcomes()).Draw(t, "outcome"),
		Attempts:  rapid.SampledFrom([]int{1, 1, 1, 0, 2, 7}).Draw(t, "attempts"),
		Stamp:     rapid.SampledFrom([]probe.Stamp{probe.StampKernel, probe.StampHardware, probe.StampTCPInfo, probe.StampUser}).Draw(t, "stamp"),
		Lateness:  duration.Draw(t, "lateness"),
		HostDelay: duration.Draw(t, "host delay"),
		Drops:     rapid.SampledFrom([]int{0, 0, 0, 1, 1 << 20}).Draw(t, "drops"),
		SYN:       rapid.Uint32().Draw(t, "syn"),
	}
	if rapid.Bool().Draw(t, "retried") {
		r.Retry = &probe.Retry{
			Answered: rapid.IntRange(0, 7).Draw(t, "answered"), Waited: duration.Draw(t, "waited"),
			Lost: rapid.SampledFrom([]probe.Lost{probe.LostUnknown, probe.LostSYN, probe.LostSYNACK}).Draw(t, "lost"),
		}
	}
	switch r.Outcome {
	case probe.Open:
		r.SynAck = &probe.SynAck{
			Seq:           rapid.Uint32().Draw(t, "seq"),
			Window:        rapid.SampledFrom([]uint16{64240, 65535, 0}).Draw(t, "window"),
			MSS:           rapid.SampledFrom([]uint16{1460, 0, 65535}).Draw(t, "mss"),
			WindowScale:   rapid.Int8Range(-1, 14).Draw(t, "scale"),
			SACKPermitted: rapid.Bool().Draw(t, "sack"),
			Timestamps:    rapid.Bool().Draw(t, "timestamps"),
			ECN:           rapid.Bool().Draw(t, "ecn"),
			TTL:           rapid.SampledFrom([]uint8{64, 0, 255}).Draw(t, "ttl"),
		}
		if rapid.Bool().Draw(t, "closed") {
			r.Close = &probe.Close{
				Ending: rapid.SampledFrom([]probe.Ending{probe.Orderly, probe.Reset, probe.Unclosed}).Draw(t, "ending"),
				Ack:    duration.Draw(t, "ack"), Fin: duration.Draw(t, "fin"),
			}
		}
	case probe.Unreachable:
		r.ICMP = &probe.ICMP{Type: rapid.Uint8().Draw(t, "type"), Code: rapid.Uint8().Draw(t, "code"), From: anyAddr.Draw(t, "from")}
	case probe.Error:
		r.Err = rapid.StringN(1, -1, -1).Draw(t, "error")
	}
	if r.Timed() {
		r.RTT = duration.Draw(t, "rtt")
	}
	return r
})

// wired sends a message over the wire.
func wired[M proto.Message](t interface{ Fatal(...any) }, m, to M) M {
	b, err := proto.Marshal(m)
	if err == nil {
		err = proto.Unmarshal(b, to)
	}
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// sample is an open port's result, one of many alike.
func sample(i int) probe.Result {
	return probe.Result{
		Time: time.Unix(1_795_201_971, 369_785_123).Add(time.Duration(i) * 50 * time.Millisecond), Agent: "fra-1",
		Source: "measurements/mesh", Target: "nyc-1", Remote: netip.MustParseAddrPort("10.0.0.2:7"), LocalPort: uint16(61000 + i%4),
		Outcome: probe.Open, RTT: time.Duration(23456 + i%97), Attempts: 1, Stamp: probe.StampKernel, SYN: uint32(i),
		Lateness: 81 * time.Microsecond, HostDelay: 34 * time.Microsecond,
		SynAck: &probe.SynAck{Seq: uint32(i) * 2654435761, Window: 64240, MSS: 1460, WindowScale: 7, SACKPermitted: true, Timestamps: true, TTL: 64},
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
