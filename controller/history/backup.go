package history

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"go.etcd.io/bbolt"
)

// backupPrefix is of folders in which a backup keeps hold of the files.
const backupPrefix = "backup-"

// Backup hands every file of the history to add, as it is at one moment during the
// call, while reports come in. What Append has returned for before is in them; together in a
// folder, they are a history. The content is as long as told, and valid until add returns.
// Meanwhile no disk space is given back to the file system.
func (s *Store) Backup(ctx context.Context, add func(name string, size int64, content io.Reader) error) error {
	if err := s.backup(ctx, add); err != nil {
		return fmt.Errorf("history: backup: %w", err)
	}
	return nil
}

func (s *Store) backup(ctx context.Context, add func(string, int64, io.Reader) error) (err error) {
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
	for _, e := range entries {
		if err := errors.Join(ctx.Err(), addFile(dir, e.Name(), add)); err != nil {
			return err
		}
	}
	return nil
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

func addFile(dir, name string, add func(string, int64, io.Reader) error) error {
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
	return add(name, size, io.NewSectionReader(f, 0, size))
}

// IsFile tells whether a file of that name is of a history.
func IsFile(name string) bool {
	_, intake := parseName(name)
	_, archive := parseParts(name)
	return intake || archive
}

// isBackup tells whether an entry of the folder is what a backup has left that was killed.
func isBackup(e os.DirEntry) bool { return e.IsDir() && strings.HasPrefix(e.Name(), backupPrefix) }
