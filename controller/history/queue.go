package history

import "sync"

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
}

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
	for len(q.waiting) == 0 {
		if q.closed {
			return nil
		}
		q.changed.Wait()
	}
	n, bytes := 0, 0
	for n < len(q.waiting) && (n == 0 || bytes+len(q.waiting[n].value) <= limit) {
		bytes += len(q.waiting[n].value)
		n++
	}
	batch := q.waiting[:n:n]
	if q.waiting = q.waiting[n:]; len(q.waiting) == 0 {
		q.waiting = nil // lets go of the reports
	}
	return batch
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
