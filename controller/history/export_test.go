package history

import (
	"context"
	"time"
)

// OpenWith opens a store that goes by a clock, and whose archive is the caller's to fill.
func OpenWith(dir string, now func() time.Time) (*Store, error) {
	return Open(Config{Dir: dir, now: now, noArchive: true, Rotation: 15 * time.Minute})
}

// ArchiveAll archives and merges what can be.
func (s *Store) ArchiveAll(ctx context.Context) error { return s.archiveAll(ctx) }
