package history

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"math"
	"os"
	"slices"
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
// Of an entry, the blocks are in the order of their sources and targets; in the
// archive, a series has as few blocks as it can, and times, latenesses and host
// delays are whole microseconds.
//
// It reads about a megabyte at a time and holds nothing while the caller has an
// entry, so the caller may take as long as it likes. While the intake has more to do than it
// can, all who scan and query get little of the processors, and wait for it. Damaged records are left
// out, counted and logged. An error comes last, with an empty entry; it
// wraps the context's error, ErrClosed, ErrInvalid for a cursor that is none, or
// what the operating system said.
func (s *Store) Scan(ctx context.Context, from, to time.Time, after Cursor) iter.Seq2[Entry, error] {
	return s.ScanSeries(ctx, Filter{}, from, to, after)
}

// ScanSeries is Scan for those who want some series only. Entries have the blocks of these, and
// there are none of other agents; an entry may have no block. It reads little of the archive but what is wanted.
func (s *Store) ScanSeries(ctx context.Context, f Filter, from, to time.Time, after Cursor) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		if err := s.scan(ctx, f, from, to, after, yield); err != nil {
			yield(Entry{}, fmt.Errorf("history: scan: %w", err))
		}
	}
}

func (s *Store) scan(ctx context.Context, want Filter, from, to time.Time, after Cursor, yield func(Entry, error) bool) error {
	p := pace{store: s}
	defer p.end()
	r := reader{next: nanoseconds(from), end: math.MaxUint64, goOn: func() error { return p.giveWay(ctx) }}
	r.page.want = &want
	if !to.IsZero() {
		r.end = nanoseconds(to)
	}
	return walk(ctx, s, &r, after, func(p whereabouts) (iter.Seq[Entry], bool, error) { return s.entries(&r, p, want) }, yield)
}

// walk goes through the places behind a cursor, and yields what read finds there; read moves the reader on, and
// tells whether the place has more.
func walk[T any](ctx context.Context, s *Store, r *reader, after Cursor, read func(whereabouts) (iter.Seq[T], bool, error), yield func(T, error) bool) error {
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
		p, err := s.placeAfter(done, r.next)
		if err != nil || p.empty() || p.start() >= r.end {
			return err
		}
		list, more, err := read(p)
		if errors.Is(err, os.ErrClosed) || errors.Is(err, os.ErrNotExist) || errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
			continue // deleted, archived, opened anew or closed since placeAfter
		}
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		for v := range list {
			if !yield(v, nil) {
				return nil
			}
		}
		switch {
		case more:
		case p.newest:
			// There may be another by now, but before that this one may have got
			// reports that have not been read: they are for the next Scan.
			return nil
		default:
			done = p.name
		}
	}
}

// whereabouts is where the reports of an intake file are: there, or in the archive.
type whereabouts struct {
	name
	intake  *file
	archive *archived
	newest  bool
}

func (p whereabouts) empty() bool { return p.intake == nil && p.archive == nil }

// placeAfter returns where the reports are that come after those of the file
// named, and may be stored at a time or later. All but the newest are complete.
func (s *Store) placeAfter(done name, next uint64) (p whereabouts, err error) {
	day := dayOf(next)
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return whereabouts{}, ErrClosed
	}
	for i, f := range s.files {
		if f.day >= day && f.compare(done) > 0 {
			p = whereabouts{name: f.name, intake: f, newest: i == len(s.files)-1}
			break
		}
	}
	for _, a := range s.archive {
		n := a.intake()
		if a.tier == raw && a.day >= day && a.lastStored >= next && n.compare(done) > 0 && (p.empty() || n.compare(p.name) < 0) {
			return whereabouts{name: n, archive: a}, nil
		}
	}
	return p, nil
}

// entries reads the next entries of a place; more tells whether there are others.
func (s *Store) entries(r *reader, p whereabouts, want Filter) (list iter.Seq[Entry], more bool, err error) {
	if err := r.mayGoOn(); err != nil {
		return nil, false, err
	}
	if p.archive != nil {
		return s.archivedEntries(r, p.archive, want)
	}
	more, err = s.readPage(r, p.intake)
	return func(yield func(Entry) bool) {
		for _, row := range r.page.rows {
			report, ok := s.unmarshal(p.intake, &r.page, row)
			if !ok {
				continue
			}
			report.Blocks = wanted(row.agent, report.GetBlocks(), want)
			if !yield(newEntry(row.at, row.agent, report)) {
				return
			}
		}
	}, more, err
}

func newEntry(at uint64, agent string, report *synmeshv1.Report) Entry {
	return Entry{binary.BigEndian.AppendUint64(nil, at), time.Unix(0, int64(at)).UTC(), agent, report}
}

// wanted returns the blocks of the series wanted, in the order of the archive.
func wanted(agent string, blocks []*synmeshv1.ResultBlock, want Filter) []*synmeshv1.ResultBlock {
	blocks = slices.DeleteFunc(blocks, func(b *synmeshv1.ResultBlock) bool {
		return !want.WantsSeries(Series{b.GetSource(), agent, b.GetTarget()})
	})
	slices.SortStableFunc(blocks, func(a, b *synmeshv1.ResultBlock) int {
		return cmp.Or(cmp.Compare(len(a.GetSource()), len(b.GetSource())), cmp.Compare(a.GetSource(), b.GetSource()), cmp.Compare(a.GetTarget(), b.GetTarget()))
	})
	return blocks
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
