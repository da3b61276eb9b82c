package history

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/synmesh/synmesh/internal/convert"
	synmeshv1 "github.com/synmesh/synmesh/proto/synmesh/v1"
)

// manySeries makes a report of a result for each of some series, whose times
// and durations are whole microseconds, with all that results may have.
func manySeries(rnd *rand.Rand, at time.Time, sequence uint64, series int) *synmeshv1.Report {
	return seldom(rnd, at, sequence, series, 200)
}

// seldom is manySeries with something special in four of so many results.
func seldom(rnd *rand.Rand, at time.Time, sequence uint64, series, of int) *synmeshv1.Report {
	r := &synmeshv1.Report{Epoch: 1, Sequence: sequence, Produced: sequence * uint64(series)}
	for i := range series {
		late := int64(60*math.Exp(0.4*rnd.NormFloat64())) * 1000
		b := &synmeshv1.ResultBlock{
			Source: "measurements/mesh", Target: fmt.Sprintf("agent-%04d", i), Address: []byte{10, 0, byte(i >> 8), byte(i)}, Port: 7777,
			Start: at.Add(time.Duration(rnd.IntN(100_000))*time.Microsecond).UnixMicro()*1000 + late, Stamp: synmeshv1.Stamp_STAMP_KERNEL,
			TimeDeltas: []int64{0}, Outcomes: []synmeshv1.Outcome{synmeshv1.Outcome_OUTCOME_OPEN},
			Rtts: []int64{int64(1e6 * math.Exp(0.3*rnd.NormFloat64()))}, LocalPorts: []uint32{61000 + 7*uint32(sequence%5)},
			Latenesses: []int64{late}, HostDelays: []int64{int64(34*math.Exp(0.3*rnd.NormFloat64())) * 1000},
			SynAcks:       []*synmeshv1.SynAck{{Window: 64240, Mss: 1460, WindowScale: proto.Uint32(7), SackPermitted: true, Timestamps: true, Ttl: 64}},
			SynAckIndexes: []uint32{1},
		}
		switch rnd.IntN(of) {
		case 0:
			b.Outcomes[0], b.Rtts[0], b.SynAckIndexes[0], b.SynAcks = synmeshv1.Outcome_OUTCOME_TIMEOUT, 0, 0, nil
			b.Attempts = []uint32{3}
		case 1:
			b.Outcomes[0], b.Rtts[0], b.SynAckIndexes[0], b.SynAcks = synmeshv1.Outcome_OUTCOME_UNREACHABLE, 0, 0, nil
			b.Notes = []*synmeshv1.ResultNote{{Icmp: &synmeshv1.Icmp{Type: 3, Code: 1, From: []byte{10, 0, 0, 1}}}}
		case 2:
			b.Attempts = []uint32{2}
			b.Notes = []*synmeshv1.ResultNote{{Retry: &synmeshv1.Retry{Waited: durationpb.New(time.Second)}}}
			b.Rtts[0] = 0
		case 3:
			b.Drops, b.SynSeqs, b.SynAckSeqs = []uint32{7}, []uint32{math.MaxUint32}, []uint32{1}
		}
		r.Blocks = append(r.Blocks, b)
	}
	return r
}

// runReport is of another kind: several results of one series, of two addresses, and the end of a run.
func runReport(rnd *rand.Rand, at time.Time, sequence uint64) *synmeshv1.Report {
	r := manySeries(rnd, at, sequence, 2)
	r.Epoch = 2
	for i, b := range r.Blocks {
		b.Source, b.Target = "runs/1", "web"
		for n := range 3 {
			b.TimeDeltas, b.Outcomes, b.Rtts = append(b.TimeDeltas, 1e6), append(b.Outcomes, 1), append(b.Rtts, int64(1e6+n))
			b.LocalPorts, b.Latenesses, b.HostDelays = append(b.LocalPorts, uint32(61000+i)), append(b.Latenesses, 0), append(b.HostDelays, 5000)
			b.SynAckIndexes = append(b.SynAckIndexes, 0)
		}
		b.Attempts, b.Drops, b.SynSeqs, b.SynAckSeqs = nil, nil, nil, nil
	}
	r.RunEnds = []*synmeshv1.RunEnd{{Run: "runs/1", Produced: 8}}
	return r
}

// entriesOf reads all; scanning goes on from a cursor now and then.
func entriesOf(t testing.TB, s *running, f Filter) (list []Entry) {
	t.Helper()
	var after Cursor
	for again := true; again; {
		again = false
		for e, err := range s.ScanSeries(t.Context(), f, time.Time{}, time.Time{}, after) {
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, e)
			after = e.Cursor
			if len(list)%37 == 0 {
				again = true
				break
			}
		}
	}
	return list
}

