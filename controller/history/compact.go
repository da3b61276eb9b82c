package history

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"
)

// compactEvery is how often what failed is tried again.
const compactEvery = 10 * time.Second

// archiveUntil archives finished intake files until the context ends.
func (s *Store) archiveUntil(ctx context.Context) {
	tick := time.NewTicker(compactEvery)
	defer tick.Stop()
	failing := false
	for {
		err := s.archiveAll(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && !failing:
			s.log.Error("history: the intake cannot be archived; it is kept as it is until it can", "error", err)
		case err == nil && failing:
			s.log.Info("history: the intake is archived again")
		}
		failing = err != nil
		s.stuck.Store(failing)
		select {
		case <-s.rotated:
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// archiveAll archives what is finished, and merges what has become many files.
func (s *Store) archiveAll(ctx context.Context) error {
	for ctx.Err() == nil {
		f := s.finished()
		if f == nil {
			return s.mergeAll(ctx)
		}
		began := time.Now()
		if err := guard(func() error { return s.compact(ctx, f) }); err != nil {
			return fmt.Errorf("archive %s: %w", f, err)
		}
		select {
		case s.freed <- struct{}{}:
		default:
		}
		s.log.Info("history: a file of the intake is archived", "file", f.String(), "took", time.Since(began).Round(time.Millisecond))
	}
	return ctx.Err()
}

// finished returns the oldest file of the intake that takes no more reports, or nil.
func (s *Store) finished() *file {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed || len(s.files) < 2 {
		return nil
	}
	return s.files[0]
}

const (
	// maxBehind is how many finished files of the intake may wait to be archived before the
	// committer holds back, so that both get done.
	maxBehind = 3
	// holdBack is how long it does before each commit.
	holdBack = time.Second
)

// holdBackUntil waits a while if the archive is far behind: meanwhile nobody gets an
// acknowledgement, and the agents keep what they have. An archive that fails is not waited for.
func (s *Store) holdBackUntil(ctx context.Context) {
	if s.cfg.noArchive || s.stuck.Load() || s.behindBy() <= maxBehind {
		return
	}
	s.count.heldBack.Add(1)
	wait := time.NewTimer(holdBack)
	defer wait.Stop()
	select {
	case <-s.freed:
	case <-wait.C:
	case <-ctx.Done():
	}
}

// behindBy returns how many files of the intake are finished and not archived.
func (s *Store) behindBy() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return max(len(s.files)-1, 0)
}

// extent is where a record is in a file.
type extent struct {
	stored uint64
	at     int64
	size   int
}

// compact makes the archive files of an intake file, and lets them take its place.
//
// The file of the results is given its name last, and from then on counts in the
// intake file's place. If the process dies before, the next one removes the others (see settle).
func (s *Store) compact(ctx context.Context, f *file) error {
	var out [3]*builder
	for t := raw; t <= hours; t++ {
		var err error
		if out[t], err = build(s.path(parts{t, f.day, f.part, f.part}.String())); err != nil {
			for _, b := range out[:t] {
				err = errors.Join(err, b.abort())
			}
			return err
		}
	}
	if err := s.fillArchive(ctx, f, out); err != nil {
		for _, b := range out {
			err = errors.Join(err, b.abort())
		}
		return err
	}
	if err := publishAll(out[hours], out[minutes], out[raw]); err != nil {
		return err
	}
	return s.replace(f, out)
}

func (s *Store) fillArchive(ctx context.Context, f *file, out [3]*builder) error {
	agents, err := s.extents(f)
	if err != nil {
		return err
	}
	h, err := os.Open(s.path(f.String()))
	if err != nil {
		return err
	}
	defer h.Close()
	var buf []byte
	g := newGatherer(out)
	for _, agent := range slices.SortedFunc(maps.Keys(agents), byKey) {
		g.agent = agent
		for _, e := range agents[agent] {
			if err := ctx.Err(); err != nil {
				return err
			}
			buf = slices.Grow(buf[:0], e.size)[:e.size]
			if _, err := h.ReadAt(buf, e.at); err != nil {
				return err
			}
			if err := s.archiveRecord(f, g, binary.BigEndian.AppendUint64(nil, e.stored), buf); err != nil {
				return err
			}
		}
		if err := g.flush(); err != nil {
			return err
		}
	}
	return nil
}

// byKey is the order of agents in the archive.
func byKey(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) }

func (s *Store) archiveRecord(f *file, g *gatherer, key, value []byte) error {
	r, ok := decodeRecord(key, value)
	if !ok || string(r.agent) != g.agent {
		s.noteCorrupt(f, []string{string(key)})
		return nil
	}
	g.out[raw].brought(r.at)
	if !g.look(r.report) {
		return g.out[raw].put(oddBucket, key, value)
	}
	return g.add(r.at)
}

// extents finds the records of every agent, in the order in which they were stored.
func (s *Store) extents(f *file) (map[string][]extent, error) {
	agents := make(map[string][]extent)
	err := f.view(func(t *tree) error {
		root, err := t.bucket(rowsBucket)
		if err != nil {
			return err
		}
		next := uint64(0)
		var corrupt []string
		for k, v := range t.entries(root, nil) {
			r, ok := decodeRecord(k, v)
			switch {
			case !ok:
				corrupt = append(corrupt, string(k))
			case r.at >= next: // not where a damaged page led twice
				agents[string(r.agent)] = append(agents[string(r.agent)], extent{r.at, t.place, len(v)})
				next = r.at + 1
			}
		}
		s.noteCorrupt(f, corrupt)
		return t.damage
	})
	if errors.Is(err, errDamaged) {
		s.noteDamaged(f, err)
		err = nil
	}
	return agents, err
}

// replace lets archive files take the place of an intake file.
func (s *Store) replace(f *file, out [3]*builder) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for t := raw; t <= hours; t++ {
		p := parts{t, f.day, f.part, f.part}
		s.archive = append(s.archive, newArchived(p, out[t]))
	}
	s.sortArchive()
	i := slices.Index(s.files, f)
	s.files = slices.Delete(s.files, i, i+1)
	return errors.Join(f.close(), s.letGo(f.String(), &f.health))
}

