package history

import (
	"context"
	"time"
)

const (
	// stint is about how long a query reads at a time while reports wait to be stored, and
	// restFor how many times as long it lets the intake go first then.
	stint   = 4 * time.Millisecond
	restFor = 3
)

// pace is that of a goroutine that reads for a query.
type pace struct {
	store *Store
	began time.Time // of the stint
}

// giveWay lets the intake go first, if reports wait. It returns the context's error.
func (p *pace) giveWay(ctx context.Context) error {
	now := time.Now()
	worked := now.Sub(p.began)
	switch {
	case p.began.IsZero():
		p.began = now
		return ctx.Err()
	case worked < stint:
		return ctx.Err()
	case p.store.queue.length() > 0:
		rest := time.NewTimer(restFor * min(worked, 4*stint))
		defer rest.Stop()
		select {
		case <-rest.C:
		case <-ctx.Done():
		}
		now = time.Now()
	}
	p.began = now
	return ctx.Err()
}
