package registry

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"
)

func TestAChangedAuditLogIsFound(t *testing.T) {
	tests := []struct {
		name   string
		change func(b *bbolt.Bucket) error
	}{
		{"an entry says something else", func(b *bbolt.Bucket) error {
			v := bytes.Replace(b.Get(numberKey(2)), []byte("alice"), []byte("mallo"), 1)
			return b.Put(numberKey(2), v)
		}},
		{"the last entry says something else", func(b *bbolt.Bucket) error {
			return b.Put(numberKey(4), bytes.Replace(b.Get(numberKey(4)), []byte("alice"), []byte("mallo"), 1))
		}},
		{"an entry is gone", func(b *bbolt.Bucket) error { return b.Delete(numberKey(2)) }},
		{"the first is gone", func(b *bbolt.Bucket) error { return b.Delete(numberKey(1)) }},
		{"the last is gone", func(b *bbolt.Bucket) error { return b.Delete(numberKey(4)) }},
		{"all are gone", func(b *bbolt.Bucket) error {
			for i := range uint64(4) {
				if err := b.Delete(numberKey(i + 1)); err != nil {
					return err
				}
			}
			return nil
		}},
		{"there is one too many", func(b *bbolt.Bucket) error { return b.Put(numberKey(5), b.Get(numberKey(4))) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFleet(t)
			for _, name := range []string{"a", "b", "c", "d"} {
				f.token(t, name)
			}
			want(t, f.VerifyAudit(t.Context()), nil)
			if err := f.db.Update(func(tx *bbolt.Tx) error { return tt.change(tx.Bucket(auditBucket)) }); err != nil {
				t.Fatal(err)
			}
			verified := f.VerifyAudit(t.Context())
			opened := f.view((*tx).checkHead)
			if verified == nil && opened == nil {
				t.Error("nobody has noticed")
			}
			if verified != nil {
				want(t, verified, ErrAudit)
			}
			if opened != nil {
				want(t, opened, ErrAudit)
			}
		})
	}
}

func TestTheFileIsPrivateAndHeldByOne(t *testing.T) {
	f := newFleet(t)
	dir := filepath.Join(f.dir, "registry")
	for path, mode := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, fileName): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	_, err := Open(Config{Dir: dir, Fleet: f.ca.Fleet(), lockWait: 1})
	want(t, err, ErrInUse)
}

func TestWhatIsNoRegistryIsNotOpened(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, fileName), bytes.Repeat([]byte("no"), 40<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Dir: dir, Fleet: "f"}); err == nil {
		t.Error("it was opened")
	}
	// One that was never finished is made anew.
	if err := os.Rename(filepath.Join(dir, fileName), filepath.Join(dir, fileName+".tmp")); err != nil {
		t.Fatal(err)
	}
	r, err := Open(Config{Dir: dir, Fleet: "f"})
	if err != nil {
		t.Fatal(err)
	}
	want(t, r.Close(), nil)
}
