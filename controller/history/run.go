package history

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"time"
)

// tidyEvery is how often old files are looked for.
const tidyEvery = 10 * time.Minute

// Run stores what Append is given, archives it, and deletes files that are older than the
// retention, until the context ends. From then on Append refuses reports; Run
// returns nil when those accepted before are stored, or have failed. It may be
// called once; only calling it again, or after Close, is an error.
func (s *Store) Run(ctx context.Context) error {
	if err := s.begin(); err != nil {
		return err
	}
	defer s.end()
	defer context.AfterFunc(ctx, s.queue.close)()
	var others sync.WaitGroup
	defer others.Wait()
	others.Go(func() { s.expireUntil(ctx) })
	if !s.cfg.noArchive {
		others.Go(func() { s.archiveUntil(ctx) })
	}
	for batch := s.queue.take(maxCommit); batch != nil; batch = s.queue.take(maxCommit) {
		s.holdBackUntil(ctx)
		s.commit(batch)
	}
	return nil
}

func (s *Store) begin() error {
	s.life.Lock()
	defer s.life.Unlock()
	if s.life.ran || s.life.closed {
		return errors.New("history: Run called twice or after Close")
	}
	s.life.running, s.life.ran = true, true
	return nil
}

func (s *Store) end() {
	s.life.Lock()
	defer s.life.Unlock()
	s.life.running = false
}

func (s *Store) expireUntil(ctx context.Context) {
	tick := time.NewTicker(tidyEvery)
	defer tick.Stop()
	for {
		s.expire()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// expire deletes the files, damaged ones too, of which even the last report is
// older than the retention. The newest stays, for it has the marks.
func (s *Store) expire() {
	entries, err := os.ReadDir(s.cfg.Dir)
	if err != nil {
		s.log.Error("history: look for old files", "error", err)
	}
	newest := s.newest()
	for _, e := range entries {
		file := e.Name()
		if n, ok := parseName(file); ok && (newest == nil || n == newest.name) {
			continue
		} else if ok && !s.cfg.noArchive && s.isOpen(n) {
			continue // it is to be archived first
		}
		if day, kept, ours := s.retentionOf(file); ours && (name{day: day}).end() <= s.ago(kept) {
			s.drop(file, kept)
		}
	}
}

// retentionOf returns of which day a file of ours is, and how long it is kept.
func (s *Store) retentionOf(file string) (day int64, kept time.Duration, ours bool) {
	if n, ok := parseName(file); ok {
		return n.day, s.cfg.Retention, true
	}
	if p, ok := parseParts(file); ok {
		return p.day, [...]time.Duration{raw: s.cfg.Retention, minutes: s.cfg.MinuteRetention, hours: s.cfg.HourRetention}[p.tier], true
	}
	day, ours = parseSetAside(file)
	return day, s.cfg.Retention, ours
}

// ago returns the stored time so long ago.
func (s *Store) ago(d time.Duration) uint64 {
	now := nanoseconds(s.cfg.now())
	return now - min(now, uint64(d))
}

// isOpen tells whether a file of the intake is in use.
func (s *Store) isOpen(n name) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.ContainsFunc(s.files, func(f *file) bool { return f.name == n })
}

// drop deletes a file. A Scan that is reading it goes on with the next one.
func (s *Store) drop(name string, kept time.Duration) {
	s.mu.Lock()
	if i := slices.IndexFunc(s.files, func(f *file) bool { return f.String() == name }); i >= 0 {
		if err := s.files[i].close(); err != nil {
			s.log.Error("history: close an old file", "file", name, "error", err)
		}
		s.files = slices.Delete(s.files, i, i+1)
	}
	s.archive = slices.DeleteFunc(s.archive, func(a *archived) bool { return a.String() == name })
	s.mu.Unlock()
	if err := remove(s.path(name)); err != nil {
		s.log.Error("history: delete an old file", "file", name, "error", err) // the next round tries again
		return
	}
	s.log.Info("history: deleted a file older than the retention", "file", name, "retention", kept)
}