func (s *Store) sortArchive() {
	slices.SortFunc(s.archive, func(a, b *archived) int { return a.compare(b.parts) })
}

// letGo deletes a file of which everything is elsewhere; one that is damaged, and
// may have more than could be read, is set aside.
func (s *Store) letGo(file string, h *health) error {
	h.mu.Lock()
	damaged := h.damaged || len(h.corrupt) > 0
	h.mu.Unlock()
	if damaged {
		return s.setAside(file)
	}
	return remove(s.path(file))
}

// settle decides between what a crash has left twice: the archive of an intake
// file counts if it is complete, and a merged file instead of those it was made
// of. It returns the files of the intake that are left.
func (s *Store) settle(intake []name, archive []parts) ([]name, error) {
	gone := func(file string) error {
		s.log.Info("history: removing a file whose content is in another", "file", file)
		return remove(s.path(file))
	}
	var errs []error
	intake = slices.DeleteFunc(intake, func(n name) bool {
		twice := slices.Contains(archive, parts{raw, n.day, n.part, n.part})
		if twice {
			errs = append(errs, gone(n.String()))
		}
		return twice
	})
	s.archive = slices.DeleteFunc(s.archive, func(a *archived) bool {
		half := a.first == a.last && a.tier != raw && slices.Contains(intake, a.intake())
		twice := slices.ContainsFunc(archive, func(o parts) bool { return o != a.parts && o.covers(a.parts) })
		if half || twice {
			errs = append(errs, gone(a.String()))
		}
		return half || twice
	})
	return intake, errors.Join(errs...)
}

// openArchive looks at the archive's files. Those that cannot be read are set
// aside; it returns the others.
func (s *Store) openArchive(list []parts) ([]parts, error) {
	var good []parts
	for _, p := range list {
		a, err := openArchived(s.path(p.String()), p)
		switch {
		case err == nil:
			s.archive = append(s.archive, a)
			good = append(good, p)
		case !isDamage(err):
			return nil, fmt.Errorf("history: open %s: %w", a.path, err)
		default:
			s.log.Error("history: a file cannot be read; it is set aside and what is in it is missing", "file", p.String(), "error", err)
			s.count.damagedFiles.Add(1)
			if err := s.setAside(p.String()); err != nil {
				return nil, err
			}
		}
	}
	s.sortArchive()
	return good, nil
}
