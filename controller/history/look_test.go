package history

import (
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/synmesh/synmesh/probe"
	synmeshv1 "github.com/synmesh/synmesh/proto/synmesh/v1"
)

// rowsLooked is what a looker has found, as text would have it.
type rowsLooked struct {
	epoch, sequence, produced uint64
	rows                      []rowLooked
}

type rowLooked struct {
	source, target string
	at             int64
	outcome        probe.Outcome
	rtt            int64
}

func rowsOfBlock(m *synmeshv1.ResultBlock) (list []rowLooked) {
	at := m.GetStart()
	for i, o := range m.GetOutcomes() {
		at += m.GetTimeDeltas()[i]
		list = append(list, rowLooked{m.GetSource(), m.GetTarget(), at, probe.Outcome(o), m.GetRtts()[i]})
	}
	return list
}

func (l *looker) looked() rowsLooked {
	all := rowsLooked{l.epoch, l.sequence, l.produced, nil}
	for i := range l.blocks {
		b := &l.blocks[i]
		if b.shape == nil {
			all.rows = append(all.rows, rowsOfBlock(b.message)...)
			continue
		}
		source, target := b.names()
		if !b.has(source, target) || b.has(target+".", source) {
			panic("a block's names are its own, and no others")
		}
		all.rows = append(all.rows, rowLooked{source, target, b.time(), b.outcome(), b.rtt()})
	}
	return all
}

// What a looker finds is what proto.Unmarshal does, whatever it has looked at before, and it takes
// what the archive takes.
func TestALookerFindsWhatIsInAReport(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var l looker
		var buf []byte
		for range rapid.IntRange(1, 4).Draw(t, "reports") {
			r := drawReport(t)
			var err error
			if buf, err = (proto.MarshalOptions{}).MarshalAppend(buf[:0], r); err != nil {
				t.Fatal(err)
			}
			ok := l.look(buf)
			if want := known(r) && fits(r); ok != want {
				t.Fatalf("it takes the report: %v, and it should: %v", ok, want)
			}
			if !ok {
				continue
			}
			want := rowsLooked{r.GetEpoch(), r.GetSequence(), r.GetProduced(), nil}
			for _, b := range r.GetBlocks() {
				want.rows = append(want.rows, rowsOfBlock(b)...)
			}
			if d := gocmp.Diff(want, l.looked(), gocmp.AllowUnexported(rowsLooked{}, rowLooked{})); d != "" {
				t.Fatal(d)
			}
		}
	})
}

// Long blocks are taken apart without making anything, once there is memory for them.
func TestALookerMakesNothingOfLongBlocks(t *testing.T) {
	r := report(1, 1, 1)
	b := r.Blocks[0]
	for range 20 {
		b.TimeDeltas, b.Outcomes, b.Rtts = append(b.TimeDeltas, 1e9), append(b.Outcomes, b.Outcomes[0]), append(b.Rtts, b.Rtts[0])
		b.LocalPorts, b.Latenesses = append(b.LocalPorts, b.LocalPorts[0]), append(b.Latenesses, b.Latenesses[0])
		b.HostDelays, b.SynAckIndexes = append(b.HostDelays, b.HostDelays[0]), append(b.SynAckIndexes, b.SynAckIndexes[0])
	}
	data := encoded(t, r)
	var l looker
	allocations := testing.AllocsPerRun(100, func() {
		if !l.look(data) || l.blocks[0].shape != nil {
			t.Fatal("the report is not one of a long block")
		}
	})
	if allocations > 0 {
		t.Errorf("%v allocations for a block of %d results", allocations, len(b.Outcomes))
	}
}
