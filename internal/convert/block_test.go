package convert

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// rowsOf copies what Rows gives.
func rowsOf(agent string, m *synmeshv1.Report) []probe.Result {
	var all []probe.Result
	for r := range Rows(agent, m) {
		c := *r
		if r.SynAck != nil {
			synAck := *r.SynAck
			c.SynAck = &synAck
		}
		all = append(all, c)
	}
	return all
}

// gathered returns the report of some results.
func gathered(keepSeq func(string) bool, results []probe.Result) *synmeshv1.Report {
	b := Blocks{KeepSeq: keepSeq}
	for i := range results {
		b.Add(&results[i])
	}
	return &synmeshv1.Report{Blocks: b.Take()}
}

func always(string) bool { return true }

func runsOnly(source string) bool { return strings.HasPrefix(source, "runs/") }

// inBlocks brings results into the order that blocks have: one series after the
// other, in the order of their first results.
func inBlocks(results []probe.Result) []probe.Result {
	key := func(r *probe.Result) string { return fmt.Sprintln(r.Source, r.Target, r.Remote, r.Stamp) }
	place := make(map[string]int)
	for i := range results {
		if k := key(&results[i]); place[k] == 0 {
			place[k] = len(place) + 1
		}
	}
	sorted := slices.Clone(results)
	slices.SortStableFunc(sorted, func(a, b probe.Result) int { return place[key(&a)] - place[key(&b)] })
	return sorted
}

func TestBlocksThatWereGivenBackKeepNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := Blocks{KeepSeq: runsOnly}
		for range 4 {
			results := rapid.SliceOfN(anyResult, 0, 60).Draw(t, "results")
			for i := range results {
				b.Add(&results[i])
			}
			got, want := &synmeshv1.Report{Blocks: b.Take()}, gathered(runsOnly, results)
			if !proto.Equal(got, want) {
				t.Fatalf("with blocks used before: %v\nwith new ones: %v", got, want)
			}
			b.GiveBack(got.Blocks)
		}
	})
}

func TestResultsComeOutOfBlocksAsTheyWentIn(t *testing.T) {
	for name, keep := range map[string]func(string) bool{"keeping no sequence numbers": nil, "keeping all": always, "keeping those of runs": runsOnly} {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				results := rapid.SliceOfN(anyResult, 0, 60).Draw(t, "results")
				report := wired(t, gathered(keep, results), &synmeshv1.Report{})
				if err := CheckReport(report); err != nil {
					t.Fatal(err)
				}
				want := inBlocks(results)
				for i := range want {
					if keep == nil || !keep(want[i].Source) {
						want[i] = withoutSeqs(want[i])
					}
				}
				if d := cmp.Diff(want, rowsOf("fra-1", report), same); d != "" {
					t.Fatalf("(-want +got):\n%s", d)
				}
			})
		})
	}
}

// withoutSeqs returns the result without its sequence numbers.
func withoutSeqs(r probe.Result) probe.Result {
	r.SYN = 0
	if r.SynAck != nil {
		synAck := *r.SynAck
		synAck.Seq = 0
		r.SynAck = &synAck
	}
	return r
}

func TestASeriesIsOneBlock(t *testing.T) {
	var results []probe.Result
	for i := range 4 {
		r := sample(i)
		results = append(results, r)
		other := r
		other.Target = "fra-2"
		results = append(results, other)
	}
	for _, change := range []func(*probe.Result){
		func(r *probe.Result) { r.Source = "runs/k3" },
		func(r *probe.Result) { r.Stamp = probe.StampHardware },
		func(r *probe.Result) { r.Remote = remotes[2] },
	} {
		r := sample(9)
		change(&r)
		results = append(results, r)
	}
	var rows []int
	for _, b := range gathered(nil, results).GetBlocks() {
		rows = append(rows, len(b.GetOutcomes()))
	}
	if want := []int{4, 4, 1, 1, 1}; !slices.Equal(rows, want) {
		t.Errorf("blocks of %v rows, want %v", rows, want)
	}
}

