package engine

// queue holds the flights of a task in the order sent. Since all wait equally
// long, that is the order in which they expire.
type queue struct {
	flights []*flight
	head    int
}

func (q *queue) push(f *flight) { q.flights = append(q.flights, f) }

// first returns the oldest flight without a result, or nil.
func (q *queue) first() *flight {
	for q.head < len(q.flights) && q.flights[q.head].over {
		q.pop()
	}
	if q.head == len(q.flights) {
		return nil
	}
	return q.flights[q.head]
}

// pop removes the flight at the head.
func (q *queue) pop() {
	q.flights[q.head] = nil
	q.head++
	if q.head > 64 && q.head*2 > len(q.flights) {
		n := copy(q.flights, q.flights[q.head:])
		clear(q.flights[n:])
		q.flights, q.head = q.flights[:n], 0
	}
}

func (q *queue) empty() bool { return q.first() == nil }
