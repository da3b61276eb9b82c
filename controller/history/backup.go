package history

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"go.etcd.io/bbolt"
)

const (
	// backupPrefix is of folders in which a backup keeps hold of the files.
	backupPrefix = "backup-"
	// lastEntry ends a backup: without it, a part is missing.
	lastEntry = "complete"
)

// Backup writes the history, as it is at some moment during the call, to w as a tar
// archive, while reports come in. What Append has returned for before is in it. Meanwhile
// no disk space is given back to the file system.
func (s *Store) Backup(ctx context.Context, w io.Writer) error {
	if err := s.backup(ctx, w); err != nil {
		return fmt.Errorf("history: backup: %w", err)
	}
	return nil
}

func (s *Store) backup(ctx context.Context, w io.Writer) (err error) {
	dir, err := os.MkdirTemp(s.cfg.Dir, backupPrefix)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := s.snapshot(dir); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	t := tar.NewWriter(w)
	for _, e := range entries {
		if err := errors.Join(ctx.Err(), addFile(t, dir, e.Name())); err != nil {
			return err
		}
	}
	return errors.Join(t.WriteHeader(&tar.Header{Name: lastEntry, Mode: 0o600}), t.Close())
}

// snapshot links all files to a folder, and copies the one that is being written to.
func (s *Store) snapshot(dir string) error {
	newest, tx, err := s.link(dir)
	if err != nil || tx == nil {
		return err
	}
	return guard(func() error {
		err := tx.CopyFile(filepath.Join(dir, newest), 0o600)
		return errors.Join(err, tx.Rollback())
	})
}

// link links all files but the one that is being written to, and begins to read that.
func (s *Store) link(dir string) (newest string, tx *bbolt.Tx, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return "", nil, ErrClosed
	}
	var names []string
	for i, f := range s.files {
		if i == len(s.files)-1 && f.db != nil {
			newest = f.String()
			continue
		}
		names = append(names, f.String())
	}
	for _, a := range s.archive {
		names = append(names, a.String())
	}
	for _, n := range names {
		if err := os.Link(s.path(n), filepath.Join(dir, n)); err != nil {
			return "", nil, err
		}
	}
	if newest != "" {
		err = guard(func() (err error) {
			tx, err = s.files[len(s.files)-1].db.db.Begin(false)
			return err
		})
	}
	return newest, tx, err
}

func addFile(t *tar.Writer, dir, name string) error {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	size := info.Size()
	if tree, err := readTree(f); err == nil { // behind that, it has never been written to
		size = min(size, int64(tree.pages*tree.pageSize))
	}
	if err := t.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: size, ModTime: info.ModTime()}); err != nil {
		return err
	}
	_, err = io.CopyN(t, f, size)
	return err
}

// Restore makes a folder of a backup. The folder must not be there, or be empty. It
// comes to be when everything is in it and durable; before, it has another name, ending with .tmp.
func Restore(ctx context.Context, r io.Reader, dir string) error {
	if err := restore(ctx, r, filepath.Clean(dir)); err != nil {
		return fmt.Errorf("history: restore to %s: %w", dir, err)
	}
	return nil
}

func restore(ctx context.Context, r io.Reader, dir string) (err error) {
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return errors.New("it is not empty; name a folder that is not there")
	}
	tmp := dir + tmpSuffix
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	if err := extract(ctx, tar.NewReader(r), tmp); err != nil {
		return err
	}
	if err := syncPath(tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, dir); err != nil {
		return err
	}
	return syncPath(filepath.Dir(dir))
}

func extract(ctx context.Context, t *tar.Reader, dir string) error {
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return errors.New("the backup ends before it is complete")
		}
		if err := errors.Join(ctx.Err(), err); err != nil {
			return err
		}
		if h.Name == lastEntry {
			return nil
		}
		_, intake := parseName(h.Name)
		_, archive := parseParts(h.Name)
		if !intake && !archive || h.Typeflag != tar.TypeReg {
			return fmt.Errorf("%q is no file of a history; this is no backup", h.Name)
		}
		if err := extractFile(t, filepath.Join(dir, h.Name)); err != nil {
			return err
		}
	}
}

func extractFile(r io.Reader, path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Sync(), f.Close())
}

// isBackup tells whether an entry of the folder is what a backup has left that was killed.
func isBackup(e os.DirEntry) bool { return e.IsDir() && strings.HasPrefix(e.Name(), backupPrefix) }
