package history

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

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
		var b bytes.Buffer
		if err := s.Backup(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(t.TempDir(), "restored")
		if err := Restore(t.Context(), &b, dir); err != nil {
			t.Fatal(err)
		}
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

func TestRestoreRefusesWhatIsNoBackup(t *testing.T) {
	s := start(t, Config{Dir: t.TempDir()})
	add(t, s, "a", 1, 1)
	var good bytes.Buffer
	if err := s.Backup(t.Context(), &good); err != nil {
		t.Fatal(err)
	}
	stranger := func(h *tar.Header) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		if err := errors.Join(w.WriteHeader(h), w.Close()); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	for what, data := range map[string][]byte{
		"nothing":            nil,
		"cut in a file":      good.Bytes()[:5000],
		"cut behind a file":  good.Bytes()[:good.Len()-3*512],
		"no tar archive":     bytes.Repeat([]byte("no"), 1000),
		"a file outside":     stranger(&tar.Header{Name: "../intake-20261120.db"}),
		"a link":             stranger(&tar.Header{Name: "intake-20261120.db", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}),
		"some other archive": stranger(&tar.Header{Name: "notes"}),
	} {
		dir := filepath.Join(t.TempDir(), "restored")
		if err := Restore(t.Context(), bytes.NewReader(data), dir); err == nil {
			t.Errorf("%s: no error", what)
		}
		if exists(dir) || exists(dir+tmpSuffix) {
			t.Errorf("%s: something was made of it", what)
		}
	}
	if err := Restore(t.Context(), bytes.NewReader(good.Bytes()), s.cfg.Dir); err == nil || !strings.Contains(err.Error(), "not empty") {
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
