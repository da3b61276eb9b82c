package history

import (
	"sync"
	"time"
)

// pending is a report on its way into the store.
type pending struct {
	stream
	sequence uint64
	results  uint64
	value    []byte        // the record without its checksum
	weight   int64         // what it takes of Store.room
	done     chan struct{} // closed when the rest is set
	stored   bool
	err      error
}

// queue holds the reports that wait for the committer, first in, first out.
type queue struct {
	mu      sync.Mutex
	changed *sync.Cond
	waiting []*pending
	closed  bool

	// How busy the committer is; see overloaded.
	idleFrom time.Time // zero while it is at work
	idle     time.Duration
	stored   int       // bytes
	began    time.Time // of the window that these two are of
	over     bool      // what the window before has told
}

const (
	// loadWindow is over how long it is found out how busy the committer is.
	loadWindow = 200 * time.Millisecond
	// heavyLoad is how many bytes a second are worth that readers wait. With less it is the disk
	// that keeps the committer busy, and they are not in its way.
	heavyLoad = 5 << 20
)

func newQueue() *queue {
	q := &queue{}
	q.changed = sync.NewCond(&q.mu)
	return q
}

// put adds a report, unless the queue is closed.
func (q *queue) put(p *pending) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	q.waiting = append(q.waiting, p)
	q.changed.Signal()
	return true
}

// take waits for reports and removes as many as fit the limit in bytes, but at
// least one. It returns nil once the queue is closed and empty.
func (q *queue) take(limit int) []*pending {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.idleFrom = time.Now()
	q.measure(q.idleFrom)
	for len(q.waiting) == 0 {
		if q.closed {
			return nil
		}
		q.changed.Wait()
	}
	q.idle, q.idleFrom = q.idle+time.Since(q.idleFrom), time.Time{}
	n, bytes := 0, 0
	for n < len(q.waiting) && (n == 0 || bytes+len(q.waiting[n].value) <= limit) {
		bytes += len(q.waiting[n].value)
		n++
	}
	q.stored += bytes
	batch := q.waiting[:n:n]
	if q.waiting = q.waiting[n:]; len(q.waiting) == 0 {
		q.waiting = nil // lets go of the reports
	}
	return batch
}

// measure begins another window when it is time for that.
func (q *queue) measure(now time.Time) {
	if length := now.Sub(q.began); length >= loadWindow {
		q.over = q.idle < length/2 && float64(q.stored) >= heavyLoad*length.Seconds()
		q.began, q.idle, q.stored = now, 0, 0
	}
}

// overloaded tells whether the committer lately has much to store and is at work for most of the time: then it,
// or those who bring it reports, could do more if they were let.
func (q *queue) overloaded() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.over && (q.idleFrom.IsZero() || time.Since(q.idleFrom) < loadWindow)
}

// length returns how many reports wait.
func (q *queue) length() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting)
}

// close lets take return nil once everything is taken.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.changed.Broadcast()
}
