package history

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
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
	*bolt
	writable bool // made by this process, and well

	mu      sync.Mutex
	corrupt map[string]struct{} // keys of the records found so
	damaged bool                // and logged
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
	if err := syncDir(filepath.Dir(path)); err != nil {
		return nil, err
	}
	f, err := openFile(path, n, bbolt.Options{InitialMmapSize: mapSize, MaxSize: maxSize})
	if err != nil {
		return nil, err
	}
	f.writable = true
	return f, nil
}

// remove removes a file that need not be there.
func remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func writeEmpty(path string, m marks, maxSize int) error {
	b, err := openBolt(path, bbolt.Options{Timeout: time.Second, MaxSize: maxSize})
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

// openFile opens a file that is there.
func openFile(path string, n name, options bbolt.Options) (*file, error) {
	switch info, err := os.Stat(path); {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular() || info.Size() == 0: // an empty one bbolt would initialise
		return nil, fmt.Errorf("%w: not a file with content", errDamaged)
	}
	options.Timeout = time.Second
	b, err := openBolt(path, options)
	if err != nil {
		return nil, err
	}
	if err := b.view(checkFormat); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return &file{name: n, bolt: b, corrupt: map[string]struct{}{}}, nil
}

// checkFormat refuses what this version cannot read. A format that is damaged
// is not another one: the buckets tell that the file is ours.
func checkFormat(tx *bbolt.Tx) error {
	if meta := tx.Bucket(metaBucket); meta != nil {
		if f, ok := decodeFormat(meta.Get(formatKey)); ok && f != format {
			return fmt.Errorf("%w: %q, and this version reads %q only; run the version that wrote it, or move the file away", ErrFormat, f, format)
		}
	}
	if tx.Bucket(rowsBucket) == nil || tx.Bucket(marksBucket) == nil {
		return fmt.Errorf("%w: not a file of the history", errDamaged)
	}
	return nil
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

// seek puts the cursor on a row such that no good row from the key on comes
// before it. A damaged key misleads bbolt's binary search, so it goes back
// until a good row shows that none was jumped over, or to the first.
func seek(c *bbolt.Cursor, key uint64) (k, v []byte) {
	if k, v = c.Seek(binary.BigEndian.AppendUint64(nil, key)); k == nil {
		k, v = c.Last()
	}
	for k != nil {
		if r, ok := decodeRecord(k, v); ok && r.at <= key {
			return k, v
		}
		k, v = c.Prev()
	}
	return c.First()
}

// noteCorrupt remembers a corrupt record and tells whether it is a new one.
func (f *file) noteCorrupt(key string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, known := f.corrupt[key]
	f.corrupt[key] = struct{}{}
	return !known
}

// noteDamaged remembers that the file is damaged and tells whether that is new.
func (f *file) noteDamaged() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	known := f.damaged
	f.damaged = true
	return !known
}
