package history

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/synmesh/synmesh/internal/convert"
	"github.com/synmesh/synmesh/probe"
	synmeshv1 "github.com/synmesh/synmesh/proto/synmesh/v1"
)

// checkOutcomes sees that a report has, decoded fast, the outcomes that it has when it is unmarshalled.
func checkOutcomes(t interface{ Fatalf(string, ...any) }, d *outcomeDecoder, data []byte) (fast bool) {
	if !d.decode(data) {
		return false
	}
	r := &synmeshv1.Report{}
	if err := proto.Unmarshal(data, r); err != nil {
		t.Fatalf("%x has outcomes, and is no report: %v", data, err)
	}
	if err := convert.CheckReport(r); err != nil {
		t.Fatalf("%x has outcomes, and is not right: %v", data, err)
	}
	var want []Found
	for row := range convert.Rows("a", r) {
		want = append(want, Found{[]byte(row.Target), row.Outcome, row.Timed(), row.RTT})
	}
	if diff := cmp.Diff(want, d.found, cmpopts.EquateEmpty()); diff != "" {
		t.Fatalf("%x: %s", data, diff)
	}
	return true
}

func drawReport(t *rapid.T) *synmeshv1.Report {
	var b convert.Blocks
	for range rapid.IntRange(0, 6).Draw(t, "results") {
		r := probe.Result{
			Source: rapid.SampledFrom([]string{"", "measurements/mesh"}).Draw(t, "source"),
			Target: rapid.SampledFrom([]string{"", "a", "b", "m\u00fcnchen:443", "agent-17"}).Draw(t, "target"),
			Time:   time.Unix(0, rapid.Int64().Draw(t, "time")), LocalPort: 61000, Attempts: 1, Stamp: probe.StampKernel,
			Outcome: rapid.SampledFrom(probe.Outcomes()).Draw(t, "outcome"),
			RTT:     time.Duration(rapid.Int64().Draw(t, "rtt") >> rapid.IntRange(0, 62).Draw(t, "shift")),
		}
		if r.Outcome == probe.Open {
			r.SynAck = &probe.SynAck{Window: rapid.SampledFrom([]uint16{1, 64240}).Draw(t, "window"), WindowScale: 7, TTL: 64}
		}
		if rapid.IntRange(0, 9).Draw(t, "noted") == 0 {
			r.Attempts, r.Retry = 2, &probe.Retry{Answered: rapid.IntRange(0, 2).Draw(t, "answered")}
		}
		for range rapid.SampledFrom([]int{1, 1, 1, 3, 100}).Draw(t, "times") {
			b.Add(&r)
		}
	}
	report := &synmeshv1.Report{Epoch: rapid.Uint64().Draw(t, "epoch"), Sequence: rapid.Uint64().Draw(t, "sequence"), Produced: 7, Blocks: b.Take()}
	if n := len(report.Blocks); n > 0 && rapid.IntRange(0, 9).Draw(t, "wrong") == 0 {
		one := report.Blocks[rapid.IntRange(0, n-1).Draw(t, "which")]
		switch rapid.IntRange(0, 3).Draw(t, "how") {
		case 0:
			one.Rtts = one.Rtts[1:]
		case 1:
			one.Outcomes[0] = 77
		case 2:
			one.SynAckIndexes[0] = 9
		default:
			one.SynAcks = append(one.SynAcks, &synmeshv1.SynAck{Window: 1 << 20})
		}
	}
	return report
}

// One decoder is used for all, with the bytes where those of the report before were.
func TestOutcomesAreThoseOfTheResults(t *testing.T) {
	fast := 0
	rapid.Check(t, func(t *rapid.T) {
		var d outcomeDecoder
		var buf []byte
		for range rapid.IntRange(1, 4).Draw(t, "reports") {
			r := drawReport(t)
			var err error
			if buf, err = (proto.MarshalOptions{}).MarshalAppend(buf[:0], r); err != nil {
				t.Fatal(err)
			}
			if checkOutcomes(t, &d, buf) {
				fast++
			} else if convert.CheckReport(r) == nil {
				t.Fatalf("%v is not decoded", r)
			}
		}
	})
	if fast == 0 {
		t.Error("no report is decoded")
	}
}

// What a target has said is remembered, but not by where it was.
func TestOutcomesOfTheBytesThatWereThereAreForgotten(t *testing.T) {
	var d outcomeDecoder
	var buf []byte
	for _, window := range []uint32{1 << 15, 1 << 16} { // encoded they are equally long, and one is no window
		r := report(1, 1, 1)
		r.Blocks[0].SynAcks, r.Blocks[0].SynAckIndexes = []*synmeshv1.SynAck{{Window: window}}, []uint32{1}
		var err error
		if buf, err = (proto.MarshalOptions{}).MarshalAppend(buf[:0], r); err != nil {
			t.Fatal(err)
		}
		if fast := checkOutcomes(t, &d, buf); fast != (window < 1<<16) {
			t.Errorf("a window of %d: decoded %v", window, fast)
		}
	}
}

func TestUnusualReportsAreLeftToUnmarshalling(t *testing.T) {
	data, err := proto.Marshal(&synmeshv1.Report{Epoch: 1, Sequence: 2})
	if err != nil {
		t.Fatal(err)
	}
	for what, more := range map[string][]byte{
		"the end of a run":    protowire.AppendBytes(protowire.AppendTag(nil, 4, protowire.BytesType), nil),
		"an unknown field":    protowire.AppendVarint(protowire.AppendTag(nil, 1000, protowire.VarintType), 1),
		"a block of nonsense": protowire.AppendBytes(protowire.AppendTag(nil, 3, protowire.BytesType), []byte{0xff}),
		"a field cut off":     {3<<3 | byte(protowire.BytesType), 5, 1},
	} {
		if new(outcomeDecoder).decode(slices.Concat(data, more)) {
			t.Errorf("%s is decoded", what)
		}
	}
	if !new(outcomeDecoder).decode(data) {
		t.Error("a report without blocks is not")
	}
}

func FuzzOutcomes(f *testing.F) {
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, first, second []byte) {
		var d outcomeDecoder
		buf := slices.Clone(first)
		checkOutcomes(t, &d, buf)
		checkOutcomes(t, &d, append(buf[:0], second...))
	})
}
