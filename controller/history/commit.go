package history

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// commit stores a batch and tells those who wait for it.
func (s *Store) commit(batch []*pending) {
	err := s.write(batch)
	switch {
	case err != nil && !s.failing:
		s.log.Error("history: reports cannot be stored; the agents keep them until they can", "error", err)
	case err == nil && s.failing:
		s.log.Info("history: reports are stored again")
	}
	s.failing = err != nil
	if err != nil {
		s.count.failedCommits.Add(1)
	} else {
		s.count.commits.Add(1)
	}
	s.finish(batch, err)
}

func (s *Store) finish(batch []*pending, err error) {
	for _, p := range batch {
		if value := p.value; err == nil {
			records.Put(&value)
		}
		switch {
		case err != nil:
			p.stored, p.err = false, fmt.Errorf("history: report %d of %s is not stored: %w", p.sequence, p.agent, err)
		case p.stored:
			s.count.reports.Add(1)
			s.count.results.Add(p.results)
		default:
			s.count.duplicates.Add(1)
		}
		s.room.Release(p.weight)
		close(p.done)
	}
}

// write puts a batch into the day's file. If that proves damaged, which shows
// before anything is written, or could not be mapped when it had grown, another
// file takes its place.
func (s *Store) write(batch []*pending) error {
	at := s.stamp(len(batch))
	f, err := s.fileFor(dayOf(at), at)
	if err != nil {
		return err
	}
	if err := s.checkSize(); err != nil {
		return err
	}
	fresh, err := s.writeTo(f, batch, at)
	if errors.Is(err, errDamaged) || errors.Is(err, bolterrors.ErrInvalidMapping) || errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		s.reopen(f, err)
		if f, err = s.fileFor(dayOf(at), at); err != nil {
			return err
		}
		fresh, err = s.writeTo(f, batch, at)
	}
	if err != nil {
		return fmt.Errorf("commit to %s: %w", f, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, m := range fresh {
		s.marks[id] = m
	}
	if len(fresh) > 0 {
		s.reach(at + uint64(len(batch)) - 1)
	}
	return nil
}

// writeTo commits one transaction and returns the marks that it raised. It
// always commits, be it all duplicates: if the commit before failed in its very
// last step, its reports are in the file although nobody was told, and it takes
// a commit that succeeds to be sure of them.
func (s *Store) writeTo(f *file, batch []*pending, at uint64) (fresh marks, err error) {
	fresh = marks{}
	err = f.db.update(func(tx *bbolt.Tx) error {
		rows, marks := tx.Bucket(rowsBucket), tx.Bucket(marksBucket)
		rows.FillPercent = 0.9 // keys only ever come at the end
		for _, p := range batch {
			f.bytes += int64(len(p.value))
			p.stored = p.sequence > max(s.marks[p.stream].sequence, fresh[p.stream].sequence)
			if !p.stored {
				continue
			}
			fresh[p.stream] = mark{p.sequence, at}
			id := p.stream.key()
			if _, m, ok := decodeMark(id, marks.Get(id)); ok && p.sequence <= m.sequence {
				continue // by the commit before
			}
			key := binary.BigEndian.AppendUint64(nil, at)
			sealRecord(key, p.value)
			if err := rows.Put(key, p.value); err != nil {
				return err
			}
			at++
		}
		return fresh.put(marks)
	})
	return fresh, err
}

// stamp gives n stored times in a row and returns the first. They are all of
// one day and later than all before.
func (s *Store) stamp(n int) uint64 {
	now := nanoseconds(s.cfg.now())
	if behind := s.last > now+uint64(time.Second); behind != s.behind {
		s.behind = behind
		if behind {
			s.log.Warn("history: the clock has stepped back; reports are filed under the time it had before",
				"by", time.Duration(s.last-now))
		} else {
			s.log.Info("history: the clock has caught up")
		}
	}
	at := max(now, s.last+1)
	s.last = at + uint64(n) - 1
	if day := dayOf(s.last); day != dayOf(at) {
		at = name{day: day}.start()
		s.last = at + uint64(n) - 1
	}
	return at
}

// fileFor returns the file that takes the reports of a day: always one that
// this process made itself. bbolt spreads damage when it writes to a damaged
// tree, so what was on disk before is only read.
func (s *Store) fileFor(day int64, at uint64) (*file, error) {
	n := name{day, 1}
	if f := s.newest(); f != nil && f.day == day {
		if f.db != nil && at-f.born < uint64(s.cfg.Rotation) && f.bytes < s.cfg.fileSize {
			return f, nil
		}
		n.part = f.part + 1
	}
	n.part = max(n.part, s.lastArchived(day)+1)
	for exists(s.path(n.String())) {
		n.part++
	}
	live := s.marks.since(at - min(at, uint64(s.cfg.Retention)))
	f, err := createFile(s.path(n.String()), n, live, s.cfg.maxSize)
	if err != nil {
		return nil, fmt.Errorf("make %s: %w", n, err)
	}
	f.born = at
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files = append(s.files, f)
	s.marks = live
	select {
	case s.rotated <- struct{}{}:
	default:
	}
	return f, nil
}

// lastArchived returns the part of a day that was the last to be archived, or 0.
func (s *Store) lastArchived(day int64) (part int) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, a := range s.archive {
		if a.day == day {
			part = max(part, a.last)
		}
	}
	return part
}

// reopen opens a file anew, for reading. If that cannot be done now, the file
// is left out until the store is opened again.
func (s *Store) reopen(f *file, cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := f.close()
	g, openErr := s.openOrSetAside(f.name)
	if err = errors.Join(err, openErr); err != nil {
		s.log.Error("history: open a file anew", "file", f.String(), "error", err)
	}
	i := slices.Index(s.files, f)
	if g == nil {
		s.files = slices.Delete(s.files, i, i+1)
		return
	}
	g.corrupt, g.damaged = f.corrupt, f.damaged
	s.files[i] = g
	if errors.Is(cause, errDamaged) {
		s.noteDamaged(g, cause)
	}
}
