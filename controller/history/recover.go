package history

import (
	"math"
	"slices"

	"go.etcd.io/bbolt"
)

// recoverMarks reads the marks. The newest file has them all; where one is
// damaged, the reports of that file and the files before tell what it said.
func (s *Store) recoverMarks() {
	for _, f := range slices.Backward(s.files) {
		if f.readMarks(s.marks) {
			return
		}
		s.log.Error("history: marks are damaged; reading them off the reports", "file", f.String())
		r := reader{end: math.MaxUint64}
		for more := true; more; {
			more, _ = s.readPage(&r, f) // what cannot be read has been logged
			for _, row := range r.page.rows {
				if report, ok := s.unmarshal(f, &r.page, row); ok {
					s.marks.raise(stream{row.agent, report.GetEpoch()}, mark{report.GetSequence(), row.at})
				}
			}
		}
	}
}

// readMarks adds the file's marks to m and tells whether it could read them all.
func (f *file) readMarks(m marks) (whole bool) {
	whole = true
	err := f.view(func(tx *bbolt.Tx) error {
		return tx.Bucket(marksBucket).ForEach(func(k, v []byte) error {
			s, mark, ok := decodeMark(k, v)
			if !ok {
				whole = false
				return nil
			}
			m.raise(s, mark)
			return nil
		})
	})
	return whole && err == nil
}

// recoverLast finds the latest stored time.
func (s *Store) recoverLast() {
	for _, f := range slices.Backward(s.files) {
		s.last = max(s.last, f.start())
		// Damage ends the search in this file; the clock is ahead of it anyway.
		_ = f.view(func(tx *bbolt.Tx) error {
			c := tx.Bucket(rowsBucket).Cursor()
			for k, v := c.Last(); k != nil; k, v = c.Prev() {
				if r, ok := decodeRecord(k, v); ok {
					s.last = max(s.last, r.at)
					return nil
				}
			}
			return nil
		})
		if s.last > f.start() {
			return
		}
	}
}
