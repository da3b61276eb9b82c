package history

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// tidyEvery is how often old files are looked for.
const tidyEvery = 10 * time.Minute

// Run stores what Append is given, and deletes files that are older than the
// retention, until the context ends. From then on Append refuses reports; Run
// returns nil when those accepted before are stored, or have failed. It may be
// called once; only calling it again, or after Close, is an error.
func (s *Store) Run(ctx context.Context) error {
	if err := s.begin(); err != nil {
		return err
	}
	defer s.end()
	defer context.AfterFunc(ctx, s.queue.close)()
	var expiry sync.WaitGroup
	defer expiry.Wait()
	expiry.Go(func() { s.expireUntil(ctx) })
	for batch := s.queue.take(maxCommit); batch != nil; batch = s.queue.take(maxCommit) {
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
	now := nanoseconds(s.cfg.now())
	limit := now - min(now, uint64(s.cfg.Retention))
	s.mu.RLock()
	old := slices.Clone(s.files[:max(len(s.files)-1, 0)])
	s.mu.RUnlock()
	for _, f := range old {
		if f.end() <= limit {
			s.drop(f)
		}
	}
	entries, err := os.ReadDir(s.cfg.Dir)
	if err != nil {
		s.log.Error("history: look for old files", "error", err)
	}
	for _, e := range entries {
		whole, _, ok := strings.Cut(e.Name(), fileSuffix+".")
		n, ours := parseName(whole + fileSuffix)
		if ok && ours && strings.HasSuffix(e.Name(), damagedSuffix) && n.end() <= limit {
			s.deleteFile(e.Name())
		}
	}
}

// drop deletes a file; a Scan that is reading it gets to its page's end.
func (s *Store) drop(f *file) {
	if !s.deleteFile(f.String()) {
		return // the next round tries again
	}
	s.mu.Lock()
	s.files = slices.DeleteFunc(s.files, func(g *file) bool { return g == f })
	s.mu.Unlock()
	if err := f.close(); err != nil {
		s.log.Error("history: close an old file", "file", f.String(), "error", err)
	}
}

func (s *Store) deleteFile(name string) bool {
	if err := remove(s.path(name)); err != nil {
		s.log.Error("history: delete an old file", "file", name, "error", err)
		return false
	}
	s.log.Info("history: deleted a file older than the retention", "file", name, "retention", s.cfg.Retention)
	return true
}
