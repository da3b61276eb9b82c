package history

import (
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// sizeEvery is how often the folder is measured.
const sizeEvery = 2 * time.Second

// checkSize refuses reports while the folder is larger than it may be. Archiving and
// retention go on and make it smaller; nothing that has been acknowledged is deleted for it.
func (s *Store) checkSize() error {
	if s.cfg.MaxSize == 0 {
		return nil
	}
	if now := time.Now(); s.sizedAt.IsZero() || now.Sub(s.sizedAt) >= sizeEvery {
		size, err := folderSize(s.cfg.Dir)
		if err != nil {
			return err
		}
		s.size, s.sizedAt = size, now
	}
	if s.size > s.cfg.MaxSize {
		return fmt.Errorf("%w: it has %d bytes, and the limit is %d; raise the limit, or shorten the retention", ErrFull, s.size, s.cfg.MaxSize)
	}
	return nil
}

// folderSize returns the bytes of the files in a folder; of the intake's, which
// grow ahead of what is in them, those that are used.
func folderSize(dir string) (size int64, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		if _, ok := parseName(e.Name()); ok {
			size += usedSize(filepath.Join(dir, e.Name()))
		} else if info, err := e.Info(); err == nil && info.Mode().IsRegular() { // or it has been deleted
			size += info.Size()
		}
	}
	return size, nil
}

// usedSize returns how many bytes of a file have ever been written to.
func usedSize(path string) int64 {
	f, err := os.Open(path)
	if err != nil {
		return 0
	}
	defer f.Close()
	t, err := readTree(f)
	if err != nil {
		return 0
	}
	return int64(t.pages * t.pageSize)
}
