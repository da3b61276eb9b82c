package history

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestEveryDayHasItsFile(t *testing.T) {
	dir, c := t.TempDir(), newClock("2026-11-20T23:59:59Z")
	cfg := Config{Dir: dir, now: c.now, noArchive: true}
	s := start(t, cfg)
	add(t, s, "a", 1, 1)
	add(t, s, "b", 1, 1)
	c.add(time.Second)
	add(t, s, "a", 1, 2)
	c.add(48 * time.Hour)
	add(t, s, "a", 1, 3)
	want := []string{"intake-20261120.db", "intake-20261121.db", "intake-20261123.db"}
	again := []string{want[0], want[1], "intake-20261123-2.db", want[2]}
	if d := cmp.Diff(want, fileNames(t, dir)); d != "" {
		t.Error(d)
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	s = start(t, cfg)
	for id, sequence := range map[stream]uint64{{"a", 1}: 3, {"b", 1}: 1} {
		if got, err := s.Sequence(id.agent, id.epoch); got != sequence || err != nil {
			t.Errorf("Sequence of %v: %d, %v; not %d: marks go along", id, got, err, sequence)
		}
	}
	add(t, s, "b", 1, 2)
	if d := cmp.Diff([]string{"a/1/1", "b/1/1", "a/1/2", "a/1/3", "b/1/2"}, all(t, s)); d != "" {
		t.Error(d)
	}
	noon := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	if d := cmp.Diff([]string{"a/1/2"}, ids(t, s, noon.Add(-12*time.Hour), noon.Add(36*time.Hour), nil)); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(again, fileNames(t, dir)); d != "" {
		t.Error(d)
	}
}

func TestOldEpochsAreForgottenWithTheirReports(t *testing.T) {
	dir, c := t.TempDir(), newClock("2026-11-01T12:00:00Z")
	s := start(t, Config{Dir: dir, Retention: 48 * time.Hour, now: c.now, noArchive: true})
	add(t, s, "gone", 1, 9)
	for range 3 {
		add(t, s, "alive", 1, uint64(c.now().Day()))
		c.add(24 * time.Hour)
	}
	add(t, s, "alive", 1, 100)
	for id, sequence := range map[stream]uint64{{"gone", 1}: 0, {"alive", 1}: 100} {
		if got, err := s.Sequence(id.agent, id.epoch); got != sequence || err != nil {
			t.Errorf("Sequence of %v: %d, %v; not %d", id, got, err, sequence)
		}
	}
}

func TestTheClockStepsBack(t *testing.T) {
	dir, c, log := t.TempDir(), newClock("2026-11-21T00:30:00Z"), &logBuffer{}
	cfg := Config{Dir: dir, now: c.now, noArchive: true, Rotation: 24 * time.Hour, Logger: log.logger()}
	s := start(t, cfg)
	add(t, s, "a", 1, 1)
	c.add(-time.Hour) // into the day before
	add(t, s, "a", 1, 2)
	add(t, s, "a", 1, 3)
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	s = start(t, cfg)
	add(t, s, "a", 1, 4)
	c.add(2 * time.Hour)
	add(t, s, "a", 1, 5)
	var last Entry
	var got []string
	for e, err := range s.Scan(t.Context(), time.Time{}, time.Time{}, nil) {
		if err != nil {
			t.Fatal(err)
		}
		if !e.Stored.After(last.Stored) || e.Cursor.Compare(last.Cursor) <= 0 {
			t.Errorf("%v comes after %v", e.Stored, last.Stored)
		}
		last, got = e, append(got, id(e))
	}
	if d := cmp.Diff([]string{"a/1/1", "a/1/2", "a/1/3", "a/1/4", "a/1/5"}, got); d != "" {
		t.Error(d)
	}
	if !last.Stored.Equal(c.now()) {
		t.Errorf("the last is stored at %v, by a clock that has caught up to %v", last.Stored, c.now())
	}
	if d := cmp.Diff([]string{"intake-20261121-2.db", "intake-20261121.db"}, fileNames(t, dir)); d != "" {
		t.Error(d)
	}
	if n := log.count("stepped back"); n != 2 { // once for each store opened
		t.Errorf("the log tells of it %d times", n)
	}
}

// The nanoseconds that keep stored times apart must not carry a report over
// midnight in the file of the day before.
func TestACommitAtMidnightIsOfOneDay(t *testing.T) {
	dir, c := t.TempDir(), newClock("2026-11-20T23:59:59.999999998Z")
	s, err := Open(Config{Dir: dir, now: c.now, noArchive: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var batch []*pending
	for i := range 5 {
		id := stream{fmt.Sprint(i), 1}
		value := newRecord(id.agent, encoded(t, report(1, 1, 1)))
		batch = append(batch, &pending{stream: id, sequence: 1, value: value, done: make(chan struct{})})
	}
	if err := s.write(batch); err != nil {
		t.Fatal(err)
	}
	midnight := time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
	n := 0
	for _, err := range s.Scan(t.Context(), midnight, midnight.Add(time.Second), nil) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != 5 {
		t.Errorf("%d reports found, not 5", n)
	}
	if d := cmp.Diff([]string{"intake-20261121.db"}, fileNames(t, dir)); d != "" {
		t.Error(d)
	}
}

func TestOldFilesAreDeletedWhole(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) { // its time begins on 2000-01-01
		s := start(t, Config{Dir: dir, Retention: 48 * time.Hour, noArchive: true})
		for day := range uint64(6) {
			add(t, s, "a", 1, day+1)
			time.Sleep(24 * time.Hour)
			synctest.Wait()
		}
		add(t, s, "a", 1, 7)
		want := []string{"intake-20000104.db", "intake-20000105.db", "intake-20000106.db", "intake-20000107.db"}
		if got := fileNames(t, dir); !slices.Equal(got[len(got)-3:], want[1:]) || len(got) > 4 {
			t.Errorf("there are %v", got)
		}
		// However old, the newest file stays: it has the marks.
		time.Sleep(1000 * time.Hour)
		synctest.Wait()
		if d := cmp.Diff([]string{"intake-20000107.db"}, fileNames(t, dir)); d != "" {
			t.Error(d)
		}
		if n, err := s.Sequence("a", 1); n != 7 || err != nil {
			t.Error(n, err)
		}
		if d := cmp.Diff([]string{"a/1/7"}, all(t, s)); d != "" {
			t.Error(d)
		}
		if err := s.stop(); err != nil {
			t.Fatal(err)
		}
	})
}

// A Scan goes on when the file that it is in is deleted.
func TestAFileIsDeletedUnderAScan(t *testing.T) {
	dir, c := t.TempDir(), newClock("2026-11-01T12:00:00Z")
	s := start(t, Config{Dir: dir, Retention: time.Hour, now: c.now, noArchive: true})
	addMany(t, s, "a", 1, 1, 2*pageRows)
	c.add(48 * time.Hour)
	add(t, s, "b", 1, 1)
	var got []string
	for e, err := range s.Scan(t.Context(), time.Time{}, time.Time{}, nil) {
		if err != nil {
			t.Fatal(err)
		}
		if len(got) == 0 {
			s.expire()
		}
		got = append(got, id(e))
	}
	if len(got) > 2*pageRows || got[len(got)-1] != "b/1/1" {
		t.Errorf("%d entries, the last %s", len(got), got[len(got)-1])
	}
}
