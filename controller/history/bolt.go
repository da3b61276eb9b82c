package history

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// errDamaged says that a file does not hold what we wrote.
var errDamaged = errors.New("damaged")

// mapSize is the address space that a file being written gets at once, so that
// growing does not make bbolt map it anew (for which it waits for readers).
const mapSize = 256 << 20

// bolt is a bbolt database that survives damage. bbolt trusts its files: where
// a page is not what it should be it panics, or follows a wild pointer out of
// its memory map. All use of it therefore goes through view and update, which
// turn both into errDamaged.
type bolt struct {
	db     *bbolt.DB
	handle *os.File
	stuck  bool // a panic left bbolt's locks held
}

// openBolt opens a database, made empty if it is not there and writable.
func openBolt(path string, options bbolt.Options) (*bolt, error) {
	b := &bolt{}
	options.FreelistType = bbolt.FreelistMapType
	// The list of free pages is synced. In a file that is only added to, it fits
	// a page and costs 4 % of the commits at most; without it bbolt reads
	// the whole tree on opening and after each failed commit, and panics in
	// a goroutine of its own, where nobody can recover, if it does not like it.
	options.NoFreelistSync = false
	options.NoStatistics = true
	options.OpenFile = func(name string, flag int, mode os.FileMode) (f *os.File, err error) {
		f, err = os.OpenFile(name, flag, mode)
		b.handle = f
		return f, err
	}
	err := guard(func() (err error) {
		b.db, err = bbolt.Open(path, 0o600, &options)
		return err
	})
	if err == nil {
		return b, nil
	}
	if errors.Is(err, errDamaged) && b.handle != nil {
		err = errors.Join(err, b.handle.Close())
	}
	if errors.Is(err, bolterrors.ErrTimeout) {
		err = ErrInUse
	}
	return nil, err
}

// view runs fn in a read transaction. What fn gets dies with it.
func (b *bolt) view(fn func(*bbolt.Tx) error) error {
	return guard(func() error { return b.db.View(fn) })
}

// update runs fn in a write transaction and commits it. After errDamaged the
// database is good for nothing but view and close.
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
		rolledBack := guard(func() error {
			if tx == nil {
				return nil
			}
			// It may have been closed before the panic.
			if err := tx.Rollback(); !errors.Is(err, bolterrors.ErrTxClosed) {
				return err
			}
			return nil
		})
		b.stuck = tx == nil || rolledBack != nil
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
	path := dir + string(os.PathSeparator) + "lock"
	b, err := openBolt(path, bbolt.Options{Timeout: wait})
	if err != nil && isDamage(err) {
		// A power cut in the moment it was made. There is nothing in it.
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("history: remove a damaged lock file: %w", err)
		}
		b, err = openBolt(path, bbolt.Options{Timeout: wait})
	}
	if err != nil {
		return nil, fmt.Errorf("history: lock %s: %w", dir, err)
	}
	return b, nil
}
