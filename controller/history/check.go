package history

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"google.golang.org/protobuf/proto"

	"github.com/synmesh/synmesh/controller/history/block"
	"github.com/synmesh/synmesh/controller/history/rollup"
	synmeshv1 "github.com/synmesh/synmesh/proto/synmesh/v1"
)

// Finding is what Check says about a file.
type Finding struct {
	// File is its name in the folder.
	File string
	// Records is how many of its records are well, and Corrupt how many are not.
	Records, Corrupt int
	// Err says what keeps the file, or a part of it, from being read; nil: nothing does.
	// It wraps ErrFormat if the file was written in another format.
	Err error
}

// OK tells whether the file is well.
func (f Finding) OK() bool { return f.Corrupt == 0 && f.Err == nil }

// Check reads every record of the history in a folder and calls report for each
// file of it, in the order of their names. It changes nothing, and may be used while a Store has the
// folder open; then the file that is being written to may look damaged, if it is
// written to meanwhile. The error is about the folder, or the context's, never about a file.
func Check(ctx context.Context, dir string, report func(Finding)) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("history: check: %w", err)
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("history: check: %w", err)
		}
		f := Finding{File: e.Name()}
		path := filepath.Join(dir, e.Name())
		if _, ok := parseName(e.Name()); ok {
			f.Err = checkFile(path, &f, checkIntake)
		} else if p, ok := parseParts(e.Name()); ok {
			f.Err = checkFile(path, &f, func(t *tree, f *Finding) error { return checkArchived(t, f, p.tier) })
		} else if _, ok := parseSetAside(e.Name()); ok {
			f.Err = fmt.Errorf("%w: it was set aside", errDamaged)
		} else {
			continue
		}
		if errors.Is(f.Err, os.ErrNotExist) {
			continue // archived or merged meanwhile
		}
		report(f)
	}
	return nil
}

func checkFile(path string, f *Finding, check func(*tree, *Finding) error) error {
	h, err := os.Open(path)
	if err != nil {
		return err
	}
	defer h.Close()
	t, err := readTree(h)
	if err != nil {
		return err
	}
	return check(t, f)
}

// checkBucket counts the records of a bucket that are well, and those that are not.
func (f *Finding) checkBucket(t *tree, bucket []byte, well func(k, v []byte) bool) error {
	t.damage, t.seen = nil, 0
	root, err := t.bucket(bucket)
	if err != nil {
		return err
	}
	for k, v := range t.entries(root, nil) {
		if well(k, v) {
			f.Records++
		} else {
			f.Corrupt++
		}
	}
	return t.damage
}

func checkIntake(t *tree, f *Finding) error {
	if err := checkFormat(t, format, rowsBucket, marksBucket); err != nil {
		return err
	}
	return errors.Join(f.checkBucket(t, rowsBucket, wellRow), f.checkBucket(t, marksBucket, func(k, v []byte) bool {
		_, _, ok := decodeMark(k, v)
		return ok
	}))
}

func wellRow(k, v []byte) bool {
	r, ok := decodeRecord(k, v)
	return ok && proto.Unmarshal(r.report, &synmeshv1.Report{}) == nil
}

func checkArchived(t *tree, f *Finding, tier tier) error {
	if err := checkFormat(t, archiveFormat, seriesBucket, metaBucket); err != nil {
		return err
	}
	var b block.Block
	sealed := func(well func(k, body []byte) bool) func(k, v []byte) bool {
		return func(k, v []byte) bool {
			body, ok := unseal(k, v)
			return ok && well(k, body)
		}
	}
	series := func(k, body []byte) bool {
		_, _, ok := parseKey(k)
		if tier == raw {
			return ok && block.Decode(body, &b) == nil
		}
		return ok && rollup.Decode(body, -1<<63, 1<<63-1, nil, func(*rollup.Slot) bool { return true }) == nil
	}
	return errors.Join(
		f.checkBucket(t, metaBucket, sealed(func(k, body []byte) bool { return bytes.Equal(k, formatKey) || len(body) == 32 })),
		f.checkBucket(t, seriesBucket, sealed(series)),
		f.checkBucket(t, reportsBucket, sealed(func(_, body []byte) bool {
			_, _, err := block.DecodeTable(body, reportColumns)
			return err == nil
		})),
		f.checkBucket(t, oddBucket, sealed(wellRow)),
	)
}