func TestTakingBlocksStartsAnew(t *testing.T) {
	var b Blocks
	if b.Len() != 0 || b.Take() != nil {
		t.Error("there is something in empty blocks")
	}
	for i := range 3 {
		r := sample(i)
		b.Add(&r)
	}
	if b.Len() != 3 {
		t.Errorf("%d results, want 3", b.Len())
	}
	first := b.Take()
	if b.Len() != 0 {
		t.Errorf("%d results were left", b.Len())
	}
	r := sample(3)
	b.Add(&r)
	second := b.Take()
	if len(first) != 1 || len(first[0].GetOutcomes()) != 3 || len(second) != 1 || len(second[0].GetOutcomes()) != 1 {
		t.Errorf("%d and %d blocks, want one of 3 rows and one of 1", len(first), len(second))
	}
	if got := second[0].GetStart(); got != r.Time.UnixNano() {
		t.Errorf("the second block starts at %d, want %d", got, r.Time.UnixNano())
	}
}

func TestAddedResultsMayBeUsedAgain(t *testing.T) {
	r := sample(0)
	want := withoutSeqs(sample(0))
	var b Blocks
	b.Add(&r)
	*r.SynAck, r = probe.SynAck{}, probe.Result{}
	if d := cmp.Diff([]probe.Result{want}, rowsOf("fra-1", &synmeshv1.Report{Blocks: b.Take()}), same); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestColumnsOfTheUsualStayEmpty(t *testing.T) {
	results := []probe.Result{sample(0), sample(1), sample(2)}
	b := gathered(nil, results).GetBlocks()[0]
	if b.Attempts != nil || b.Drops != nil || b.SynAckSeqs != nil || b.SynSeqs != nil || b.Notes != nil || len(b.GetSynAcks()) != 1 {
		t.Errorf("attempts %v, drops %v, sequence numbers %v and %v, notes %v and %d kinds of SYN-ACK, want none and 1",
			b.GetAttempts(), b.GetDrops(), b.GetSynAckSeqs(), b.GetSynSeqs(), b.GetNotes(), len(b.GetSynAcks()))
	}
	results[1].Attempts, results[2].Drops = 3, 5
	b = gathered(nil, results).GetBlocks()[0]
	if !slices.Equal(b.GetAttempts(), []uint32{1, 3, 1}) || !slices.Equal(b.GetDrops(), []uint32{0, 0, 5}) {
		t.Errorf("attempts %v and drops %v, want [1 3 1] and [0 0 5]", b.GetAttempts(), b.GetDrops())
	}
}

func TestRowsStopWhenNobodyWantsMore(t *testing.T) {
	second := sample(2)
	second.Target = "fra-2"
	report := gathered(nil, []probe.Result{sample(0), sample(1), second})
	for stop := 1; stop <= 3; stop++ {
		n := 0
		for range Rows("fra-1", report) {
			if n++; n == stop {
				break
			}
		}
		if n != stop {
			t.Errorf("%d rows, want %d", n, stop)
		}
	}
}

func TestARoundTripBelongsToAnAnswer(t *testing.T) {
	report := gathered(nil, []probe.Result{sample(0), sample(1)})
	report.GetBlocks()[0].Outcomes[1] = synmeshv1.Outcome_OUTCOME_TIMEOUT
	must(t, CheckReport(report))
	if rows := rowsOf("fra-1", report); rows[0].RTT == 0 || rows[1].RTT != 0 {
		t.Errorf("round trips %v and %v, want none of the timeout", rows[0].RTT, rows[1].RTT)
	}
}

func TestAWindowIsNeverScaledByMoreThan14(t *testing.T) {
	report := gathered(nil, []probe.Result{sample(0)})
	report.GetBlocks()[0].GetSynAcks()[0].WindowScale = proto.Uint32(200) // RFC 7323 section 2.3
	must(t, CheckReport(report))
	if got := rowsOf("fra-1", report)[0].SynAck.WindowScale; got != 14 {
		t.Errorf("the shift count is %d, want 14", got)
	}
}

func TestAReportThatIsNotWholeIsRefused(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*synmeshv1.ResultBlock)
		want   string
	}{
		{"a time is missing", func(b *synmeshv1.ResultBlock) { b.TimeDeltas = b.TimeDeltas[1:] }, "time_deltas has 2 rows and outcomes has 3; all columns are equally long"},
		{"an outcome is missing", func(b *synmeshv1.ResultBlock) { b.Outcomes = b.Outcomes[1:] }, "time_deltas has 3 rows and outcomes has 2; all columns are equally long"},
		{"all outcomes are missing", func(b *synmeshv1.ResultBlock) { b.Outcomes = nil }, "time_deltas has 3 rows and outcomes has 0; all columns are equally long"},
		{"a round trip is missing", func(b *synmeshv1.ResultBlock) { b.Rtts = b.Rtts[1:] }, "rtts has 2 rows and outcomes has 3; all columns are equally long"},
		{"the round trips are missing", func(b *synmeshv1.ResultBlock) { b.Rtts = nil }, "rtts has 0 rows and outcomes has 3; all columns are equally long"},
		{"a local port is missing", func(b *synmeshv1.ResultBlock) { b.LocalPorts = b.LocalPorts[1:] }, "local_ports has 2 rows and outcomes has 3; all columns are equally long"},
		{"a number of attempts is missing", func(b *synmeshv1.ResultBlock) { b.Attempts = []uint32{1, 2} }, "attempts has 2 rows and outcomes has 3; all columns are equally long"},
		{"a lateness is missing", func(b *synmeshv1.ResultBlock) { b.Latenesses = b.Latenesses[1:] }, "latenesses has 2 rows and outcomes has 3; all columns are equally long"},
		{"a host delay is one too many", func(b *synmeshv1.ResultBlock) { b.HostDelays = append(b.HostDelays, 0) }, "host_delays has 4 rows and outcomes has 3; all columns are equally long"},
		{"a number of drops is one too many", func(b *synmeshv1.ResultBlock) { b.Drops = []uint32{0, 0, 0, 1} }, "drops has 4 rows and outcomes has 3; all columns are equally long"},
		{"an index is missing", func(b *synmeshv1.ResultBlock) { b.SynAckIndexes = b.SynAckIndexes[1:] }, "syn_ack_indexes has 2 rows and outcomes has 3; all columns are equally long"},
		{"a sequence number is missing", func(b *synmeshv1.ResultBlock) { b.SynAckSeqs = []uint32{1} }, "syn_ack_seqs has 1 rows and outcomes has 3; all columns are equally long"},
		{"a SYN's sequence number is missing", func(b *synmeshv1.ResultBlock) { b.SynSeqs = []uint32{1, 2} }, "syn_seqs has 2 rows and outcomes has 3; all columns are equally long"},
		{"the address is no address", func(b *synmeshv1.ResultBlock) { b.Address = []byte{10, 0, 0} }, "address has 3 bytes; it has 4 or 16, or none"},
		{"the port is too high", func(b *synmeshv1.ResultBlock) { b.Port = 65536 }, "port 65536 is above 65535"},
		{"the stamp is not said", func(b *synmeshv1.ResultBlock) { b.Stamp = 0 }, "stamp: 0 is none"},
		{"the stamp is unknown", func(b *synmeshv1.ResultBlock) { b.Stamp = 5 }, "stamp: 5 is none"},
		{"the stamp would be known if it were cut", func(b *synmeshv1.ResultBlock) { b.Stamp = 256 + 1 }, "stamp: 257 is none"},
		{"an outcome is not said", func(b *synmeshv1.ResultBlock) { b.Outcomes[1] = 0 }, "outcomes[1]: 0 is no outcome"},
		{"an outcome is unknown", func(b *synmeshv1.ResultBlock) { b.Outcomes[2] = 6 }, "outcomes[2]: 6 is no outcome"},
		{"an outcome is negative", func(b *synmeshv1.ResultBlock) { b.Outcomes[0] = -1 }, "outcomes[0]: -1 is no outcome"},
		{"a local port is too high", func(b *synmeshv1.ResultBlock) { b.LocalPorts[2] = 1 << 16 }, "local_ports 65536 is above 65535"},
		{"an index leads beyond the kinds", func(b *synmeshv1.ResultBlock) { b.SynAckIndexes[1] = 2 }, "syn_ack_indexes[1] is 2 and there are 1"},
		{"an index leads into nothing", func(b *synmeshv1.ResultBlock) { b.SynAcks = nil }, "syn_ack_indexes[0] is 1 and there are 0"},
		{"an index is beyond all numbers", func(b *synmeshv1.ResultBlock) { b.SynAckIndexes[0] = 1<<32 - 1 }, "syn_ack_indexes[0] is 4294967295 and there are 1"},
		{"a window is too large", func(b *synmeshv1.ResultBlock) { b.SynAcks[0].Window = 1 << 16 }, "syn_acks[0].window 65536 is above 65535"},
		{"an MSS is too large", func(b *synmeshv1.ResultBlock) { b.SynAcks[0].Mss = 1 << 16 }, "syn_acks[0].mss 65536 is above 65535"},
		{"a TTL is too large", func(b *synmeshv1.ResultBlock) { b.SynAcks[0].Ttl = 256 }, "syn_acks[0].ttl 256 is above 255"},
		{"a note is about no row", func(b *synmeshv1.ResultBlock) { b.Notes = []*synmeshv1.ResultNote{{Row: 3}} }, "notes[0] is about row 3 of 3"},
		{"a note is about a row beyond all numbers", func(b *synmeshv1.ResultBlock) { b.Notes = []*synmeshv1.ResultNote{{Row: 1<<32 - 1}} }, "notes[0] is about row 4294967295 of 3"},
		{"notes go backwards", func(b *synmeshv1.ResultBlock) { b.Notes = []*synmeshv1.ResultNote{{Row: 1}, {Row: 0}} }, "notes[1] is about row 0, after row 1; rows rise"},
		{"two notes are about one row", func(b *synmeshv1.ResultBlock) { b.Notes = []*synmeshv1.ResultNote{{Row: 1}, {Row: 1}} }, "notes[1] is about row 1, after row 1; rows rise"},
		{"an ICMP error comes from nowhere", func(b *synmeshv1.ResultBlock) {
			b.Notes = []*synmeshv1.ResultNote{{Error: "x"}, {Row: 2, Icmp: &synmeshv1.Icmp{}}}
		}, "notes[1]: icmp.from has 0 bytes; an address has 4 or 16"},
		{"a loss is unknown", func(b *synmeshv1.ResultBlock) {
			b.Notes = []*synmeshv1.ResultNote{{Retry: &synmeshv1.Retry{Lost: 3}}}
		}, "notes[0]: retry.lost: 3 is none"},
		{"a close has no ending", func(b *synmeshv1.ResultBlock) {
			b.Notes = []*synmeshv1.ResultNote{{Close: &synmeshv1.Close{}}}
		}, "notes[0]: close.ending: 0 is none"},
		{"a close has an unknown ending", func(b *synmeshv1.ResultBlock) {
			b.Notes = []*synmeshv1.ResultNote{{Close: &synmeshv1.Close{Ending: 256 + 1}}}
		}, "notes[0]: close.ending: 257 is none"},
		{"an ICMP type is too high", func(b *synmeshv1.ResultBlock) {
			b.Notes = []*synmeshv1.ResultNote{{Icmp: &synmeshv1.Icmp{Type: 256, From: []byte{10, 0, 0, 1}}}}
		}, "notes[0]: icmp.type 256 is above 255"},
		{"an ICMP code is too high", func(b *synmeshv1.ResultBlock) {
			b.Notes = []*synmeshv1.ResultNote{{Icmp: &synmeshv1.Icmp{Code: 256, From: []byte{10, 0, 0, 1}}}}
		}, "notes[0]: icmp.code 256 is above 255"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			other := sample(0)
			other.Target = "fra-2"
			report := gathered(nil, []probe.Result{other, sample(0), sample(1), sample(2)})
			must(t, CheckReport(report))
			tt.change(report.GetBlocks()[1])
			if err := CheckReport(report); err == nil || err.Error() != "blocks[1]: "+tt.want {
				t.Errorf("CheckReport says\n%v\nwant\nblocks[1]: %s", err, tt.want)
			}
		})
	}
}

