package spool

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const (
	segmentSuffix = ".segment"
	// sentSuffix is that of segments of which something has been sent: only the
	// controller knows what became of it.
	sentSuffix = ".sent"
	tmpSuffix  = ".tmp"
)

// folder is where the segments are; no other process uses it.
type folder struct {
	path string
	lock *os.File
}

// openFolder makes the folder if it is not there, and locks it.
func openFolder(path string) (*folder, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("spool: make the folder: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(path, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	f := &folder{path, lock}
	err = lockFile(lock)
	if err == nil {
		err = errors.Join(f.sync(), syncPath(filepath.Dir(filepath.Clean(path))))
	}
	if err != nil {
		return nil, fmt.Errorf("spool: folder %s: %w", path, errors.Join(err, lock.Close()))
	}
	return f, nil
}

func (f *folder) close() error { return f.lock.Close() }

// sync makes durable which names the folder holds.
func (f *folder) sync() error { return syncPath(f.path) }

func syncPath(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// name returns the path of a segment.
func (f *folder) name(id uint64, sent bool) string {
	suffix := segmentSuffix
	if sent {
		suffix = sentSuffix
	}
	return filepath.Join(f.path, fmt.Sprintf("%016x%s", id, suffix))
}

// parseName accepts what folder.name makes and nothing else.
func parseName(name string) (id uint64, sent, ok bool) {
	digits, sent := strings.CutSuffix(name, sentSuffix)
	if !sent {
		if digits, ok = strings.CutSuffix(name, segmentSuffix); !ok {
			return 0, false, false
		}
	}
	id, err := strconv.ParseUint(digits, 16, 64)
	return id, sent, err == nil && len(digits) == 16 && digits == strings.ToLower(digits)
}

// file is a segment as the folder has it.
type file struct {
	id   uint64
	sent bool
}

// list returns the segments, oldest first, and removes what was never finished.
func (f *folder) list() ([]file, error) {
	entries, err := os.ReadDir(f.path)
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	var files []file
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), tmpSuffix) {
			if err := os.Remove(filepath.Join(f.path, e.Name())); err != nil {
				return nil, fmt.Errorf("spool: remove what was never finished: %w", err)
			}
		}
		if id, sent, ok := parseName(e.Name()); ok {
			files = append(files, file{id, sent})
		}
	}
	slices.SortFunc(files, func(a, b file) int { return cmp.Compare(a.id, b.id) })
	return files, nil
}

// create makes a segment that is durable from its first moment, and leaves it open.
func (f *folder) create(id uint64, content []byte) (_ *os.File, err error) {
	tmp := filepath.Join(f.path, fmt.Sprintf("%016x%s", id, tmpSuffix))
	w, err := os.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	if _, err = w.Write(content); err == nil {
		err = w.Sync()
	}
	if err == nil {
		err = os.Rename(tmp, f.name(id, false))
	}
	if err == nil {
		err = f.sync()
	}
	if err != nil {
		return nil, errors.Join(err, w.Close(), removeIfThere(tmp), removeIfThere(f.name(id, false)))
	}
	return w, nil
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
