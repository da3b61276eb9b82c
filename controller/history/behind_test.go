package history

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestALargeFileOfTheIntakeIsArchivedBeforeItsTime(t *testing.T) {
	c := newClock("2026-11-20T12:00:00Z")
	cfg := Config{Dir: t.TempDir(), now: c.now, fileSize: 3000, noArchive: true}
	s := start(t, cfg)
	addMany(t, s, "a", 1, 1, 10)
	if s.finished() != nil {
		t.Fatal("a file that is small takes no more reports")
	}
	for i := range uint64(30) {
		size := s.newest().bytes
		parts := len(s.files)
		add(t, s, "a", 1, 11+i)
		if more := len(s.files) > parts; more != (size >= cfg.fileSize) {
			t.Fatalf("with %d bytes in the file, another was begun: %v", size, more)
		}
	}
	if s.finished() == nil {
		t.Fatal("no file was finished")
	}
	if err := s.archiveAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	next := uint64(1)
	for e, err := range s.Scan(t.Context(), time.Time{}, time.Time{}, nil) {
		if err != nil || e.Report.GetSequence() != next {
			t.Fatalf("report %d comes where %d should, %v", e.Report.GetSequence(), next, err)
		}
		next++
	}
	if next != 41 {
		t.Errorf("%d reports come, want 40", next-1)
	}
}

func TestCommitsAreHeldBackWhileTheArchiveIsFarBehind(t *testing.T) {
	tests := []struct {
		name      string
		files     int
		stuck     bool
		noArchive bool
		want      time.Duration
	}{
		{"nothing is behind", 1, false, false, 0},
		{"as much as may be", maxBehind + 1, false, false, 0},
		{"more", maxBehind + 2, false, false, holdBack},
		{"more, and archiving fails", maxBehind + 2, true, false, 0},
		{"more, and nothing is archived", maxBehind + 2, false, true, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, err := newStore(Config{Dir: "nowhere", noArchive: tt.noArchive})
				if err != nil {
					t.Fatal(err)
				}
				for range tt.files {
					s.files = append(s.files, &file{})
				}
				s.stuck.Store(tt.stuck)
				began := time.Now()
				s.holdBackUntil(t.Context())
				if took := time.Since(began); took != tt.want || s.Stats().HeldBack != uint64(tt.want/holdBack) {
					t.Errorf("it took %v, want %v; %d were held back", took, tt.want, s.Stats().HeldBack)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		s, err := newStore(Config{Dir: "nowhere"})
		if err != nil {
			t.Fatal(err)
		}
		s.files = make([]*file, maxBehind+2)
		began := time.Now()
		s.freed <- struct{}{}
		s.holdBackUntil(t.Context())
		over, cancel := context.WithCancel(t.Context())
		cancel()
		s.holdBackUntil(over)
		if took := time.Since(began); took != 0 {
			t.Errorf("after a file was archived, or the end, it still took %v", took)
		}
	})
}
