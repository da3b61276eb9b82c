package history

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// errDamaged says that a file does not hold what was written.
var errDamaged = errors.New("damaged")

// mapSize is the address space that a file gets at once, so that growing does
// not make bbolt map it anew (for which it waits for readers).
const mapSize = 256 << 20

// bolt is a bbolt database being written. Should it be damaged meanwhile, bbolt
// panics or follows a wild pointer; both become errDamaged.
type bolt struct {
	db     *bbolt.DB
	handle *os.File // bbolt's own
	stuck  bool     // a panic left bbolt's locks held
}

// openBolt opens a database, made empty if it is not there.
func openBolt(path string, lockWait time.Duration, maxSize int) (*bolt, error) {
	b := &bolt{}
	options := &bbolt.Options{
		Timeout:         lockWait,
		MaxSize:         maxSize,
		InitialMmapSize: mapSize,
		NoStatistics:    true,
		FreelistType:    bbolt.FreelistMapType,
		// The list of free pages is synced. In a file that is only added to, it
		// fits a page and costs 4 % of the commits at most. Without it bbolt
		// reads the whole tree after every commit that fails, and
		// panics in a goroutine of its own, where nobody can recover, if it
		// does not like it.
		NoFreelistSync: false,
		OpenFile: func(name string, flag int, mode os.FileMode) (f *os.File, err error) {
			f, err = os.OpenFile(name, flag, mode)
			if b.handle == nil { // bbolt asks again for each copy that it makes
				b.handle = f
			}
			return f, err
		},
	}
	err := guard(func() (err error) {
		b.db, err = bbolt.Open(path, 0o600, options)
		return err
	})
	switch {
	case errors.Is(err, errDamaged):
		return nil, errors.Join(err, b.handle.Close())
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, ErrInUse
	case err != nil:
		return nil, err
	}
	return b, nil
}

// view runs fn with the tree as the last commit has left it. Meanwhile its pages
// are not written to; those of any other commit may be.
func (b *bolt) view(fn func(*tree) error) error {
	return guard(func() error {
		return b.db.View(func(tx *bbolt.Tx) error {
			pageSize := uint64(b.db.Info().PageSize)
			t := &tree{
				r:        b.handle,
				pageSize: pageSize,
				root:     uint64(tx.Cursor().Bucket().Root()),
				pages:    uint64(tx.Size()) / pageSize,
			}
			defer t.free()
			return fn(t)
		})
	})
}

// update runs fn in a transaction and commits it. After errDamaged the database
// can only be closed.
func (b *bolt) update(fn func(*bbolt.Tx) error) error {
	var tx *bbolt.Tx
	err := guard(func() (err error) {
		if tx, err = b.db.Begin(true); err != nil {
			return err
		}
		if err := fn(tx); err != nil {
			return errors.Join(err, tx.Rollback())
		}
		return tx.Commit()
	})
	if errors.Is(err, errDamaged) {
		b.stuck = tx == nil || guard(func() error {
			// It may have been closed before the panic.
			if err := tx.Rollback(); !errors.Is(err, bolterrors.ErrTxClosed) {
				return err
			}
			return nil
		}) != nil
	}
	return err
}

// close waits for transactions under way. A stuck database would make it wait
// for ever; then the file is let go of, but its memory map and its lock
// stay as long as the process does.
func (b *bolt) close() error {
	if b.stuck {
		return b.handle.Close()
	}
	return b.db.Close()
}

// guard turns panics and memory faults of fn into errDamaged.
func guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", errDamaged, r)
		}
	}()
	return fn()
}

// isDamage tells errors about a file's content from those about the machine,
// such as a missing permission, which say nothing about the file.
func isDamage(err error) bool {
	var errno syscall.Errno
	return !errors.As(err, &errno) && !errors.Is(err, ErrInUse) && !errors.Is(err, ErrFormat)
}

// lockDir keeps other processes out of the folder as long as the result is open.
func lockDir(dir string, wait time.Duration) (*bolt, error) {
	path := filepath.Join(dir, "lock")
	b, err := openBolt(path, wait, 0)
	if err != nil && isDamage(err) {
		// A power cut in the moment it was made. There is nothing in it.
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("history: remove a damaged lock file: %w", err)
		}
		b, err = openBolt(path, wait, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("history: lock %s: %w", dir, err)
	}
	return b, nil
}
