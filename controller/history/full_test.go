package history

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	bolterrors "go.etcd.io/bbolt/errors"

	synmeshv1 "github.com/synmesh/synmesh/proto/synmesh/v1"
)

// large makes a report of about 200 kB.
func large(sequence uint64) *synmeshv1.Report {
	r := report(1, sequence, 1)
	r.Blocks[0].Address = make([]byte, 200_000)
	return r
}

func TestAFullFileAcknowledgesNothing(t *testing.T) {
	c, log := newClock("2026-11-20T12:00:00Z"), &logBuffer{}
	// bbolt grows a file by 16 MiB at a time.
	cfg := Config{Dir: t.TempDir(), now: c.now, maxSize: 18 << 20, Logger: log.logger()}
	s := start(t, cfg)
	sequence := uint64(0)
	var err error
	for err == nil {
		sequence++
		_, err = s.Append(t.Context(), "a", large(sequence))
	}
	if !errors.Is(err, bolterrors.ErrMaxSizeReached) || !strings.Contains(err.Error(), "not stored") {
		t.Fatal(err)
	}
	for range 3 {
		if stored, err := s.Append(t.Context(), "a", large(sequence)); stored || err == nil {
			t.Fatal(stored, err)
		}
	}
	if n, err := s.Sequence("a", 1); n != sequence-1 || err != nil {
		t.Errorf("Sequence: %d, %v; not %d", n, err, sequence-1)
	}
	if got := all(t, s); len(got) != int(sequence-1) {
		t.Errorf("%d reports, not %d", len(got), sequence-1)
	}
	if st := s.Stats(); st.FailedCommits != 4 || log.count("cannot be stored") != 1 {
		t.Errorf("%+v, logged %d times", st, log.count("cannot be stored"))
	}

	// There is room again, on another day.
	c.set("2026-11-21T12:00:00Z")
	if stored, err := s.Append(t.Context(), "a", large(sequence)); !stored || err != nil {
		t.Fatal(stored, err)
	}
	if n := log.count("stored again"); n != 1 {
		t.Errorf("the log tells %d times that it goes on", n)
	}
	if got := all(t, s); len(got) != int(sequence) {
		t.Errorf("%d reports, not %d", len(got), sequence)
	}
}

func TestNoRoomForANewDay(t *testing.T) {
	c := newClock("2026-11-20T12:00:00Z")
	s := start(t, Config{Dir: t.TempDir(), now: c.now})
	add(t, s, "a", 1, 1)
	s.cfg.maxSize = 1 // the committer is idle
	c.set("2026-11-21T12:00:00Z")
	if stored, err := s.Append(t.Context(), "a", report(1, 2, 1)); stored || !errors.Is(err, bolterrors.ErrMaxSizeReached) {
		t.Fatal(stored, err)
	}
	if d := cmp.Diff([]string{"intake-20261120.db"}, fileNames(t, s.cfg.Dir)); d != "" {
		t.Error(d)
	}
	s.cfg.maxSize = 0
	add(t, s, "a", 1, 2)
	if d := cmp.Diff([]string{"a/1/1", "a/1/2"}, all(t, s)); d != "" {
		t.Error(d)
	}
}

// The last step of a commit fails: the file has the report, nobody was told.
// The agent sends it again; it must neither be stored twice nor pass
// for one that was acknowledged before a commit has succeeded.
func TestACommitThatFailedInItsLastStep(t *testing.T) {
	s := start(t, Config{Dir: t.TempDir()})
	add(t, s, "a", 1, 1)
	id := stream{"a", 1}
	value := newRecord("a", encoded(t, report(1, 2, 1)))
	batch := []*pending{{stream: id, sequence: 2, value: value}}
	if _, err := s.writeTo(s.newest(), batch, s.stamp(1)); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Sequence("a", 1); n != 1 || err != nil {
		t.Errorf("Sequence: %d, %v; 2 is not acknowledged", n, err)
	}
	before := s.Stats().Commits
	if stored, err := s.Append(t.Context(), "a", report(1, 2, 1)); !stored || err != nil {
		t.Error(stored, err)
	}
	if n := s.Stats().Commits - before; n != 1 {
		t.Errorf("%d commits, not 1", n)
	}
	if n, err := s.Sequence("a", 1); n != 2 || err != nil {
		t.Errorf("Sequence: %d, %v", n, err)
	}
	if d := cmp.Diff([]string{"a/1/1", "a/1/2"}, all(t, s)); d != "" {
		t.Error(d)
	}
}

// bbolt cannot map the file after it has grown, and is of no use any more.
func TestTheMapIsLost(t *testing.T) {
	s := start(t, Config{Dir: t.TempDir(), now: newClock("2026-11-20T12:00:00Z").now})
	add(t, s, "a", 1, 1)
	if err := s.newest().db.db.Close(); err != nil {
		t.Fatal(err)
	}
	add(t, s, "a", 1, 2)
	if d := cmp.Diff([]string{"a/1/1", "a/1/2"}, all(t, s)); d != "" {
		t.Error(d)
	}
}