func TestAReportWithoutResultsIsWhole(t *testing.T) {
	for name, m := range map[string]*synmeshv1.Report{
		"none at all": nil, "no blocks": {}, "a block without rows": {Blocks: []*synmeshv1.ResultBlock{{Stamp: synmeshv1.Stamp_STAMP_KERNEL}}},
	} {
		t.Run(name, func(t *testing.T) {
			if err := CheckReport(m); err != nil {
				t.Error(err)
			}
			if rows := rowsOf("fra-1", m); rows != nil {
				t.Errorf("%d rows, want none", len(rows))
			}
		})
	}
}

func FuzzReport(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		var report synmeshv1.Report
		if proto.Unmarshal(b, &report) != nil || CheckReport(&report) != nil {
			return
		}
		want := 0
		for _, b := range report.GetBlocks() {
			want += len(b.GetOutcomes())
		}
		var again Blocks
		var summary probe.Summary
		for r := range Rows("fra-1", &report) {
			again.Add(r)
			summary.Add(r)
			if _, err := json.Marshal(r); err != nil {
				t.Fatalf("a row that cannot be shown: %v", err)
			}
			back, err := ToResult(FromResult(r))
			if err != nil {
				t.Fatalf("a row that cannot be served: %v", err)
			}
			if d := cmp.Diff(*r, back, same); d != "" {
				t.Fatalf("served as another (-row +served):\n%s", d)
			}
		}
		if again.Len() != want || summary.Sent() != want {
			t.Fatalf("%d rows, want %d", again.Len(), want)
		}
		if err := CheckReport(&synmeshv1.Report{Blocks: again.Take()}); err != nil {
			t.Fatalf("rows that cannot be reported again: %v", err)
		}
	})
}

