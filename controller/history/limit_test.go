package history

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"
)

func TestAFolderAtItsLimitRefusesReportsUntilItIsSmaller(t *testing.T) {
	c := newClock("2026-11-20T12:00:00Z")
	dir := t.TempDir()
	s := start(t, Config{Dir: dir, now: c.now, noArchive: true, Rotation: 10 * time.Second})
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range uint64(200) {
		if _, err := s.Append(t.Context(), "a", manySeries(rnd, c.now(), i+1, 50)); err != nil {
			t.Fatal(err)
		}
	}
	size, err := folderSize(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	s = start(t, Config{Dir: dir, now: c.now, noArchive: true, Rotation: 10 * time.Second, MaxSize: size - 1})
	if stored, err := s.Append(t.Context(), "a", report(1, 201, 1)); stored || !errors.Is(err, ErrFull) {
		t.Fatalf("stored %v, %v", stored, err)
	}
	if n, err := s.Sequence("a", 1); n != 200 || err != nil {
		t.Error(n, err)
	}
	// The file that takes reports is another one nevertheless, so the full one can be archived.
	if err := s.archiveAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		stored, err := s.Append(t.Context(), "a", report(1, 201, 1))
		if err == nil && stored {
			break
		}
		if !errors.Is(err, ErrFull) || time.Now().After(deadline) {
			t.Fatal(stored, err)
		}
	}
	if got := all(t, s); len(got) != 201 {
		t.Errorf("%d reports, not 201", len(got))
	}
}
