package history

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
)

// format names what doc.go describes under "What is on disk".
const format = "synmesh intake 1"

var (
	metaBucket  = []byte("meta")
	rowsBucket  = []byte("rows")
	marksBucket = []byte("marks")
	formatKey   = []byte("format")
)

// file is one file of the intake, open.
type file struct {
	name
	db     *bolt    // of a file that this process has made,
	handle *os.File // or of one that is only read

	born  uint64 // the first stored time it could take, if this process has made it
	bytes int64  // of the records that it was given then
	tail  tail
	health
}

// createFile makes a file that holds the marks and no report. It gets its name
// only when it is complete and durable.
func createFile(path string, n name, m marks, maxSize int) (*file, error) {
	tmp := path + tmpSuffix
	if err := remove(tmp); err != nil {
		return nil, err
	}
	if err := writeEmpty(tmp, m, maxSize); err != nil {
		return nil, errors.Join(err, remove(tmp))
	}
	if err := os.Rename(tmp, path); err != nil {
		return nil, err
	}
	if err := syncPath(filepath.Dir(path)); err != nil {
		return nil, err
	}
	db, err := openBolt(path, time.Second, maxSize)
	if err != nil {
		return nil, err
	}
	return &file{name: n, db: db, tail: newTail()}, nil
}

func writeEmpty(path string, m marks, maxSize int) error {
	b, err := openBolt(path, time.Second, maxSize)
	if err != nil {
		return err
	}
	err = b.update(func(tx *bbolt.Tx) error {
		meta, err := tx.CreateBucket(metaBucket)
		if err != nil {
			return err
		}
		if err := meta.Put(formatKey, encodeFormat(format)); err != nil {
			return err
		}
		if _, err := tx.CreateBucket(rowsBucket); err != nil {
			return err
		}
		bucket, err := tx.CreateBucket(marksBucket)
		if err != nil {
			return err
		}
		return m.put(bucket)
	})
	// bbolt has synced the file with its commit.
	return errors.Join(err, b.close())
}

// openFile opens a file for reading.
func openFile(path string, n name) (*file, error) {
	h, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	f := &file{name: n, handle: h, tail: newTail()}
	if err := f.view(func(t *tree) error { return checkFormat(t, format, rowsBucket, marksBucket) }); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return f, nil
}

// view runs fn with the tree as it is now.
func (f *file) view(fn func(*tree) error) error {
	if f.db != nil {
		return f.db.view(fn)
	}
	t, err := readTree(f.handle)
	if err != nil {
		return err
	}
	defer t.free()
	return fn(t)
}

func (f *file) close() error {
	if f.db != nil {
		return f.db.close()
	}
	return f.handle.Close()
}

// remove removes a file that need not be there.
func remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// checkFormat refuses what this version cannot read. A format that is damaged
// is not another one: either of two buckets tells that the file is ours.
func checkFormat(t *tree, format string, either, or []byte) error {
	if meta, err := t.bucket(metaBucket); err == nil {
		for k, v := range t.entries(meta, nil) {
			if f, ok := decodeFormat(v); ok && string(k) == string(formatKey) && f != format {
				return fmt.Errorf("%w: %q, and this version reads %q only; run the version that wrote it, or move the file away", ErrFormat, f, format)
			}
		}
	}
	_, err := t.bucket(either)
	if _, other := t.bucket(or); other == nil {
		return nil
	}
	return err
}

func encodeFormat(f string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, checksum(formatKey, []byte(f))), f...)
}

func decodeFormat(v []byte) (f string, ok bool) {
	if len(v) < checksumSize || binary.BigEndian.Uint32(v) != checksum(formatKey, v[checksumSize:]) {
		return "", false
	}
	return string(v[checksumSize:]), true
}
