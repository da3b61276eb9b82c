package history

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/synmesh/synmesh/controller/history/rollup"
	"github.com/synmesh/synmesh/probe"
	synmeshv1 "github.com/synmesh/synmesh/proto/synmesh/v1"
)

func TestWhoWaitsIsWokenWhenSomethingIsStored(t *testing.T) {
	cfg := Config{Dir: t.TempDir()}
	s := start(t, cfg)
	changed, before := s.Changed(), s.Latest()
	if n := ids(t, s, time.Time{}, time.Time{}, before); n != nil {
		t.Errorf("behind the latest there is %v", n)
	}
	add(t, s, "a", 1, 1)
	<-changed
	select {
	case <-s.Changed():
		t.Error("a second change, of one report")
	default:
	}
	if got := ids(t, s, time.Time{}, time.Time{}, before); !slices.Equal(got, []string{"a/1/1"}) {
		t.Errorf("behind what was the latest there is %v", got)
	}
	if got := ids(t, s, time.Time{}, time.Time{}, s.Latest()); got != nil {
		t.Errorf("behind the latest there is %v", got)
	}
	latest := s.Latest()
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	if s = start(t, cfg); s.Latest().Compare(latest) != 0 {
		t.Errorf("opened again, the latest is %v, not %v", s.Latest().Stored(), latest.Stored())
	}
}

func TestARetentionLeavesAGap(t *testing.T) {
	c := newClock("2026-11-20T12:00:00Z")
	s := start(t, Config{Dir: t.TempDir(), now: c.now, Retention: 24 * time.Hour})
	first := s.Latest()
	add(t, s, "a", 1, 1)
	if !s.Whole(first, s.Latest()) || s.Whole(nil, s.Latest()) {
		t.Error("a history of some seconds is whole from its beginning on, and not from that of time")
	}
	c.add(3 * 24 * time.Hour)
	add(t, s, "a", 1, 2)
	if s.Whole(first, s.Latest()) || !s.Whole(CursorAt(c.now().Add(-time.Hour)), s.Latest()) {
		t.Error("what is older than the retention is missing, and the last hour is not")
	}
}

func TestCursorsAreTimes(t *testing.T) {
	at := time.Date(2026, 11, 20, 12, 0, 0, 5, time.UTC)
	if got := CursorAt(at).Stored(); !got.Equal(at) {
		t.Errorf("%v became %v", at, got)
	}
	if got := Cursor(nil).Stored(); !got.Equal(time.Unix(0, 0)) {
		t.Errorf("the place before all entries is %v", got)
	}
}

// What is left out of an encoded report is what is not wanted, and nothing else.
func TestOnlyUnwantedBlocksAreLeftOut(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		name := rapid.SampledFrom([]string{"", "a", "ab", "measurements/mesh"})
		r := runReport(rand.New(rand.NewPCG(1, 2)), time.Now(), 1)
		for range rapid.IntRange(0, 5).Draw(rt, "blocks") {
			r.Blocks = append(r.Blocks, &synmeshv1.ResultBlock{Source: name.Draw(rt, "source"), Target: name.Draw(rt, "target"), Start: 5})
		}
		f := Filter{Source: name.Draw(rt, "wanted source"), Target: name.Draw(rt, "wanted target")}
		if rapid.Bool().Draw(rt, "by name") {
			f.Targets = NewNames(func(n string) bool { return len(n) < 2 })
		}
		data, err := proto.Marshal(r)
		if err != nil {
			rt.Fatal(err)
		}
		got := &synmeshv1.Report{}
		if err := proto.Unmarshal(f.appendWanted(nil, data), got); err != nil {
			rt.Fatal(err)
		}
		r.Blocks = slices.DeleteFunc(r.Blocks, func(b *synmeshv1.ResultBlock) bool {
			return !f.WantsSeries(Series{b.GetSource(), "agent", b.GetTarget()})
		})
		if !proto.Equal(got, r) {
			rt.Fatalf("%+v: got %v, want %v", f, got, r)
		}
	})
}

// FuzzAppendWanted holds that no bytes do harm, and that those of a report stay those of one.
func FuzzAppendWanted(f *testing.F) {
	data, err := proto.Marshal(runReport(rand.New(rand.NewPCG(1, 2)), time.Unix(1e9, 0), 1))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte{0x1a, 0x03, 0x0a, 0x01, 'a'})
	f.Add([]byte{0x1a, 0xff})
	f.Add([]byte{0x0b, 0x0c})
	f.Fuzz(func(t *testing.T, data []byte) {
		want := Filter{Source: "a"}
		got := want.appendWanted(nil, data)
		if len(got) > len(data) {
			t.Errorf("%x became %x", data, got)
		}
		if proto.Unmarshal(data, &synmeshv1.Report{}) == nil && proto.Unmarshal(got, &synmeshv1.Report{}) != nil {
			t.Errorf("of the report %x is left %x, which is none", data, got)
		}
	})
}

// A large file is read in parts, which miss nothing and have nothing twice.
func TestPartsOfTheKeysAreAllOfThem(t *testing.T) {
	c := newClock("2026-11-20T12:10:00Z")
	dir := t.TempDir()
	const agents, minutesOf = 60, 10
	var one rollup.Summary
	one.Add(probe.Open, time.Millisecond, true)
	day, from := dayOf(uint64(c.now().UnixNano())), c.now().Truncate(time.Hour).Unix()/60
	for part := range 2 { // a small file beside a large one
		out, err := build(filepath.Join(dir, parts{minutes, day, part + 1, part + 1}.String()))
		if err != nil {
			t.Fatal(err)
		}
		for i := range agents * agents / (1 + 50*part) {
			var slots []rollup.Slot
			for m := range int64(minutesOf) {
				slots = append(slots, rollup.Slot{At: from + m, Summary: one})
			}
			key := seriesKey(fmt.Sprintf("agent-%02d", i/agents), "measurements/mesh", fmt.Sprintf("agent-%02d", i%agents))
			if err := putSlots(out, key, uint64(part), slots, minutes); err != nil {
				t.Fatal(err)
			}
		}
		if err := publishAll(out); err != nil {
			t.Fatal(err)
		}
	}
	s := start(t, Config{Dir: dir, now: c.now, noArchive: true})
	q := Query{From: c.now().Add(-10 * time.Minute), To: c.now()}
	p, err := newQueryPlan(q)
	if err != nil {
		t.Fatal(err)
	}
	_, archive, err := s.answering(p)
	if ranges, e := s.ranges(p, archive); err != nil || e != nil || len(ranges) < 5 {
		t.Fatalf("%d parts, %v, %v: the test does not see what it is about", len(ranges), err, e)
	}
	answers, err := s.Query(t.Context(), q)
	sent := uint64(0)
	for _, a := range answers {
		sent += a.Steps[0].Sent()
	}
	if want := uint64(minutesOf * (agents*agents + agents*agents/51)); err != nil || len(answers) != agents*agents || sent != want {
		t.Errorf("%d results of %d series, %v; want %d of %d", sent, len(answers), err, want, agents*agents)
	}
	q.WantsAgent = func(name string) bool { return name == "agent-07" || name == "agent-59" }
	if answers, err = s.Query(t.Context(), q); err != nil || len(answers) != 2*agents {
		t.Errorf("%d series of two agents, %v; want %d", len(answers), err, 2*agents)
	}
}