// rowsOf lists what is in entries, as text, with all that tells entries apart.
func rowsOf(t testing.TB, list []Entry) (rows []string) {
	t.Helper()
	for _, e := range list {
		for _, b := range e.Report.GetBlocks() {
			if u := b.ProtoReflect().GetUnknown(); len(u) > 0 {
				rows = append(rows, fmt.Sprint(u))
			}
		}
		rows = append(rows, fmt.Sprint(e.Cursor, e.Stored, e.Agent, e.Report.GetEpoch(), e.Report.GetSequence(), e.Report.GetProduced(), e.Report.GetRunEnds()))
		if convert.CheckReport(e.Report) != nil {
			rows = append(rows, fmt.Sprint(e.Report))
			continue
		}
		for r := range convert.Rows(e.Agent, e.Report) {
			m := convert.FromResult(r)
			rows = append(rows, fmt.Sprint(m.GetTime().AsTime().UnixNano(), m))
		}
	}
	return rows
}

// What Scan returns is the same before and after the archive took it over.
func TestTheArchiveHasWhatTheIntakeHad(t *testing.T) {
	c := newClock("2026-11-20T12:00:00Z")
	cfg := Config{Dir: t.TempDir(), now: c.now, noArchive: true, Rotation: 20 * time.Second}
	s := start(t, cfg)
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range uint64(50) {
		for a := range 3 {
			agent := fmt.Sprintf("agent-%04d", a)
			r := manySeries(rnd, c.now(), i+1, 30)
			switch {
			case i == 17 && a == 1:
				r.Blocks[3].Target = string(make([]byte, 5000)) // too long for a key
			case i == 18 && a == 1:
				r.Blocks[3].Rtts = nil // CheckReport would refuse it
			case i == 19:
				r.Blocks = nil
			case i == 20 && a == 2: // of a version to come
				r.Blocks[2].ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 999, protowire.VarintType), 1))
			}
			for _, r := range []*synmeshv1.Report{r, runReport(rnd, c.now(), i+1)} {
				if stored, err := s.Append(t.Context(), agent, r); err != nil || !stored {
					t.Fatal(stored, err)
				}
			}
		}
		c.add(time.Second)
	}
	filters := []Filter{{}, {Agent: "agent-0001"}, {Source: "runs/1"}, {Target: "agent-0007"},
		{Source: "measurements/mesh", Agent: "agent-0002", Target: "agent-0003"}, {Agent: "nobody"}}
	want := make([][]string, len(filters))
	for i, f := range filters {
		want[i] = rowsOf(t, entriesOf(t, s, f))
	}
	if len(want[0]) < 50*3*30 {
		t.Fatalf("%d rows: the test does not see what it is about", len(want[0]))
	}
	check := func(when string) {
		t.Helper()
		for i, f := range filters {
			got := rowsOf(t, entriesOf(t, s, f))
			for n := range max(len(got), len(want[i])) {
				if n >= len(got) || n >= len(want[i]) || got[n] != want[i][n] {
					t.Fatalf("%s, %+v: %d rows, not %d; row %d differs:\n%s", when, f, len(got), len(want[i]), n,
						gocmp.Diff(want[i][min(n, len(want[i])-1)], got[min(n, len(got)-1)], protocmp.Transform()))
				}
			}
		}
	}
	if err := s.archiveAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := fileNames(t, cfg.Dir); !slices.Equal(got, []string{"hours-20261120-1-1.db", "hours-20261120-2-2.db", "intake-20261120-3.db",
		"minutes-20261120-1-1.db", "minutes-20261120-2-2.db", "raw-20261120-1-1.db", "raw-20261120-2-2.db"}) {
		t.Errorf("there are %v", got)
	}
	check("archived")
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	s = start(t, cfg)
	check("opened again")
	if stored, err := s.Append(t.Context(), "agent-0000", manySeries(rnd, c.now(), 50, 30)); stored || err != nil {
		t.Error("a report that is in the archive is stored again", err)
	}
	if st := s.Stats(); st.CorruptRecords+st.DamagedFiles != 0 {
		t.Errorf("%+v", st)
	}
}

// Whoever adds a field has to teach it to the archive. Until then, reports that have it are
// kept as they came, and are not summed up.
func TestTheArchiveKnowsAllFieldsOfReports(t *testing.T) {
	for m, most := range map[proto.Message]int{&synmeshv1.Report{}: reportFields, &synmeshv1.ResultBlock{}: blockFields} {
		if d := m.ProtoReflect().Descriptor(); d.Fields().Len() != most {
			t.Errorf("%s has %d fields, and the archive knows %d: see known", d.FullName(), d.Fields().Len(), most)
		}
	}
}
