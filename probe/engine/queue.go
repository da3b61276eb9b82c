package engine

import "time"

// queue holds the flights of a task that have come to one stage, in the order
// in which they came. Since all stay equally long in a stage, that is the order in which their
// time runs out.
type queue struct {
	wait    time.Duration
	entries []queued
	head    int
}

type queued struct {
	flight *flight
	until  time.Duration // by the monotonic clock
}

func (q *queue) push(f *flight, now time.Duration) {
	q.entries = append(q.entries, queued{f, now + q.wait})
}

// first returns the entry whose time runs out first, or nil. Flights that have
// gone on to another stage are passed over.
func (q *queue) first(stage int) *queued {
	for q.head < len(q.entries) {
		if f := q.entries[q.head].flight; f.stage == stage {
			return &q.entries[q.head]
		}
		q.pop()
	}
	return nil
}

// pop removes the entry at the head.
func (q *queue) pop() {
	q.entries[q.head] = queued{}
	q.head++
	if q.head > 64 && q.head*2 > len(q.entries) {
		n := copy(q.entries, q.entries[q.head:])
		clear(q.entries[n:])
		q.entries, q.head = q.entries[:n], 0
	}
}
