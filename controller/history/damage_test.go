package history

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"
)

const day = "intake-20261120.db"

// rounds is how often something is tried: some times, or many.
func rounds(some, many int) int {
	if os.Getenv("SYNMESH_TORTURE") != "" {
		return many
	}
	return some
}

// filled makes a folder with reports 1 to n of agent a in one file.
func filled(t testing.TB, n int) Config {
	t.Helper()
	cfg := Config{Dir: t.TempDir(), now: newClock("2026-11-20T12:00:00Z").now, lockWait: 100 * time.Millisecond, noArchive: true}
	s := start(t, cfg)
	addMany(t, s, "a", 1, 1, uint64(n))
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	return cfg
}

func sequences(from, to int) (list []string) {
	for i := from; i <= to; i++ {
		list = append(list, fmt.Sprintf("a/1/%d", i))
	}
	return list
}

func without(list []string, id string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return s == id })
}

// smash spoils the header of every page that has the text in it.
func smash(text string) func([]byte) {
	return func(b []byte) {
		size := os.Getpagesize()
		for p := 2 * size; p+size <= len(b); p += size {
			if bytes.Contains(b[p:p+size], []byte(text)) {
				copy(b[p:], "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")
			}
		}
	}
}

func TestAFlippedBitCostsItsRecordOnly(t *testing.T) {
	cfg, log := filled(t, 100), &logBuffer{}
	cfg.Logger = log.logger()
	edit(t, cfg.Dir, day, func(b []byte) {
		for rest := b; ; { // in every copy that bbolt has left of it
			i := bytes.Index(rest, []byte("target-1-50"))
			if i < 0 {
				return
			}
			rest = rest[i:]
			rest[0] ^= 4
		}
	})
	s := start(t, cfg)
	for range 2 {
		if d := cmp.Diff(without(sequences(1, 100), "a/1/50"), all(t, s)); d != "" {
			t.Error(d)
		}
	}
	if st := s.Stats(); st.CorruptRecords != 1 || st.DamagedFiles != 0 || log.count("corrupt") != 1 {
		t.Errorf("%+v, logged %d times", st, log.count("corrupt"))
	}
	add(t, s, "a", 1, 101)
}

// A damaged key sends bbolt's binary search astray.
func TestADamagedKeyHidesNoOther(t *testing.T) {
	for _, bit := range []byte{0x80, 0x01} { // the key becomes greater or smaller
		cfg := filled(t, 100)
		s := start(t, cfg)
		var keys []Cursor
		for e, err := range s.Scan(t.Context(), time.Time{}, time.Time{}, nil) {
			if err != nil {
				t.Fatal(err)
			}
			keys = append(keys, e.Cursor)
		}
		if err := s.stop(); err != nil {
			t.Fatal(err)
		}
		victim := 57
		edit(t, cfg.Dir, day, func(b []byte) {
			for rest := b; ; {
				i := bytes.Index(rest, keys[victim])
				if i < 0 {
					return
				}
				rest[i] ^= bit
				rest = rest[i:]
			}
		})
		s = start(t, cfg)
		for i, after := range keys {
			want := without(sequences(i+2, 100), fmt.Sprintf("a/1/%d", victim+1))
			if got := ids(t, s, time.Time{}, time.Time{}, after); !slices.Equal(want, got) {
				t.Fatalf("bit %x: after report %d come %v", bit, i+1, got)
			}
		}
	}
}

func TestAFileThatCannotBeReadIsSetAside(t *testing.T) {
	for what, spoil := range map[string]func(b []byte){
		"both meta pages": func(b []byte) { clear(b[:2*os.Getpagesize()]) },
		"everything":      func(b []byte) { clear(b) },
		"the root":        smash(format),
	} {
		t.Run(what, func(t *testing.T) {
			cfg := filled(t, 10)
			c := newClock("2026-11-21T12:00:00Z")
			cfg.now = c.now
			s := start(t, cfg)
			add(t, s, "b", 1, 1)
			if err := s.stop(); err != nil {
				t.Fatal(err)
			}
			edit(t, cfg.Dir, day, spoil)
			s = start(t, cfg)
			if d := cmp.Diff([]string{"b/1/1"}, all(t, s)); d != "" {
				t.Error(d)
			}
			add(t, s, "a", 1, 11)
			if d := cmp.Diff([]string{day + ".damaged", "intake-20261121-2.db", "intake-20261121.db"}, fileNames(t, cfg.Dir)); d != "" {
				t.Error(d)
			}
			if st := s.Stats(); st.DamagedFiles != 1 {
				t.Errorf("%+v", st)
			}
			c.add(30 * 24 * time.Hour)
			add(t, s, "b", 1, 2)
			s.expire()
			if d := cmp.Diff([]string{"intake-20261221.db"}, fileNames(t, cfg.Dir)); d != "" {
				t.Errorf("damaged files are deleted in their time, too: %s", d)
			}
		})
	}
}

