package history

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	"pgregory.net/rapid"

	"github.com/synmesh/synmesh/probe"
)

// kept makes a folder that has a file of each kind, and returns it with what is in it. Reports
// are of one agent and two series.
func kept(t testing.TB) (cfg Config, want map[string][]string) {
	t.Helper()
	c := newClock("2026-11-20T12:00:00Z")
	cfg = Config{Dir: t.TempDir(), now: c.now, noArchive: true, Rotation: 10 * time.Second, lockWait: time.Second}
	s := start(t, cfg)
	for i := range uint64(48) {
		r := report(1, i+1, 3)
		b := r.Blocks[0]
		b.Target = fmt.Sprint("target-", i%2)
		for row := range b.GetOutcomes() { // whole microseconds, as the archive has them
			b.Latenesses[row], b.HostDelays[row] = 81000, 34000
		}
		if stored, err := s.Append(t.Context(), "a", r); !stored || err != nil {
			t.Fatal(stored, err)
		}
		c.add(time.Second)
	}
	if err := s.archiveAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	want = map[string][]string{}
	for _, e := range entriesOf(t, s, Filter{}) {
		want[id(e)] = rowsOf(t, []Entry{e})
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	cfg.now = c.now
	return cfg, want
}

// copyInto makes a folder what another is.
func copyInto(t *rapid.T, dir, from string) {
	t.Helper()
	entries, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		f, err := os.Open(filepath.Join(from, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		size := usedSize(filepath.Join(from, e.Name())) // the rest is a hole
		b := make([]byte, size)
		_, err = f.ReadAt(b, 0)
		info, statErr := f.Stat()
		path := filepath.Join(dir, e.Name())
		if err := errors.Join(err, statErr, f.Close(), os.WriteFile(path, b, 0o600)); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, info.Size()); err != nil {
			t.Fatal(err)
		}
	}
}

// flip flips a bit of a file, anywhere in what is used of it.
func flip(t *rapid.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n := int(usedSize(path))
	bit := rapid.IntRange(0, n*8-1).Draw(t, "bit")
	b[bit/8] ^= 1 << (bit % 8)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// Wherever a bit flips, and in whichever file: the store starts, shows nothing that was not
// stored, goes on taking reports, and archives and merges what it can read.
func TestABitFlipsInAnyFile(t *testing.T) {
	trials, silent := spoilt(t, append(kinds, "lock"), flip)
	t.Logf("of %v flips %v cost something that nobody counted", trials, silent)
	for kind := range trials {
		if silent[kind] > 1+trials[kind]/10 {
			t.Errorf("of %s, too much is lost without a word", kind)
		}
	}
}

// A file of which only the beginning has reached the disk.
func TestACutFileOfAnyKindDoesNotKeepTheStoreFromStarting(t *testing.T) {
	spoilt(t, kinds, func(t *rapid.T, path string) {
		if err := os.Truncate(path, rapid.Int64Range(0, usedSize(path)-1).Draw(t, "length")); err != nil {
			t.Fatal(err)
		}
	})
}

var kinds = []string{"intake", "raw", "minutes", "hours"}

// spoilt uses stores of which one file each has been spoilt, and returns how many there
// were, by the kind of the file, and how many of these have lost something that they did not count.
func spoilt(tb testing.TB, kinds []string, spoil func(t *rapid.T, path string)) (trials, silent map[string]int) {
	cfg, want := kept(tb)
	files := map[string][]string{"lock": {"lock"}}
	for _, name := range fileNames(tb, cfg.Dir) {
		kind, _, _ := strings.Cut(name, "-")
		files[kind] = append(files[kind], name)
	}
	trials, silent = map[string]int{}, map[string]int{}
	rapid.Check(tb, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "history-spoilt-")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		copyInto(t, dir, cfg.Dir)
		kind := rapid.SampledFrom(kinds).Draw(t, "kind")
		spoil(t, filepath.Join(dir, rapid.SampledFrom(files[kind]).Draw(t, "file")))
		damaged := cfg
		damaged.Dir = dir
		trials[kind]++
		if !worksWith(tb, t, damaged, want) {
			silent[kind]++
		}
	})
	return trials, silent
}