// perBlock is how many rows the benchmarks' blocks have: a minute's at 20 a second.
const perBlock = 1200

func TestRowsAreGatheredAndReadWithoutGarbage(t *testing.T) {
	var results []probe.Result
	for i := range perBlock {
		results = append(results, sample(i))
	}
	report := gathered(always, results)
	// What a block takes may not depend on its rows, but for columns that grow.
	if n := testing.AllocsPerRun(10, func() {
		for range Rows("fra-1", report) {
		}
	}); n > 8 {
		t.Errorf("reading %d rows takes %v allocations, want 8 at most", perBlock, n)
	}
	if n := testing.AllocsPerRun(10, func() { gathered(always, results) }); n > perBlock/8 {
		t.Errorf("gathering %d rows takes %v allocations, want %d at most", perBlock, n, perBlock/8)
	}
}

func BenchmarkBlocksAdd(b *testing.B) {
	var results []probe.Result
	for i := range perBlock {
		results = append(results, sample(i))
	}
	blocks := Blocks{KeepSeq: always}
	b.ReportAllocs()
	for b.Loop() {
		for i := range results {
			blocks.Add(&results[i])
		}
		blocks.Take()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*perBlock), "ns/result")
}

func BenchmarkRows(b *testing.B) {
	var results []probe.Result
	for i := range perBlock {
		results = append(results, sample(i))
	}
	report := gathered(always, results)
	b.ReportAllocs()
	var sum time.Duration
	for b.Loop() {
		for r := range Rows("fra-1", report) {
			sum += r.RTT
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*perBlock), "ns/result")
}