func TestDamagedFilesOfOneNameAreAllKept(t *testing.T) {
	cfg := Config{Dir: t.TempDir(), now: newClock("2026-11-20T12:00:00Z").now, noArchive: true}
	for i := range uint64(3) {
		if err := os.WriteFile(filepath.Join(cfg.Dir, day), fmt.Append(nil, i), 0o600); err != nil {
			t.Fatal(err)
		}
		s := start(t, cfg)
		add(t, s, "a", 1, i+1)
		if err := s.stop(); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{day, day + ".2.damaged", day + ".3.damaged", day + ".damaged"}
	if d := cmp.Diff(want, fileNames(t, cfg.Dir)); d != "" {
		t.Error(d)
	}
}

func TestAFileCutShortDoesNotKeepTheStoreFromStarting(t *testing.T) {
	size := int64(os.Getpagesize())
	for _, length := range []int64{0, 1, size, 2*size + 1, 4 * size, 8*size + 100} {
		cfg := filled(t, 200)
		if err := os.Truncate(filepath.Join(cfg.Dir, day), length); err != nil {
			t.Fatal(err)
		}
		for i := range uint64(2) {
			s := start(t, cfg)
			add(t, s, "b", 1, i+1)
			if got := all(t, s); !slices.Contains(got, "b/1/1") {
				t.Errorf("cut to %d: %v", length, got)
			}
			if err := s.stop(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// The file that takes the reports is damaged while it is open: the next report
// goes to another file, and what can be read of the first is.
func TestTheOpenFileIsDamaged(t *testing.T) {
	cfg := filled(t, 300)
	s := start(t, cfg)
	add(t, s, "b", 5, 1)
	edit(t, cfg.Dir, day, smash("target-1-300"))
	for i := range uint64(3) {
		add(t, s, "a", 1, 301+i)
	}
	check := func() {
		t.Helper()
		got := all(t, s)
		if n := len(got); n < 250 || !slices.Equal(got[n-3:], sequences(301, 303)) {
			t.Errorf("%d reports: %v", n, got)
		}
		for id, sequence := range map[stream]uint64{{"a", 1}: 303, {"b", 5}: 1} {
			if got, err := s.Sequence(id.agent, id.epoch); got != sequence || err != nil {
				t.Errorf("Sequence of %v: %d, %v; not %d", id, got, err, sequence)
			}
		}
		if st := s.Stats(); st.FailedCommits != 0 || st.DamagedFiles != 1 {
			t.Errorf("%+v", st)
		}
		if d := cmp.Diff([]string{"intake-20261120-2.db", day}, fileNames(t, cfg.Dir)); d != "" {
			t.Error(d)
		}
	}
	check()
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	s = start(t, cfg)
	check()
}

func TestScanGoesOnBehindDamage(t *testing.T) {
	c := newClock("2026-11-20T00:00:00Z")
	cfg := Config{Dir: t.TempDir(), now: c.now, noArchive: true}
	s := start(t, cfg)
	for i := range uint64(50) {
		addMany(t, s, "a", 1, 10*i+1, 10*i+10)
		c.add(time.Second)
	}
	edit(t, cfg.Dir, day, smash("target-1-250"))
	got := all(t, s)
	if len(got) < 400 || got[len(got)-1] != "a/1/500" || !slices.Contains(got, "a/1/1") {
		t.Errorf("%d reports, the last is %s", len(got), got[len(got)-1])
	}
	if st := s.Stats(); st.DamagedFiles != 1 {
		t.Errorf("%+v", st)
	}
}

func TestDamagedMarksAreReadOffTheReports(t *testing.T) {
	c := newClock("2026-11-20T12:00:00Z")
	cfg := Config{Dir: t.TempDir(), now: c.now, noArchive: true}
	s := start(t, cfg)
	add(t, s, "old", 3, 4)
	c.add(24 * time.Hour)
	add(t, s, "new", 1, 2)
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	db, err := bbolt.Open(filepath.Join(cfg.Dir, "intake-20261121.db"), 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(marksBucket)
		for _, id := range []stream{{"old", 3}, {"new", 1}} {
			v := bytes.Clone(b.Get(id.key()))
			v[0] ^= 1 // an immense sequence, which would refuse all to come
			if err := b.Put(id.key(), v); err != nil {
				return err
			}
		}
		return nil
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	s = start(t, cfg)
	for id, sequence := range map[stream]uint64{{"old", 3}: 4, {"new", 1}: 2} {
		if got, err := s.Sequence(id.agent, id.epoch); got != sequence || err != nil {
			t.Errorf("Sequence of %v: %d, %v; not %d", id, got, err, sequence)
		}
	}
}

func TestAnotherFormatIsRefused(t *testing.T) {
	cfg := filled(t, 1)
	db, err := bbolt.Open(filepath.Join(cfg.Dir, day), 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket(metaBucket).Put(formatKey, encodeFormat("synmesh intake 2"))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	_, err = Open(cfg)
	if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "intake 2") || !strings.Contains(err.Error(), day) {
		t.Error(err)
	}
	if d := cmp.Diff([]string{day}, fileNames(t, cfg.Dir)); d != "" {
		t.Error(d)
	}
}

func TestLeftoversAreRemovedAndStrangersAreNot(t *testing.T) {
	cfg := filled(t, 1)
	for _, name := range []string{day + ".tmp", "notes.tmp", "intake-1.db", "intake-20261120-1.db", "intake-20261131.db", "lock"} {
		if err := os.WriteFile(filepath.Join(cfg.Dir, name), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := start(t, cfg)
	add(t, s, "a", 1, 2)
	want := []string{"intake-1.db", "intake-20261120-1.db", "intake-20261120-2.db", day, "intake-20261131.db", "notes.tmp"}
	if d := cmp.Diff(want, fileNames(t, cfg.Dir)); d != "" {
		t.Error(d)
	}
}

// Wherever a bit flips, the store starts, takes reports, and shows nothing that
// was not stored.
func TestAnyBitMayFlip(t *testing.T) {
	trials := rounds(60, 2000)
	cfg := filled(t, 100)
	cfg.now = newClock("2026-11-20T12:00:01Z").now
	good, err := os.ReadFile(filepath.Join(cfg.Dir, day))
	if err != nil {
		t.Fatal(err)
	}
	length := int64(len(good))
	good = bytes.TrimRight(good, "\x00") // the rest is a hole in the file
	want := map[string]bool{"b/1/1": true}
	for _, id := range sequences(1, 100) {
		want[id] = true
	}
	var one, leaf, more int // flips that cost a report, at most a leaf, more than that
	for range trials {
		for _, name := range fileNames(t, cfg.Dir) {
			if err := os.Remove(filepath.Join(cfg.Dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		bit := rand.IntN(len(good) * 8)
		b := bytes.Clone(good)
		b[bit/8] ^= 1 << (bit % 8)
		path := filepath.Join(cfg.Dir, day)
		if err := errors.Join(os.WriteFile(path, b, 0o600), os.Truncate(path, length)); err != nil {
			t.Fatal(err)
		}
		s := start(t, cfg)
		before := all(t, s)
		add(t, s, "b", 1, 1)
		got := all(t, s)
		seen := map[string]bool{}
		for _, id := range got {
			if !want[id] || seen[id] {
				t.Fatalf("bit %d: %s comes up, seen before: %v", bit, id, seen[id])
			}
			seen[id] = true
		}
		if len(got) < len(before) || !seen["b/1/1"] {
			t.Fatalf("bit %d: %d reports before the append, %d after", bit, len(before), len(got))
		}
		switch n := len(want) - len(got); {
		case n == 1:
			one++
		case n > 1 && n < 32:
			leaf++
		case n > 1:
			more++
		}
		if err := s.stop(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("of %d flips %d cost one report, %d a leaf of the tree, %d more", trials, one, leaf, more)
	if leaf+more > trials/20 {
		t.Error("too many flips cost more than one report")
	}
}

// The page that says where the last commit is has a flipped bit, any one: bbolt would go back to
// the commit before, and so forget a report that was acknowledged.
func TestAFlippedBitInAMetaPageCostsNothing(t *testing.T) {
	cfg := filled(t, 1)
	s := start(t, cfg)
	for i := range uint64(3) {
		add(t, s, "a", 1, i+2)
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	name := "intake-20261120-2.db"
	for page := range 2 {
		for range rounds(8, 512) {
			bit := rand.IntN(metaSize * 8)
			flip := func(b []byte) { b[page*os.Getpagesize()+headerSize+bit/8] ^= 1 << (bit % 8) }
			edit(t, cfg.Dir, name, flip)
			s := start(t, cfg)
			if d := cmp.Diff(sequences(1, 4), all(t, s)); d != "" {
				t.Errorf("page %d, bit %d: %s", page, bit, d)
			}
			if n, err := s.Sequence("a", 1); n != 4 || err != nil {
				t.Errorf("page %d, bit %d: mark %d, %v", page, bit, n, err)
			}
			if err := s.stop(); err != nil {
				t.Fatal(err)
			}
			edit(t, cfg.Dir, name, flip)
		}
	}
}

// If it is beyond repair, what was committed last is missing, and that is said.
func TestALostMetaPageIsCounted(t *testing.T) {
	for page := range 2 {
		cfg := filled(t, 1)
		s := start(t, cfg)
		for i := range uint64(3) {
			add(t, s, "a", 1, i+2)
		}
		if err := s.stop(); err != nil {
			t.Fatal(err)
		}
		edit(t, cfg.Dir, "intake-20261120-2.db", func(b []byte) {
			at := page*os.Getpagesize() + headerSize
			clear(b[at : at+metaSize])
		})
		bad := 0
		if err := Check(t.Context(), cfg.Dir, func(f Finding) {
			if !f.OK() {
				bad++
			}
		}); err != nil || bad != 1 {
			t.Errorf("page %d: Check finds %d files, %v", page, bad, err)
		}
		s = start(t, cfg)
		if got := all(t, s); len(got) < 3 {
			t.Errorf("page %d: there is %v", page, got)
		}
		if st := s.Stats(); st.DamagedFiles != 1 {
			t.Errorf("page %d: %+v", page, st)
		}
	}
}
