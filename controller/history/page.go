package history

import (
	"encoding/binary"
	"errors"
)

const (
	// A page ends when it has that many rows or bytes, so that reading it
	// takes a few milliseconds at most. The first page, which may be all that is
	// asked for, is smaller, and each one twice the last.
	pageRows       = 256
	firstPageBytes = 64 << 10
	pageBytes      = 1 << 20
	// maxSeen bounds the bytes of rows that are looked at, if few are wanted.
	maxSeen = 8 << 20
)

// page is a copy of consecutive rows.
type page struct {
	rows    []row
	buf     []byte   // their reports
	corrupt []string // keys of the corrupt ones among them, "" where there is none
	limit   int      // in bytes; 0 before the first page
	want    *Filter  // what is copied; nil: everything
	last    uint64   // when the last row was stored that was looked at
	seen    int      // bytes of the rows that were
}

type row struct {
	at         uint64
	agent      string
	start, end int // of the report in buf
}

func (p *page) reset() {
	p.rows, p.buf, p.corrupt = p.rows[:0], p.buf[:0], p.corrupt[:0]
	p.last, p.seen = 0, 0
	p.limit = min(max(2*p.limit, firstPageBytes), pageBytes)
}

func (p *page) full() bool {
	return len(p.rows) >= pageRows || len(p.buf) >= p.limit || p.seen >= maxSeen
}

// add adds a row, as far as it is wanted.
func (p *page) add(r record) {
	p.last, p.seen = r.at, p.seen+len(r.report)
	start := len(p.buf)
	switch {
	case p.want == nil:
		p.buf = append(p.buf, r.report...)
	case p.want.Wants(string(r.agent)):
		p.buf = p.want.appendWanted(p.buf, r.report)
	default:
		return
	}
	p.rows = append(p.rows, row{r.at, string(r.agent), start, len(p.buf)})
}

// fill adds the file's rows from one stored time to another to the page, until
// it is full; more tells that it was. With errDamaged, the page has what
// could be read.
func (f *file) fill(p *page, from, to uint64) (more bool, err error) {
	err = f.view(func(t *tree) error {
		root, err := t.bucket(rowsBucket)
		if err != nil {
			return err
		}
		for k, v := range t.entries(root, binary.BigEndian.AppendUint64(nil, from)) {
			r, ok := decodeRecord(k, v)
			switch {
			case !ok:
				p.corrupt = append(p.corrupt, string(k))
				continue
			case r.at < from: // before the start, or where a damaged page led twice
				continue
			case r.at >= to:
				return t.damage
			case p.full():
				more = true
				return t.damage
			}
			p.add(r)
			from = r.at + 1
		}
		return t.damage
	})
	return more, err
}

// reader reads rows page by page, oldest first.
type reader struct {
	next, end uint64 // stored times: the first wanted, and the first not wanted
	page      page
	window    int64        // results that the last window in the archive had about
	goOn      func() error // called before reading and while that takes long; its error ends it. nil: nobody asks
}

// mayGoOn asks whether to read on.
func (r *reader) mayGoOn() error {
	if r.goOn == nil {
		return nil
	}
	return r.goOn()
}

// readPage reads the next rows of a file into the reader's page; more tells
// whether the file has others. Damage is noted and is no error.
func (s *Store) readPage(r *reader, f *file) (more bool, err error) {
	r.page.reset()
	more, err = f.fill(&r.page, r.next, r.end)
	if errors.Is(err, errDamaged) {
		s.noteDamaged(f, err)
		err = nil
	}
	if err != nil {
		return false, err
	}
	s.noteCorrupt(f, r.page.corrupt)
	r.next = max(r.next, r.page.last+1)
	return more, nil
}
