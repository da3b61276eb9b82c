package history

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"
)

// recoverMarks reads the marks. The newest file has them all; where one is
// damaged, the reports of that file and the files before tell what it said.
func (s *Store) recoverMarks() error {
	for _, f := range slices.Backward(s.files) {
		err := f.readMarks(s.marks)
		if err == nil {
			return nil
		}
		if !errors.Is(err, errDamaged) {
			return err
		}
		s.log.Error("history: marks are damaged; reading them off the reports", "file", f.String())
		r := reader{end: math.MaxUint64}
		for more := true; more; {
			if more, err = s.readPage(&r, f); err != nil {
				return err
			}
			for _, row := range r.page.rows {
				if report, ok := s.unmarshal(f, &r.page, row); ok {
					s.marks.raise(stream{row.agent, report.GetEpoch()}, mark{report.GetSequence(), row.at})
				}
			}
		}
	}
	if len(s.files) == 0 {
		return nil
	}
	return s.recoverArchivedMarks()
}

// recoverArchivedMarks reads the marks off the reports that are in the archive.
func (s *Store) recoverArchivedMarks() error {
	for _, a := range s.archive {
		if a.tier != raw {
			break
		}
		err := s.reports(a, Filter{}, func(c *chunk) bool {
			for i, epoch := range c.table[epochColumn] {
				s.marks.raise(stream{c.agent, uint64(epoch)}, mark{uint64(c.table[sequenceColumn][i]), uint64(c.table[storedColumn][i])})
			}
			return true
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// readMarks adds the file's marks to m. After errDamaged some are missing.
func (f *file) readMarks(m marks) error {
	return f.view(func(t *tree) error {
		root, err := t.bucket(marksBucket)
		if err != nil {
			return err
		}
		for k, v := range t.entries(root, nil) {
			if s, mark, ok := decodeMark(k, v); ok {
				m.raise(s, mark)
			} else {
				err = errDamaged
			}
		}
		return errors.Join(err, t.damage)
	})
}

// recoverLast finds the latest stored time, or, where damage hides it, one
// that is later than all that can be read.
func (s *Store) recoverLast() error {
	for _, a := range s.archive {
		if a.tier == raw {
			s.last = max(s.last, a.lastStored)
		}
	}
	for _, f := range slices.Backward(s.files) {
		s.last = max(s.last, f.start())
		found := false
		err := f.view(func(t *tree) error {
			root, err := t.bucket(rowsBucket)
			if err != nil {
				return err
			}
			// Where the key is beyond all there is, the tree gives the last pages.
			for k, v := range t.entries(root, binary.BigEndian.AppendUint64(nil, math.MaxUint64)) {
				if r, ok := decodeRecord(k, v); ok {
					s.last, found = max(s.last, r.at), true
				}
			}
			return t.damage
		})
		if err != nil && !errors.Is(err, errDamaged) {
			return err
		}
		if found {
			return nil
		}
	}
	return nil
}
