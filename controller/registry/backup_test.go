package registry

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/synmesh/synmesh/internal/identity"
)

// backedUp puts a backup of the registry into a folder of its own.
func backedUp(t *testing.T, r *Registry) (dir string) {
	t.Helper()
	name, content, err := r.Backup()
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestABackupIsARegistryOfThatMoment(t *testing.T) {
	b := newFleet(t)
	if err := b.Record(identity.Identity{}, "do", "this", ""); err != nil {
		t.Fatal(err)
	}
	dir := backedUp(t, b.Registry)
	number, hash, err := b.AuditHead()
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Record(identity.Identity{}, "do", "that", ""); err != nil {
		t.Fatal(err)
	}
	if n, err := Check(t.Context(), dir); n != int(number) || err != nil {
		t.Errorf("%d entries, not %d: %v", n, number, err)
	}
	again, err := Open(Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if n, h, err := again.AuditHead(); n != number || h != hash || err != nil {
		t.Errorf("its audit log has %d entries, not %d: %v", n, number, err)
	}
}

func TestCheckSaysWhatIsWrong(t *testing.T) {
	b := newFleet(t)
	for range 50 {
		if err := b.Record(identity.Identity{}, "do", "this", ""); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Check(t.Context(), b.cfg.Dir); !errors.Is(err, ErrInUse) {
		t.Errorf("one that is in use: %v", err)
	}
	if _, err := Check(t.Context(), t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("one that is not there: %v", err)
	}
	dir := backedUp(t, b.Registry)
	path := filepath.Join(dir, fileName)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Check(ctx, dir); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	spoilt := func(data []byte) error {
		t.Helper()
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Check(t.Context(), dir)
		return err
	}
	for what, data := range map[string][]byte{"empty": {}, "all zeros": make([]byte, len(good)), "cut": good[:len(good)/2]} {
		if err := spoilt(data); !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrAudit) {
			t.Errorf("%s: %v", what, err)
		}
	}
	found := 0
	for range 100 { // wherever a bit flips, it neither panics nor hangs
		bit := rand.IntN(len(good) * 8)
		good[bit/8] ^= 1 << (bit % 8)
		if spoilt(good) != nil {
			found++
		}
		good[bit/8] ^= 1 << (bit % 8)
	}
	t.Logf("%d of 100 flipped bits were found", found)
}
