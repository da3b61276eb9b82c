package history

import (
	"errors"
	"fmt"

	"go.etcd.io/bbolt"
)

const (
	// A page ends when it has that many rows or bytes, so that a read transaction
	// lasts a few milliseconds at most. The first page, which may be all that is
	// asked for, is smaller, and each one twice the last.
	pageRows       = 256
	firstPageBytes = 64 << 10
	pageBytes      = 1 << 20
)

// page is a copy of consecutive rows.
type page struct {
	rows    []row
	buf     []byte   // their reports
	corrupt []string // keys of the corrupt ones among them
	limit   int      // in bytes; 0 before the first page
}

type row struct {
	at         uint64
	agent      string
	start, end int // of the report in buf
}

func (p *page) reset() {
	p.rows, p.buf, p.corrupt = p.rows[:0], p.buf[:0], p.corrupt[:0]
	p.limit = min(max(2*p.limit, firstPageBytes), pageBytes)
}

func (p *page) full() bool { return len(p.rows) >= pageRows || len(p.buf) >= p.limit }

func (p *page) add(r record) {
	start := len(p.buf)
	p.buf = append(p.buf, r.report...)
	p.rows = append(p.rows, row{r.at, string(r.agent), start, len(p.buf)})
}

// addCorrupt notes the key of a corrupt record, as far as it can be read.
func (p *page) addCorrupt(key []byte) {
	var s string
	_ = guard(func() error {
		s = string(key[:min(len(key), keySize)])
		return nil
	})
	p.corrupt = append(p.corrupt, s)
}

// fill adds the file's rows from one stored time to another to the page, until
// it is full; more tells that it was. With errDamaged, what could be read is
// in the page.
func (f *file) fill(p *page, from, to uint64) (more bool, err error) {
	err = f.view(func(tx *bbolt.Tx) (err error) {
		c := tx.Bucket(rowsBucket).Cursor()
		for k, v := seek(c, from); k != nil; k, v = c.Next() {
			r, ok := decodeRecord(k, v)
			switch {
			case !ok:
				p.addCorrupt(k)
			case r.at < from:
				if len(p.rows) > 0 { // a damaged branch leads to a leaf twice
					err = fmt.Errorf("%w: reports out of order", errDamaged)
				}
			case r.at >= to:
				return err
			case p.full():
				more = true
				return err
			default:
				p.add(r)
				from = r.at + 1
			}
		}
		return err
	})
	return more, err
}

// behind looks for the end of damage that begins at a stored time. It returns a
// later time from which the file can be read again, at most the given end.
func (f *file) behind(damage, end uint64) uint64 {
	for damage+1 < end {
		middle := damage + (end-damage)/2
		err := f.view(func(tx *bbolt.Tx) error {
			seek(tx.Bucket(rowsBucket).Cursor(), middle)
			return nil
		})
		if err != nil {
			damage = middle
		} else {
			end = middle
		}
	}
	return end
}

// reader reads rows page by page, oldest first.
type reader struct {
	next, end uint64 // stored times: the first wanted, and the first not wanted
	behind    uint64 // the end of damage in the file, or 0
	page      page
}

// readPage reads the next rows of a file into the reader's page; more tells
// whether the file may have others. It goes on behind damage.
func (s *Store) readPage(r *reader, f *file) (more bool, err error) {
	r.page.reset()
	r.next = max(r.next, f.start())
	from, end := max(r.next, r.behind), min(r.end, f.end())
	if from >= end {
		r.behind = 0
		return false, nil
	}
	more, err = f.fill(&r.page, from, end)
	s.noteCorrupt(f, r.page.corrupt)
	if n := len(r.page.rows); n > 0 {
		r.next = r.page.rows[n-1].at + 1
	}
	switch {
	case errors.Is(err, errDamaged):
		s.noteDamaged(f, err)
		if len(r.page.rows) == 0 {
			r.behind = f.behind(from, end)
		}
		return true, nil
	case !more:
		r.behind = 0
	}
	return more, err
}
