// Package backup is the form of a controller's backups: a tar archive of the data
// folder's files, which begins with backup.json, says what it is, and ends
// with SHA256SUMS, as of sha256sum. What was cut off or changed is found by the
// latter. Call New, Add for each file, and Close; or Restore, or Verify.
package backup

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/synmesh/synmesh/internal/identity"
)

const (
	aboutFile = "backup.json"
	sumsFile  = "SHA256SUMS"
	format    = "synmesh backup 1"
	// maxAbout and maxSums bound what is read of the two, in bytes.
	maxAbout, maxSums = 1 << 16, 64 << 20
)

// ErrDamaged says that a backup is not what was written, or none.
var ErrDamaged = errors.New("damaged, or no backup")

// ErrFormat says that it is of another version of this program.
var ErrFormat = errors.New("written in another format")

// About says of what and when a backup is.
type About struct {
	Format     string    `json:"format"`
	Controller string    `json:"controller"`
	Time       time.Time `json:"time"`
}

// Writer writes a backup.
type Writer struct {
	tar  *tar.Writer
	at   time.Time
	sums bytes.Buffer
}

// New begins a backup of a controller.
func New(w io.Writer, controller string, at time.Time) (*Writer, error) {
	b := &Writer{tar: tar.NewWriter(w), at: at.UTC()}
	text, err := json.Marshal(About{format, controller, b.at})
	if err != nil {
		return nil, err
	}
	return b, b.AddBytes(aboutFile, append(text, '\n'))
}

// Add adds a file; its name is relative to the data folder and has slashes.
func (b *Writer) Add(name string, size int64, content io.Reader) error {
	if err := checkName(name); err != nil {
		return err
	}
	if err := b.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o600, Size: size, ModTime: b.at}); err != nil {
		return err
	}
	sum := sha256.New()
	if _, err := io.CopyN(io.MultiWriter(b.tar, sum), content, size); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	fmt.Fprintf(&b.sums, "%x  %s\n", sum.Sum(nil), name)
	return nil
}

// AddBytes is Add.
func (b *Writer) AddBytes(name string, content []byte) error {
	return b.Add(name, int64(len(content)), bytes.NewReader(content))
}

// Close writes the end.
func (b *Writer) Close() error {
	header := &tar.Header{Typeflag: tar.TypeReg, Name: sumsFile, Mode: 0o600, Size: int64(b.sums.Len()), ModTime: b.at}
	if err := b.tar.WriteHeader(header); err != nil {
		return err
	}
	if _, err := b.tar.Write(b.sums.Bytes()); err != nil {
		return err
	}
	return b.tar.Close()
}

// checkName refuses names that could lead elsewhere.
func checkName(name string) error {
	if !fs.ValidPath(name) || name == "." || name == sumsFile || strings.ContainsAny(name, "\\:\n\x00") {
		return fmt.Errorf("%w: %q is no name of a file in a backup", ErrDamaged, name)
	}
	return nil
}

// Verify reads a backup to its end and tells whether it is what was written.
func Verify(ctx context.Context, r io.Reader) (About, error) {
	return read(ctx, r, func(_ string, content io.Reader) error {
		_, err := io.Copy(io.Discard, content)
		return err
	})
}

// read calls file with each file of a backup, and for sure says at the end whether they were
// what was written; before that, nothing of it can be trusted.
func read(ctx context.Context, r io.Reader, file func(name string, content io.Reader) error) (about About, err error) {
	t := tar.NewReader(r)
	sums := make(map[string]string)
	for first := true; ; first = false {
		h, err := t.Next()
		switch {
		case ctx.Err() != nil:
			return about, ctx.Err()
		case err != nil && first:
			return about, fmt.Errorf("%w: it does not begin like one: %w", ErrDamaged, err)
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			return about, fmt.Errorf("%w: it ends before it is complete", ErrDamaged)
		case err != nil:
			return about, fmt.Errorf("%w: %w", ErrDamaged, err)
		case first != (h.Name == aboutFile) || h.Typeflag != tar.TypeReg:
			return about, fmt.Errorf("%w: %q is where something else should be", ErrDamaged, h.Name)
		case h.Name == sumsFile:
			return about, checkSums(t, sums)
		}
		if err := checkName(h.Name); err != nil {
			return about, err
		}
		if sums[h.Name] != "" {
			return about, fmt.Errorf("%w: %s comes twice", ErrDamaged, h.Name)
		}
		from := &content{r: t, sum: sha256.New(), name: h.Name, left: h.Size}
		if first {
			about, err = readAbout(from)
		} else {
			err = file(h.Name, from)
		}
		if err != nil {
			return about, err
		}
		sums[h.Name] = hex.EncodeToString(from.sum.Sum(nil))
	}
}

