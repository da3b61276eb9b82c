package history

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// backedUp backs a store up and returns the folder.
func backedUp(t *testing.T, s *running) (dir string) {
	t.Helper()
	dir = t.TempDir()
	err := s.Backup(t.Context(), func(name string, size int64, content io.Reader) error {
		b, err := io.ReadAll(content)
		if err != nil || int64(len(b)) != size || !IsFile(name) {
			return fmt.Errorf("%s has %d bytes, not %d: %w", name, len(b), size, err)
		}
		return os.WriteFile(filepath.Join(dir, name), b, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestABackupTakenWhileReportsComeHasAllThatWasAcknowledged(t *testing.T) {
	s := start(t, Config{Dir: t.TempDir(), Rotation: 200 * time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	var acknowledged uint64
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := uint64(1); ctx.Err() == nil; i++ {
			if _, err := s.Append(t.Context(), "a", report(1, i, 3)); err != nil {
				t.Error(err)
			}
			mu.Lock()
			acknowledged = i
			mu.Unlock()
		}
	})
	for range 3 {
		var want uint64
		for want < 20 {
			mu.Lock()
			want = acknowledged
			mu.Unlock()
			time.Sleep(time.Millisecond)
		}
		dir := backedUp(t, s)
		if err := Check(t.Context(), dir, func(f Finding) {
			if !f.OK() {
				t.Errorf("%+v", f)
			}
		}); err != nil {
			t.Error(err)
		}
		r, err := run(Config{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		next := uint64(1)
		for _, e := range entriesOf(t, r, Filter{}) {
			if e.Report.GetSequence() != next {
				t.Fatalf("report %d comes where %d should", e.Report.GetSequence(), next)
			}
			next++
		}
		if next <= want {
			t.Errorf("%d reports, and %d were acknowledged before", next-1, want)
		}
		if stored, err := r.Append(t.Context(), "a", report(1, next-1, 3)); stored || err != nil {
			t.Error("a report that was restored is stored again", err)
		}
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	wg.Wait()
	if slices.ContainsFunc(fileNames(t, s.cfg.Dir), func(n string) bool { return strings.HasPrefix(n, backupPrefix) }) {
		t.Error("a backup left its folder")
	}
}

// The file that is written to is read through one handle, and bbolt opens others for copies.
func TestABackupLeavesTheNewestFileReadable(t *testing.T) {
	s := start(t, Config{Dir: t.TempDir()})
	for i := range uint64(3) {
		add(t, s, "a", 1, i+1)
		backedUp(t, s)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		n := uint64(0)
		for e, err := range s.Scan(ctx, time.Time{}, time.Time{}, nil) {
			if n++; err != nil || e.Report.GetSequence() != n {
				t.Fatalf("after the backup, report %d is %+v, %v", n, e, err)
			}
		}
		cancel()
		if n != i+1 {
			t.Fatalf("after the backup there are %d reports, want %d", n, i+1)
		}
	}
}

func TestABackupEndsWhenItCannotBeWritten(t *testing.T) {
	s := start(t, Config{Dir: t.TempDir()})
	add(t, s, "a", 1, 1)
	full := errors.New("no room")
	if err := s.Backup(t.Context(), func(string, int64, io.Reader) error { return full }); !errors.Is(err, full) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Backup(ctx, func(string, int64, io.Reader) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if slices.ContainsFunc(fileNames(t, s.cfg.Dir), func(n string) bool { return strings.HasPrefix(n, backupPrefix) }) {
		t.Error("a backup left its folder")
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	if err := s.Backup(t.Context(), func(string, int64, io.Reader) error { return nil }); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

func TestABackupThatWasKilledLeavesNothing(t *testing.T) {
	cfg := filled(t, 3)
	if err := os.MkdirAll(filepath.Join(cfg.Dir, backupPrefix+"123", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	start(t, cfg)
	if names := fileNames(t, cfg.Dir); !slices.Equal(names, []string{day}) {
		t.Error(names)
	}
}

func TestCheckFindsDamage(t *testing.T) {
	c := newClock("2026-11-20T12:00:00Z")
	s, _ := fed(t, Config{Dir: t.TempDir(), now: c.now, Rotation: 10 * time.Second}, c, 30)
	dir := s.cfg.Dir
	if err := s.archiveAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	check := func() (lines []string) {
		t.Helper()
		if err := Check(t.Context(), dir, func(f Finding) {
			if f.Err != nil {
				f.Err = errors.New("damaged")
			}
			lines = append(lines, fmt.Sprint(f.File, " ", f.Records, " ", f.Corrupt, " ", f.OK()))
		}); err != nil {
			t.Fatal(err)
		}
		return lines
	}
	if got := check(); len(got) != 7 || slices.ContainsFunc(got, func(s string) bool { return !strings.HasSuffix(s, "true") }) {
		t.Errorf("%q", got)
	}
	edit(t, dir, "raw-20261120-1-1.db", func(b []byte) { b[bytes.Index(b, []byte("meshagent-0002"))+50] ^= 1 })
	edit(t, dir, "hours-20261120-2-2.db", func(b []byte) { clear(b) })
	edit(t, dir, "intake-20261120-3.db", func(b []byte) {
		for rest := b; ; {
			i := bytes.Index(rest, []byte("agent-0000"))
			if i < 0 {
				return
			}
			rest = rest[i:]
			rest[0] ^= 1
		}
	})
	var bad []string
	for _, line := range check() {
		if strings.HasSuffix(line, "false") {
			bad = append(bad, strings.Fields(line)[0])
		}
	}
	if !slices.Equal(bad, []string{"hours-20261120-2-2.db", "intake-20261120-3.db", "raw-20261120-1-1.db"}) {
		t.Errorf("damaged are %q: %q", bad, check())
	}
	if err := Check(t.Context(), filepath.Join(dir, "nowhere"), func(Finding) {}); err == nil {
		t.Error("a folder that is not there is well")
	}
}
