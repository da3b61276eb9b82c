package registry

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/synmesh/synmesh/internal/identity"
)

// format names what doc.go describes under "What is on disk".
const format = "synmesh registry 1"

const fileName = "registry.db"

var (
	metaBucket         = []byte("meta")
	tokensBucket       = []byte("tokens")
	agentsBucket       = []byte("agents")
	usersBucket        = []byte("users")
	measurementsBucket = []byte("measurements")
	auditBucket        = []byte("audit")
	seenBucket         = []byte("seen") // may be missing

	formatKey   = []byte("format")
	headKey     = []byte("audit head")
	revisionKey = []byte("measurements revision")
)

// openDB opens the file in the folder. One that is not there is made aside,
// and gets its name only when it is complete and durable.
func openDB(dir string, wait time.Duration) (*bbolt.DB, error) {
	path := filepath.Join(dir, fileName)
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		if err := createDB(dir, path, wait); err != nil {
			return nil, fmt.Errorf("make it: %w", err)
		}
	}
	db, err := openBolt(path, wait)
	if err != nil {
		return nil, err
	}
	err = guard(func() error { return db.View(checkFormat) })
	if err == nil {
		// A killed process may have left a commit that can be read, but is not
		// on the disk yet.
		err = db.Sync()
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

func createDB(dir, path string, wait time.Duration) error {
	aside := path + ".tmp"
	if err := os.Remove(aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	db, err := openBolt(aside, wait)
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{metaBucket, tokensBucket, agentsBucket, usersBucket, measurementsBucket, auditBucket} {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		return tx.Bucket(metaBucket).Put(formatKey, []byte(format))
	})
	// bbolt has synced the file with its commit.
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	if err := os.Rename(aside, path); err != nil {
		return err
	}
	return identity.SyncFolder(dir)
}

func openBolt(path string, wait time.Duration) (*bbolt.DB, error) {
	return openWith(path, &bbolt.Options{Timeout: wait, NoStatistics: true, FreelistType: bbolt.FreelistMapType})
}

func openWith(path string, options *bbolt.Options) (db *bbolt.DB, err error) {
	err = guard(func() (err error) {
		db, err = bbolt.Open(path, 0o600, options)
		return err
	})
	if errors.Is(err, bolterrors.ErrTimeout) {
		err = ErrInUse
	}
	return db, err
}

func checkFormat(tx *bbolt.Tx) error {
	meta := tx.Bucket(metaBucket)
	if meta == nil {
		return fmt.Errorf("%w: it is not a registry", ErrDamaged)
	}
	if f := string(meta.Get(formatKey)); f != format {
		return fmt.Errorf("%w: its format is %.80q, and this version reads %q only", ErrFormat, f, format)
	}
	for _, name := range [][]byte{tokensBucket, agentsBucket, usersBucket, measurementsBucket, auditBucket} {
		if tx.Bucket(name) == nil {
			return fmt.Errorf("%w: %s are missing", ErrDamaged, name)
		}
	}
	return nil
}

// guard turns panics and memory faults, by which bbolt tells of a damaged file,
// into ErrDamaged.
func guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", ErrDamaged, r)
		}
	}()
	return fn()
}