// content is what is in a file; its errors say that the backup is to blame.
type content struct {
	r    io.Reader
	sum  hash.Hash
	name string
	left int64
}

func (c *content) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.sum.Write(b[:n])
	if c.left -= int64(n); err != nil && (!errors.Is(err, io.EOF) || c.left > 0) {
		err = fmt.Errorf("%w: it ends in %s, before it is complete: %w", ErrDamaged, c.name, err)
	}
	return n, err
}

func readAbout(r io.Reader) (a About, err error) {
	text, err := io.ReadAll(io.LimitReader(r, maxAbout))
	if err != nil {
		return a, err
	}
	if err := json.Unmarshal(text, &a); err != nil {
		return a, fmt.Errorf("%w: %s: %w", ErrDamaged, aboutFile, err)
	}
	if a.Format != format {
		return a, fmt.Errorf("%w: %q, and this version reads %q only", ErrFormat, a.Format, format)
	}
	return a, nil
}

// checkSums compares the sums of what was read with what the backup ends with.
func checkSums(r io.Reader, sums map[string]string) error {
	text, err := io.ReadAll(io.LimitReader(r, maxSums))
	if err != nil {
		return fmt.Errorf("%w: it ends in %s, before it is complete", ErrDamaged, sumsFile)
	}
	lines := 0
	for line := range strings.Lines(string(text)) {
		lines++
		sum, name, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "  ")
		switch got, ok := sums[name]; {
		case !ok:
			return fmt.Errorf("%w: %q is missing", ErrDamaged, name)
		case got != sum:
			return fmt.Errorf("%w: %s is not what was written", ErrDamaged, name)
		}
	}
	if lines != len(sums) {
		return fmt.Errorf("%w: it has %d files, and sums of %d", ErrDamaged, len(sums), lines)
	}
	return nil
}

// Restore makes a data folder of a backup. The folder must not be there, or be empty. It
// comes to be when everything is in it, right, and durable; before, its name ends with .tmp.
func Restore(ctx context.Context, r io.Reader, dir string) (About, error) {
	about, err := restore(ctx, r, filepath.Clean(dir))
	if err != nil {
		return about, fmt.Errorf("restore to %s: %w", dir, err)
	}
	return about, nil
}

func restore(ctx context.Context, r io.Reader, dir string) (about About, err error) {
	entries, err := os.ReadDir(dir)
	switch {
	case err == nil && len(entries) > 0:
		return about, fmt.Errorf("it is not empty, and nothing is overwritten; move what is there away, or name another folder")
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return about, err
	}
	tmp := dir + ".tmp"
	if err := os.Mkdir(tmp, 0o700); errors.Is(err, fs.ErrExist) {
		return about, fmt.Errorf("%s is there, of a restore that was cut off; remove it", tmp)
	} else if err != nil {
		return about, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	if about, err = read(ctx, r, func(name string, content io.Reader) error { return extract(tmp, name, content) }); err != nil {
		return about, err
	}
	if err := syncFolders(tmp); err != nil {
		return about, err
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) { // or somebody has put something there
		return about, err
	}
	if err := os.Rename(tmp, dir); err != nil {
		return about, err
	}
	return about, identity.SyncFolder(filepath.Dir(dir))
}

func extract(dir, name string, content io.Reader) error {
	path := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	return errors.Join(err, f.Sync(), f.Close())
}

func syncFolders(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return identity.SyncFolder(path)
	})
}