// worksWith uses a damaged store for all that there is, and tells whether what it lost was counted.
func worksWith(tb testing.TB, t *rapid.T, cfg Config, want map[string][]string) (counted bool) {
	s, err := run(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.stop(); err != nil {
			t.Fatal(err)
		}
	}()
	lost := readsOf(tb, t, s, want)
	results := resultsOf(t, s)
	if results > 3*len(want) {
		t.Fatalf("%d results are counted of %d", results, 3*len(want))
	}
	st := s.Stats()
	counted = lost == 0 && results == 3*len(want) || st.CorruptRecords+st.DamagedFiles > 0
	if stored, err := s.Append(t.Context(), "b", report(7, 1, 1)); !stored || err != nil {
		t.Fatalf("a report is not taken: %v, %v", stored, err)
	}
	if err := s.archiveAll(t.Context()); err != nil {
		t.Fatalf("what is damaged cannot be archived: %v", err)
	}
	if again := readsOf(tb, t, s, want); again > lost+1 { // of a report, a part may be out of bounds
		t.Fatalf("%d reports were damaged, and %d are when archived", lost, again)
	}
	resultsOf(t, s)
	return counted
}

// readsOf scans, and returns how many of the reports wanted are not there, or not all of them.
func readsOf(tb testing.TB, t *rapid.T, s *running, want map[string][]string) (lost int) {
	seen := map[string]bool{}
	var last Cursor
	for e, err := range s.Scan(context.Background(), time.Time{}, time.Time{}, nil) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Cursor.Compare(last) <= 0 || seen[id(e)] {
			t.Fatalf("%s comes at %v, after %v", id(e), e.Cursor, last)
		}
		last = e.Cursor
		if e.Agent == "b" {
			continue
		}
		rows, ok := want[id(e)]
		if !ok {
			t.Fatalf("%s was never stored", id(e))
		}
		seen[id(e)] = true
		got := rowsOf(tb, []Entry{e})
		for _, row := range got {
			if !slices.Contains(rows, row) {
				t.Fatalf("%s has %s", id(e), row)
			}
		}
		if len(got) < len(rows) {
			lost++
		}
	}
	return lost + len(want) - len(seen)
}

// resultsOf returns how many results there are by summaries, of agent a.
func resultsOf(t *rapid.T, s *running) (n int) {
	answers, err := s.Query(context.Background(), Query{From: time.Unix(0, 0), To: time.Unix(0, 0).AddDate(1, 0, 0), Agents: []string{"a"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range answers {
		n += int(a.Steps[0].Counts[probe.Open])
	}
	return n
}

// Another version's file keeps the store from starting, whatever it is of, and says what
// to do; as soon as it is out of the way, all else is there.
func TestAnotherVersionsFileOfAnyKind(t *testing.T) {
	for kind, format := range map[string]string{"intake": "synmesh intake 99", "raw": "synmesh archive 99", "minutes": "synmesh archive 99", "hours": "synmesh archive 99"} {
		t.Run(kind, func(t *testing.T) {
			cfg, want := kept(t)
			names := fileNames(t, cfg.Dir)
			name := names[slices.IndexFunc(names, func(n string) bool { return strings.HasPrefix(n, kind) })]
			path := filepath.Join(cfg.Dir, name)
			db, err := bbolt.Open(path, 0, &bbolt.Options{Timeout: time.Second, PreLoadFreelist: true})
			if err != nil {
				t.Fatal(err)
			}
			err = db.Update(func(tx *bbolt.Tx) error {
				return tx.Bucket(metaBucket).Put(formatKey, encodeFormat(format))
			})
			if err := errors.Join(err, db.Close()); err != nil {
				t.Fatal(err)
			}
			_, err = Open(cfg)
			if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), format) || !strings.Contains(err.Error(), "move the file away") {
				t.Errorf("got %v", err)
			}
			if got := fileNames(t, cfg.Dir); !slices.Equal(got, names) {
				t.Errorf("there is %v, and was %v", got, names)
			}
			found := false
			if err := Check(t.Context(), cfg.Dir, func(f Finding) {
				if !f.OK() {
					found = f.File == name && errors.Is(f.Err, ErrFormat)
				}
			}); err != nil || !found {
				t.Errorf("Check does not find it: %v", err)
			}
			if err := os.Rename(path, filepath.Join(t.TempDir(), name)); err != nil {
				t.Fatal(err)
			}
			s := start(t, cfg)
			add(t, s, "b", 1, 1)
			n := len(entriesOf(t, s, Filter{}))
			if lost := len(want) + 1 - n; kind == "minutes" || kind == "hours" {
				if lost != 0 {
					t.Errorf("%d reports are missing", lost)
				}
			} else if lost <= 0 || n < len(want)/2 {
				t.Errorf("%d reports of %d are there", n, len(want))
			}
		})
	}
}
