package convert

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// sameVerdict compares a Checker with what it stands for.
func sameVerdict(c *Checker, data []byte) error {
	var m synmeshv1.Report
	unmarshalled := proto.Unmarshal(data, &m)
	got := c.Check(data)
	if unmarshalled != nil || errors.Is(got, ErrEncoding) {
		if unmarshalled == nil || !errors.Is(got, ErrEncoding) {
			return fmt.Errorf("proto.Unmarshal says %v, and Check %v", unmarshalled, got)
		}
		return nil
	}
	if want := CheckReport(&m); fmt.Sprint(got) != fmt.Sprint(want) {
		return fmt.Errorf("CheckReport says %v, and Check %v", want, got)
	}
	if c.Epoch != m.GetEpoch() || c.Sequence != m.GetSequence() {
		return fmt.Errorf("epoch %d and sequence %d, want %d and %d", c.Epoch, c.Sequence, m.GetEpoch(), m.GetSequence())
	}
	results, want := uint64(0), map[string]bool{}
	for _, b := range m.GetBlocks() {
		results += uint64(len(b.GetOutcomes()))
		want[b.GetSource()] = true
	}
	for _, e := range m.GetRunEnds() {
		want[e.GetRun()] = true
	}
	sources := map[string]bool{}
	for _, s := range c.Sources {
		sources[string(s)] = true
	}
	if c.Results != results || fmt.Sprint(sources) != fmt.Sprint(want) {
		return fmt.Errorf("%d results of %v, want %d of %v", c.Results, sources, results, want)
	}
	return nil
}

// anyBlock is a block that may be right, or wrong in each of its ways.
func anyBlock(t *rapid.T) *synmeshv1.ResultBlock {
	rows := rapid.IntRange(0, 4).Draw(t, "rows")
	odd := func(name string) bool { return rapid.IntRange(0, 60).Draw(t, name) == 60 }
	length := func(name string, optional bool) int {
		if optional && rapid.Bool().Draw(t, "without "+name) {
			return 0
		}
		if odd("other length of " + name) {
			return rapid.IntRange(0, 5).Draw(t, name)
		}
		return rows
	}
	b := &synmeshv1.ResultBlock{Source: rapid.SampledFrom([]string{"runs/a", "measurements/ü", ""}).Draw(t, "source"), Target: "t",
		Address: make([]byte, rapid.SampledFrom([]int{4, 16, 0}).Draw(t, "address")), Port: rapid.SampledFrom([]uint32{0, 443, 65535}).Draw(t, "port"),
		Start: rapid.Int64().Draw(t, "start"), Stamp: rapid.SampledFrom([]synmeshv1.Stamp{1, 2, 3, 4}).Draw(t, "stamp")}
	if odd("header") {
		b.Address, b.Port, b.Stamp = make([]byte, 5), 65536, rapid.SampledFrom([]synmeshv1.Stamp{0, 5, -1}).Draw(t, "no stamp")
	}
	numbers := func(name string) []int64 {
		return slices.Repeat([]int64{rapid.Int64().Draw(t, name)}, length(name, false))
	}
	b.TimeDeltas, b.Rtts, b.Latenesses, b.HostDelays = numbers("delta"), numbers("rtt"), numbers("lateness"), numbers("host delay")
	column := func(name string, optional bool, wrong uint32, right ...uint32) []uint32 {
		n := length(name, optional)
		if odd("wrong " + name) {
			right = append(right, wrong)
		}
		return rapid.SliceOfN(rapid.SampledFrom(right), n, n).Draw(t, name)
	}
	for _, o := range column("outcome", false, rapid.SampledFrom([]uint32{0, 6, 200, 1<<32 - 1}).Draw(t, "no outcome"), 1, 2, 3, 4, 5) {
		b.Outcomes = append(b.Outcomes, synmeshv1.Outcome(int32(o)))
	}
	b.LocalPorts = column("local port", false, 65536, 0, 61000, 65535)
	b.Attempts, b.Drops = column("attempts", true, 1<<31, 1, 3), column("drops", true, 1<<32-1, 0)
	answers := rapid.Uint32Range(0, 2).Draw(t, "SYN-ACKs")
	for range answers {
		a := &synmeshv1.SynAck{Window: rapid.SampledFrom([]uint32{0, 64240, 65535}).Draw(t, "window"), Mss: 1460, Ttl: rapid.SampledFrom([]uint32{64, 255}).Draw(t, "ttl")}
		if odd("SYN-ACK") {
			a.Ttl = 256
		}
		b.SynAcks = append(b.SynAcks, a)
	}
	b.SynAckIndexes = column("index", false, 3, 0, answers)
	b.SynAckSeqs, b.SynSeqs = column("SYN-ACK's number", true, 7, 1<<32-1), column("SYN's number", true, 9, 8)
	if odd("note") {
		b.Notes = []*synmeshv1.ResultNote{{Row: rapid.Uint32Range(0, 4).Draw(t, "row"), Error: "e", Retry: &synmeshv1.Retry{Lost: rapid.SampledFrom([]synmeshv1.Lost{0, 1, 2, 3}).Draw(t, "lost")}}}
	}
	return b
}

