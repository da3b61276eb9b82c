package history

import (
	"context"
	"runtime"
	"sync"
	"time"
)

const (
	// stint is about how long a reader reads at a time while reports wait to be stored, and
	// restFor how many times as long it lets the intake go first then.
	stint   = 4 * time.Millisecond
	restFor = 3
	// maxWorked bounds what counts of a stint: its reader may have been kept waiting.
	maxWorked = 4 * stint
	// shareOfReaders is the part of the processors, at most one in so many, that all readers have together while
	// the intake is overloaded.
	shareOfReaders = 12
)

// pace is that of a goroutine that reads.
type pace struct {
	store *Store
	began time.Time // of the stint
}

// giveWay is called now and then, and before all else. It lets the intake go first, if that has
// more to do than it can. It returns the context's error.
func (p *pace) giveWay(ctx context.Context) error {
	now, first := time.Now(), p.began.IsZero()
	if !first && now.Sub(p.began) < stint {
		return ctx.Err()
	}
	var rest time.Duration
	if p.store.queue.overloaded() {
		p.charge(now)
		rest = p.store.readers.owed(now)
	} else if !first && p.store.queue.length() > 0 {
		rest = restFor * min(now.Sub(p.began), maxWorked)
	}
	if rest > 0 {
		timer := time.NewTimer(rest)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		now = time.Now()
	}
	p.began = now
	return ctx.Err()
}

// end is called when nothing more is read.
func (p *pace) end() {
	if p.store.queue.overloaded() {
		p.charge(time.Now())
	}
}

func (p *pace) charge(now time.Time) {
	if !p.began.IsZero() {
		p.store.readers.charge(now, min(now.Sub(p.began), maxWorked))
	}
}

// debt is what all readers together owe the intake: until when none of them is to go on. However many they are, each
// gets its turn, for who rests owes nothing.
type debt struct {
	mu    sync.Mutex
	until time.Time
}

// charge adds what somebody has read.
func (d *debt) charge(now time.Time, worked time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.until.Before(now) {
		d.until = now
	}
	d.until = d.until.Add(worked * shareOfReaders / time.Duration(runtime.GOMAXPROCS(0)))
}

func (d *debt) owed(now time.Time) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.until.Sub(now)
}
