package history

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"math"
	"os"
	"time"

	bolterrors "go.etcd.io/bbolt/errors"
	"google.golang.org/protobuf/proto"

	synmeshv1 "github.com/synmesh/synmesh/proto/synmesh/v1"
)

// Cursor is the place of an entry in the history. Later entries have greater
// cursors, and an entry keeps its cursor for ever. What is in it is nobody
// else's business. nil is the place before all entries.
type Cursor []byte

// Compare returns -1, 0 or 1 if c comes before d, is d, or comes after it.
func (c Cursor) Compare(d Cursor) int { return bytes.Compare(c, d) }

// String returns the cursor as text, for page tokens; that of nil is empty.
func (c Cursor) String() string { return hex.EncodeToString(c) }

// ParseCursor returns the cursor whose String is s. Its error wraps ErrInvalid.
func ParseCursor(s string) (Cursor, error) {
	if s == "" {
		return nil, nil
	}
	c, err := hex.DecodeString(s)
	if err != nil || len(c) != keySize || Cursor(c).String() != s {
		return nil, fmt.Errorf("history: %w cursor %q", ErrInvalid, s)
	}
	return c, nil
}

// Entry is one report in the history.
type Entry struct {
	Cursor Cursor
	// Stored is when it was stored, by the controller's clock, UTC; no two
	// entries have the same.
	Stored time.Time
	// Agent is the name of the agent that sent it.
	Agent string
	// Report is the receiver's own.
	Report *synmeshv1.Report
}

// Scan returns the entries stored from (inclusive) to (exclusive) that come
// after the cursor, oldest first. Zero times are the beginning and the end
// of time. Whoever goes on from the cursor of the last entry misses none that
// was stored meanwhile, for those have greater cursors.
//
// It reads about a megabyte at a time and holds nothing while the caller has an
// entry, so the caller may take as long as it likes. Damaged records are left
// out, counted and logged. An error comes last, with an empty entry; it
// wraps the context's error, ErrClosed, ErrInvalid for a cursor that is none, or
// what the operating system said.
func (s *Store) Scan(ctx context.Context, from, to time.Time, after Cursor) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		if err := s.scan(ctx, from, to, after, yield); err != nil {
			yield(Entry{}, fmt.Errorf("history: scan: %w", err))
		}
	}
}

func (s *Store) scan(ctx context.Context, from, to time.Time, after Cursor, yield func(Entry, error) bool) error {
	r := reader{next: nanoseconds(from), end: math.MaxUint64}
	if !to.IsZero() {
		r.end = nanoseconds(to)
	}
	switch {
	case after == nil:
	case len(after) != keySize:
		return fmt.Errorf("%w cursor %x", ErrInvalid, []byte(after))
	default:
		if last := binary.BigEndian.Uint64(after); last >= r.next {
			r.next = max(last, last+1)
		}
	}
	for done := (name{}); ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		f, newest, err := s.fileAfter(done, dayOf(r.next))
		if err != nil || f == nil || f.start() >= r.end {
			return err
		}
		more, err := s.readPage(&r, f)
		if errors.Is(err, os.ErrClosed) || errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
			continue // deleted, opened anew or closed since fileAfter
		}
		if err != nil {
			return fmt.Errorf("%s: %w", f, err)
		}
		for _, row := range r.page.rows {
			report, ok := s.unmarshal(f, &r.page, row)
			if ok && !yield(Entry{
				Cursor: binary.BigEndian.AppendUint64(nil, row.at),
				Stored: time.Unix(0, int64(row.at)).UTC(),
				Agent:  row.agent,
				Report: report,
			}, nil) {
				return nil
			}
		}
		switch {
		case more:
		case newest:
			// There may be another by now, but before that this one may have got
			// reports that have not been read: they are for the next Scan.
			return nil
		default:
			done = f.name
		}
	}
}

// fileAfter returns the first file after the one named, and not of an earlier
// day than that; nil if there is none. All but the newest are complete.
func (s *Store) fileAfter(done name, day int64) (f *file, newest bool, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, false, ErrClosed
	}
	for i, f := range s.files {
		if f.day >= day && f.compare(done) > 0 {
			return f, i == len(s.files)-1, nil
		}
	}
	return nil, false, nil
}

// unmarshal decodes a row's report; ok is false if that cannot be done.
func (s *Store) unmarshal(f *file, p *page, r row) (*synmeshv1.Report, bool) {
	report := &synmeshv1.Report{}
	if err := proto.Unmarshal(p.buf[r.start:r.end], report); err != nil {
		s.noteCorrupt(f, []string{string(binary.BigEndian.AppendUint64(nil, r.at))})
		return nil, false
	}
	return report, true
}

// nanoseconds returns a time as the intake keeps it; times that it cannot keep
// become the nearest one it can.
func nanoseconds(t time.Time) uint64 {
	switch {
	case t.Before(time.Unix(0, 0)):
		return 0
	case t.After(time.Unix(0, math.MaxInt64)):
		return math.MaxInt64
	}
	return uint64(t.UnixNano())
}
