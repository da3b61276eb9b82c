package history

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"os"
	"slices"

	"github.com/synmesh/synmesh/controller/history/rollup"
)

// mergeParts is how many parts a rollup's file has at least once it has been merged: as
// many as are made in an hour. The files of an hour's summaries are merged again when their day is over.
const mergeParts = 12

// mergeAll merges rollups until there is nothing to be merged.
func (s *Store) mergeAll(ctx context.Context) error {
	for ctx.Err() == nil {
		list := s.mergeable()
		if len(list) == 0 {
			return nil
		}
		into := parts{list[0].tier, list[0].day, list[0].first, list[len(list)-1].last}
		if err := guard(func() error { return s.merge(ctx, list, into) }); err != nil {
			return fmt.Errorf("merge to %s: %w", into, err)
		}
	}
	return ctx.Err()
}

// mergeable returns neighbours that can be merged, or nil.
func (s *Store) mergeable() []*archived {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed || len(s.files) == 0 {
		return nil
	}
	today, oldest := s.files[len(s.files)-1].day, s.files[0].day
	for i := 0; i < len(s.archive); {
		a := s.archive[i]
		n := i
		for n < len(s.archive) && s.archive[n].tier == a.tier && s.archive[n].day == a.day {
			n++
		}
		day := s.archive[i:n]
		i = n
		over := a.day < today && a.day < oldest // and nothing is to be archived
		if a.tier == raw || len(day) == 1 {
			continue
		}
		if over && a.tier == hours {
			return slices.Clone(day)
		}
		small := slices.IndexFunc(day, func(a *archived) bool { return a.last-a.first+1 < mergeParts })
		if small < 0 {
			continue
		}
		if day = day[small:]; len(day) > 1 && (over || len(day) >= mergeParts) {
			return slices.Clone(day[:min(len(day), mergeParts)])
		}
	}
	return nil
}

// merge makes one file of several, and lets it take their place.
func (s *Store) merge(ctx context.Context, list []*archived, p parts) error {
	out, err := build(s.path(p.String()))
	if err != nil {
		return err
	}
	if err := s.mergeInto(ctx, out, list); err != nil {
		return errors.Join(err, out.abort())
	}
	if err := publishAll(out); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.archive = slices.DeleteFunc(s.archive, func(a *archived) bool { return slices.Contains(list, a) })
	s.archive = append(s.archive, newArchived(p, out))
	s.sortArchive()
	var errs []error
	for _, a := range list {
		errs = append(errs, s.letGo(a.String(), &a.health))
	}
	return errors.Join(errs...)
}

// cursor goes through the records of a rollup.
type cursor struct {
	key, value []byte
	next       func() ([]byte, []byte, bool)
	stop       func()
}

func (c *cursor) advance() bool {
	var ok bool
	c.key, c.value, ok = c.next()
	return ok
}

// mergeInto goes through all files at once, series by series.
func (s *Store) mergeInto(ctx context.Context, out *builder, list []*archived) error {
	var cursors []*cursor
	defer func() {
		for _, c := range cursors {
			c.stop()
		}
	}()
	var failed error
	for _, a := range list {
		c := &cursor{}
		c.next, c.stop = iter.Pull2(s.records(a, &failed))
		if c.advance() {
			cursors = append(cursors, c)
		} else {
			c.stop()
		}
	}
	tail := uint64(list[0].first)
	for len(cursors) > 0 {
		if err := errors.Join(ctx.Err(), failed); err != nil {
			return err
		}
		least := slices.MinFunc(cursors, func(a, b *cursor) int { return bytes.Compare(seriesOf(a.key), seriesOf(b.key)) })
		series := bytes.Clone(seriesOf(least.key))
		sums := newSums()
		cursors = slices.DeleteFunc(cursors, func(c *cursor) bool {
			for bytes.Equal(seriesOf(c.key), series) {
				s.noteMalformed(list[0], c.key, sums.add(c.value, math.MinInt64, math.MaxInt64))
				if !c.advance() {
					c.stop()
					return true
				}
			}
			return false
		})
		if err := putSlots(out, series, tail, sums.sorted(), list[0].tier); err != nil {
			return err
		}
	}
	return failed
}

// seriesOf returns the series' part of a rollup's key; all of it if it has no such.
func seriesOf(key []byte) []byte {
	if series, _, ok := parseSlotKey(key); ok {
		return series
	}
	return key
}

// records yields the records of a rollup. Each is valid until the next.
func (s *Store) records(a *archived, failed *error) iter.Seq2[[]byte, []byte] {
	return func(yield func(k, v []byte) bool) {
		err := a.view(func(t *tree) error {
			return s.each(a, t, seriesBucket, nil, nil, yield)
		})
		if errors.Is(err, errDamaged) {
			s.noteDamaged(a, err)
			err = nil
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			*failed = err
		}
	}
}

// sums gathers the summaries of one series.
type sums struct {
	slot map[int64]*rollup.Summary
}

func newSums() *sums { return &sums{make(map[int64]*rollup.Summary)} }

// add adds those of a record that are from a slot (inclusive) to another (exclusive).
func (m *sums) add(value []byte, from, to int64) error {
	return rollup.Decode(value, from, to, nil, func(s *rollup.Slot) bool {
		if into := m.slot[s.At]; into != nil {
			into.Merge(&s.Summary)
		} else {
			m.slot[s.At] = s.Clone()
		}
		return true
	})
}

func (m *sums) sorted() []rollup.Slot {
	list := make([]rollup.Slot, 0, len(m.slot))
	for at, s := range m.slot {
		list = append(list, rollup.Slot{At: at, Summary: *s})
	}
	slices.SortFunc(list, func(a, b rollup.Slot) int {
		if a.At < b.At {
			return -1
		}
		return 1
	})
	return list
}

// noteMalformed notes a record with a good checksum that is none of ours.
func (s *Store) noteMalformed(f noted, key []byte, err error) {
	if err != nil {
		s.noteCorrupt(f, []string{string(key)})
	}
}
