package backup

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var files = map[string]string{
	"registry/registry.db": strings.Repeat("registry", 100), "ca/root.crt": "root", "gossip.json": "",
	"history/intake-20261120.db": strings.Repeat("x", 5000),
}

var when = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func written(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := New(&b, "controller-1", when)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"registry/registry.db", "ca/root.crt", "gossip.json", "history/intake-20261120.db"} {
		if err := w.AddBytes(name, []byte(files[name])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestWhatIsRestoredIsWhatWasBackedUp(t *testing.T) {
	for what, dir := range map[string]string{"a folder that is not there": filepath.Join(t.TempDir(), "data"), "an empty one": t.TempDir()} {
		about, err := Restore(t.Context(), bytes.NewReader(written(t)), dir)
		if err != nil {
			t.Fatal(what, err)
		}
		if about.Controller != "controller-1" || !about.Time.Equal(when) {
			t.Errorf("%+v", about)
		}
		for name, want := range files {
			got, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil || string(got) != want {
				t.Errorf("%s: %d bytes, %v", name, len(got), err)
			}
			if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s: %v, %v", name, info.Mode(), err)
			}
		}
		for _, folder := range []string{"", "ca", "history"} {
			if info, err := os.Stat(filepath.Join(dir, folder)); err != nil || info.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s: %v, %v", folder, info.Mode(), err)
			}
		}
	}
}

func TestAFolderThatIsInUseIsLeftAlone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.MkdirAll(filepath.Join(dir, "history"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(t.Context(), bytes.NewReader(written(t)), dir); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Error(err)
	}
	other := filepath.Join(t.TempDir(), "data")
	if err := os.Mkdir(other+".tmp", 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(t.Context(), bytes.NewReader(written(t)), other); err == nil || !strings.Contains(err.Error(), "remove it") {
		t.Error(err)
	}
	if _, err := Restore(t.Context(), bytes.NewReader(written(t)), "/dev/null"); err == nil {
		t.Error("a folder was made of /dev/null")
	}
}

// refused sees that nothing is made of a backup.
func refused(t *testing.T, data []byte) (err error) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	if _, err = Restore(t.Context(), bytes.NewReader(data), dir); err == nil {
		t.Fatal("no error")
	}
	if _, verifyErr := Verify(t.Context(), bytes.NewReader(data)); verifyErr == nil {
		t.Error("Verify finds nothing")
	}
	if left, _ := filepath.Glob(dir + "*"); len(left) > 0 {
		t.Errorf("there is %v", left)
	}
	return err
}

func TestWhatIsNoBackupIsRefusedInClearWords(t *testing.T) {
	archive := func(entries ...*tar.Header) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		about := []byte(`{"format":"synmesh backup 1"}`)
		err := errors.Join(w.WriteHeader(&tar.Header{Name: aboutFile, Size: int64(len(about))}))
		_, err2 := w.Write(about)
		for _, h := range entries {
			err = errors.Join(err, w.WriteHeader(h))
		}
		if err := errors.Join(err, err2, w.Close()); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	good := written(t)
	for what, tt := range map[string]struct {
		data []byte
		want string
	}{
		"nothing":             {nil, "does not begin like one"},
		"no tar archive":      {bytes.Repeat([]byte("no"), 1000), "does not begin like one"},
		"cut in a file":       {good[:3000], "before it is complete"},
		"cut behind a file":   {good[:bytes.LastIndex(good, []byte(sumsFile))/512*512], "ends before it is complete"},
		"some other archive":  {good[1024:], "where something else should be"},
		"a file outside":      {archive(&tar.Header{Name: "../passwd"}), "no name of a file"},
		"an absolute name":    {archive(&tar.Header{Name: "/etc/passwd"}), "no name of a file"},
		"a link":              {archive(&tar.Header{Name: "history", Typeflag: tar.TypeSymlink, Linkname: "/etc"}), "where something else should be"},
		"a file twice":        {archive(&tar.Header{Name: "a"}, &tar.Header{Name: "a"}), "comes twice"},
		"sums of nothing":     {archive(&tar.Header{Name: sumsFile}), "sums of 0"},
		"another format":      {bytes.Replace(good, []byte("backup 1"), []byte("backup 2"), 1), `"synmesh backup 2", and this version reads "synmesh backup 1"`},
		"one byte is another": {bytes.Replace(good, []byte("registryregistry"), []byte("registryRegistry"), 1), "registry/registry.db is not what was written"},
	} {
		t.Run(what, func(t *testing.T) {
			if err := refused(t, tt.data); !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want one line with %q", err, tt.want)
			}
		})
	}
}

// Whatever bit flips, and wherever it is cut: either it is found, or what is restored is right.
func TestAFlippedBitIsFoundOrDoesNotMatter(t *testing.T) {
	good := written(t)
	end := bytes.LastIndex(good, []byte(sumsFile))
	rapid.Check(t, func(t *rapid.T) {
		data := bytes.Clone(good)
		if rapid.Bool().Draw(t, "cut") {
			data = data[:rapid.IntRange(0, end+512).Draw(t, "length")]
		} else {
			bit := rapid.IntRange(0, len(data)*8-1).Draw(t, "bit")
			data[bit/8] ^= 1 << (bit % 8)
		}
		dir, err := os.MkdirTemp("", "backup-")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		if _, err := Restore(context.Background(), bytes.NewReader(data), dir); err != nil {
			return
		}
		if len(data) < len(good) {
			t.Fatal("what is missing is not missed")
		}
		got := make(map[string]string)
		for name := range files {
			b, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			got[name] = string(b)
		}
		if d := cmp.Diff(files, got); d != "" {
			t.Fatal(d)
		}
	})
}

func TestAContextEndsIt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Verify(ctx, bytes.NewReader(written(t))); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func FuzzVerify(f *testing.F) {
	good := written(f)
	f.Add(good)
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := Verify(t.Context(), bytes.NewReader(data)); err == nil && !bytes.Contains(data, []byte(sumsFile)) {
			t.Error("a backup without sums passes")
		}
	})
}
