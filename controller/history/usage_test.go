package history

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestUsageTellsWhatLiesOnTheDisk(t *testing.T) {
	c := newClock("2026-11-20T10:00:00Z")
	cfg := Config{Dir: t.TempDir(), now: c.now, noArchive: true, Rotation: 10 * time.Second}
	s := start(t, cfg)
	usage := func() Usage {
		t.Helper()
		u, err := s.Usage()
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	store := func(sequence uint64) {
		t.Helper()
		if _, err := s.Append(t.Context(), "fra-1", report(1, sequence, 100)); err != nil {
			t.Fatal(err)
		}
	}
	if u := usage(); len(u.Bytes) != 5 || u.Bytes["intake"] != 0 || u.Waiting != 0 {
		t.Errorf("of nothing it tells %+v", u)
	}
	store(1)
	one := usage()
	if one.Bytes["intake"] == 0 || one.Bytes["raw"] != 0 || one.Waiting != 0 {
		t.Errorf("with one file: %+v", one)
	}
	c.add(time.Minute)
	store(2)
	full := filepath.Join(cfg.Dir, name{day: dayOf(nanoseconds(c.now())), part: 1}.String())
	if err := os.Chtimes(full, time.Time{}, c.now().Add(-42*time.Second)); err != nil {
		t.Fatal(err)
	}
	if u := usage(); u.Bytes["intake"] <= one.Bytes["intake"] || u.Waiting != 42*time.Second {
		t.Errorf("with two files: %+v, after %+v", u, one)
	}
	if err := os.WriteFile(full+damagedSuffix, make([]byte, 77), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.archiveAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	u := usage()
	if u.Bytes["raw"] == 0 || u.Bytes["minutes"] == 0 || u.Bytes["hours"] == 0 || u.Bytes["damaged"] != 77 || u.Waiting != 0 {
		t.Errorf("archived: %+v", u)
	}
}
