package history

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"
)

const (
	// archivePage is large, so that little is left over behind records of some kilobytes.
	archivePage = 32 << 10
	// buildBytes is about what is held in memory of a file being built.
	buildBytes = 4 << 20
)

// builder makes an archive file. It is under its name, and complete, once publish has returned.
type builder struct {
	path string
	db   *bbolt.DB
	tx   *bbolt.Tx
	into *bbolt.Bucket // the last one, of tx
	name []byte        // its name
	size int           // put since the last commit
	span times         // of the results in it

	firstStored, lastStored uint64 // of the reports
}

// build begins a file, of which nothing counts before publish.
func build(path string) (*builder, error) {
	if err := remove(path + tmpSuffix); err != nil {
		return nil, err
	}
	// Nobody reads it with bbolt again, nor until it is complete: it
	// needs no list of free pages and no sync before the end.
	db, err := bbolt.Open(path+tmpSuffix, 0o600, &bbolt.Options{
		PageSize: archivePage, InitialMmapSize: mapSize, NoFreelistSync: true, NoSync: true, NoGrowSync: true, FreelistType: bbolt.FreelistMapType, NoStatistics: true,
	})
	if err != nil {
		return nil, errors.Join(err, remove(path+tmpSuffix))
	}
	db.AllocSize = archivePage // a file no larger than what is in it
	return &builder{path: path, db: db, span: noTimes}, nil
}

// brought notes when a report was stored of which something is in the file.
func (b *builder) brought(at uint64) {
	if b.lastStored == 0 {
		b.firstStored, b.lastStored = at, at
	}
	b.firstStored, b.lastStored = min(b.firstStored, at), max(b.lastStored, at)
}

// put adds a record. Records come in the order of their keys, or it takes longer.
func (b *builder) put(bucket, key, value []byte) (err error) {
	if b.tx == nil {
		if b.tx, err = b.db.Begin(true); err != nil {
			return err
		}
	}
	if b.into == nil || !bytes.Equal(b.name, bucket) {
		if b.into, err = b.tx.CreateBucketIfNotExists(bucket); err != nil {
			return err
		}
		b.into.FillPercent, b.name = 1, bucket
	}
	if err := b.into.Put(key, seal(key, value)); err != nil {
		return err
	}
	if b.size += len(key) + len(value); b.size < buildBytes {
		return nil
	}
	return b.commit()
}

func (b *builder) commit() error {
	if b.tx == nil {
		return nil
	}
	tx := b.tx
	b.tx, b.into, b.size = nil, nil, 0
	return tx.Commit()
}

// finish makes the file complete and durable, under its name of while it is made.
func (b *builder) finish() error {
	var meta []byte
	for _, v := range [...]uint64{uint64(b.span.from), uint64(b.span.to), b.firstStored, b.lastStored} {
		meta = binary.BigEndian.AppendUint64(meta, v)
	}
	err := errors.Join(
		b.put(metaBucket, formatKey, []byte(archiveFormat)),
		b.put(metaBucket, spanKey, meta),
	)
	for _, bucket := range [][]byte{seriesBucket, reportsBucket, oddBucket} {
		if err == nil {
			err = b.ensure(bucket)
		}
	}
	if err == nil {
		err = b.commit()
	}
	if err == nil {
		err = b.db.Sync()
	}
	if err != nil {
		return errors.Join(err, b.abort())
	}
	return b.db.Close()
}

// ensure makes a bucket that may be empty.
func (b *builder) ensure(bucket []byte) error {
	if b.tx == nil {
		var err error
		if b.tx, err = b.db.Begin(true); err != nil {
			return err
		}
	}
	_, err := b.tx.CreateBucketIfNotExists(bucket)
	return err
}

// publish gives a finished file its name. It is durable when the folder is synced.
func (b *builder) publish() error { return os.Rename(b.path+tmpSuffix, b.path) }

// abort forgets the file.
func (b *builder) abort() error {
	var err error
	if b.tx != nil {
		err = b.tx.Rollback()
		b.tx = nil
	}
	return errors.Join(err, b.db.Close(), remove(b.path+tmpSuffix))
}

// publishAll finishes files and gives them their names, the last one last.
func publishAll(list ...*builder) error {
	for i, b := range list {
		if err := b.finish(); err != nil {
			for _, other := range list[:i] {
				err = errors.Join(err, remove(other.path+tmpSuffix))
			}
			for _, other := range list[i+1:] {
				err = errors.Join(err, other.abort())
			}
			return err
		}
	}
	dir := filepath.Dir(list[0].path)
	for i, b := range list {
		if i == len(list)-1 && i > 0 { // by this one, the others count
			if err := syncPath(dir); err != nil {
				return err
			}
		}
		if err := b.publish(); err != nil {
			return err
		}
	}
	return syncPath(dir)
}

// seal puts a checksum before a value; unseal takes it off again, if it is right.
func seal(key, value []byte) []byte {
	return append(binary.BigEndian.AppendUint32(make([]byte, 0, checksumSize+len(value)), checksum(key, value)), value...)
}

func unseal(key, value []byte) (body []byte, ok bool) {
	if len(value) < checksumSize || binary.BigEndian.Uint32(value) != checksum(key, value[checksumSize:]) {
		return nil, false
	}
	return value[checksumSize:], true
}