func anyReport(t *rapid.T) []byte {
	m := &synmeshv1.Report{Epoch: rapid.Uint64().Draw(t, "epoch"), Sequence: rapid.Uint64().Draw(t, "sequence"), Produced: 3}
	for range rapid.IntRange(0, 3).Draw(t, "blocks") {
		m.Blocks = append(m.Blocks, anyBlock(t))
	}
	if rapid.Bool().Draw(t, "run end") {
		m.RunEnds = []*synmeshv1.RunEnd{{Run: "runs/b", Produced: 4}}
	}
	data, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestACheckerSaysWhatUnmarshallingAndCheckReportSay(t *testing.T) {
	var c Checker
	right := 0
	rapid.Check(t, func(t *rapid.T) {
		data := anyReport(t)
		for range rapid.IntRange(0, 2).Draw(t, "flipped") {
			if len(data) > 0 {
				data[rapid.IntRange(0, len(data)-1).Draw(t, "at")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
			}
		}
		if err := sameVerdict(&c, data); err != nil {
			t.Fatal(err)
		}
		if c.Check(data) == nil && c.Results > 0 {
			right++
		}
	})
	if right == 0 {
		t.Error("none of the reports was right and had results")
	}
}

// A Checker that knows a block's shape still sees what is wrong with one that is a little different.
func TestEveryByteOfAKnownShapeIsLookedAt(t *testing.T) {
	block, err := proto.Marshal(&synmeshv1.ResultBlock{
		Source: "runs/a", Target: "t", Address: []byte{10, 0, 0, 1}, Port: 443, Start: 1 << 60, TimeDeltas: []int64{0, 5}, Outcomes: []synmeshv1.Outcome{1, 4}, Rtts: []int64{20e6, 0},
		LocalPorts: []uint32{61000, 5}, Attempts: []uint32{1, 2}, Stamp: 2, Latenesses: []int64{40e3, 1}, HostDelays: []int64{30, 4}, Drops: []uint32{0, 1},
		SynAcks:       []*synmeshv1.SynAck{{Window: 64240, Mss: 1460, WindowScale: proto.Uint32(7), SackPermitted: true, Timestamps: true, Ttl: 200}},
		SynAckIndexes: []uint32{1, 0}, SynAckSeqs: []uint32{7, 0}, SynSeqs: []uint32{8, 9}})
	if err != nil {
		t.Fatal(err)
	}
	data := protowire.AppendBytes(protowire.AppendTag(nil, 3, protowire.BytesType), block)
	var c Checker
	for i := range data {
		for _, flip := range []byte{1, 2, 4, 8, 16, 32, 64, 128, 0x7f, 0xff} {
			if err := sameVerdict(&c, data); err != nil {
				t.Fatal(err)
			}
			if c.Shape(block) == nil || c.known.find(block) == nil {
				t.Fatal("the shape of the block is not known")
			}
			data[i] ^= flip
			if err := sameVerdict(&c, data); err != nil {
				t.Errorf("byte %d with bits %#x flipped: %v", i, flip, err)
			}
			data[i] ^= flip
		}
	}
}

func TestWhatOtherEncodersMayDoIsUnderstood(t *testing.T) {
	whole := func(b *synmeshv1.ResultBlock) []byte {
		data, err := proto.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	block := &synmeshv1.ResultBlock{Source: "runs/a", Stamp: 2, TimeDeltas: []int64{0}, Outcomes: []synmeshv1.Outcome{1}, Rtts: []int64{1}, LocalPorts: []uint32{1},
		Latenesses: []int64{1}, HostDelays: []int64{-1}, SynAckIndexes: []uint32{0}}
	report := func(block []byte) []byte {
		data := protowire.AppendVarint(protowire.AppendTag(nil, 2, protowire.VarintType), 1)
		return protowire.AppendBytes(protowire.AppendTag(data, 3, protowire.BytesType), block)
	}
	tests := map[string][]byte{
		"usual":                   report(whole(block)),
		"columns not packed":      report(append(whole(&synmeshv1.ResultBlock{Stamp: 2}), 6<<3, 0, 7<<3, 1, 8<<3, 1, 9<<3, 1, 12<<3, 1, 13<<3, 1, 0x80, 1, 0)),
		"columns in two parts":    report(append(append(whole(block), whole(block)...), whole(block)...)),
		"an unknown field":        report(append(whole(block), 0xf8, 0x07, 1)),
		"a group":                 report(append(whole(block), 0xfb, 0x07, 0xfc, 0x07)),
		"source is not UTF-8":     report(append([]byte{1<<3 | 2, 1, 0xff}, whole(block)[8:]...)),
		"a SYN-ACK that is none":  report(append(whole(block), 15<<3|2, 1, 0xff)),
		"sequence twice":          append(report(nil), report(whole(block))...),
		"a field number too high": append(report(whole(block)), 0x80, 0x80, 0x80, 0x80, 0x80, 0x01),
		"a long port":             report(append(whole(block), 4<<3, 0x80, 0x80, 0x80, 0x80, 0x90, 0x01)),
		"ends in a block":         report(whole(block))[:20],
		"nothing":                 nil,
	}
	for name, data := range tests {
		t.Run(name, func(t *testing.T) {
			if err := sameVerdict(new(Checker), data); err != nil {
				t.Error(err)
			}
		})
	}
}

func FuzzChecker(f *testing.F) {
	for _, rows := range []int{0, 1, 3} {
		b := &synmeshv1.ResultBlock{Source: "runs/a", Target: "t", Address: []byte{10, 0, 0, 1}, Port: 443, Start: 1 << 60, Stamp: 2, SynAcks: []*synmeshv1.SynAck{{Window: 64240, Ttl: 64}}}
		for row := range rows {
			b.TimeDeltas, b.Outcomes, b.Rtts = append(b.TimeDeltas, int64(-row)), append(b.Outcomes, 1), append(b.Rtts, int64(row)<<40)
			b.LocalPorts, b.Latenesses, b.HostDelays = append(b.LocalPorts, 61000), append(b.Latenesses, 5), append(b.HostDelays, -5)
			b.SynAckIndexes, b.SynAckSeqs = append(b.SynAckIndexes, 1), append(b.SynAckSeqs, 9)
		}
		data, err := proto.Marshal(&synmeshv1.Report{Epoch: 1, Sequence: 2, Blocks: []*synmeshv1.ResultBlock{b, b}, RunEnds: []*synmeshv1.RunEnd{{Run: "runs/a"}}, Preview: uint64(rows)})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var c Checker
		for range 2 { // the second time, with what it remembers
			if err := sameVerdict(&c, data); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func BenchmarkChecker(b *testing.B) {
	m := &synmeshv1.Report{Epoch: 1, Sequence: 2}
	for i := range 1000 {
		m.Blocks = append(m.Blocks, &synmeshv1.ResultBlock{Source: "measurements/mesh", Target: fmt.Sprintf("10.0.%d.%d:443", i>>8, i&255), Address: []byte{10, 0, byte(i >> 8), byte(i)}, Port: 443,
			Start: 1 << 60, TimeDeltas: []int64{0}, Outcomes: []synmeshv1.Outcome{1}, Rtts: []int64{20e6 + int64(i)}, LocalPorts: []uint32{61000}, Stamp: 2, Latenesses: []int64{40e3}, HostDelays: []int64{30e3},
			SynAcks: []*synmeshv1.SynAck{{Window: 64240, Mss: 1460, WindowScale: proto.Uint32(7), SackPermitted: true, Timestamps: true, Ttl: 57}}, SynAckIndexes: []uint32{1}})
	}
	data, err := proto.Marshal(m)
	if err != nil {
		b.Fatal(err)
	}
	var c Checker
	for b.Loop() {
		if err := c.Check(data); err != nil || c.Results != 1000 {
			b.Fatal(err, c.Results)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/result")
}
