//go:build linux

package lab

import "time"

const (
	defaultQueue  = 10_000
	defaultHold   = 10 * time.Millisecond
	maxQueueBytes = 64 << 20
	smallPacket   = 2048
	maxSpare      = 1024 // Small buffers kept for reuse.
)

// An item is a packet under way.
type item struct {
	departure time.Duration // On the clock of the wire.
	number    uint64        // In order of arrival.
	double    bool          // To be sent twice.
	packet    []byte
}

func (i *item) before(j *item) bool {
	return i.departure < j.departure || i.departure == j.departure && i.number < j.number
}

// A queue is a heap of items by departure. It owns their bytes and reuses small buffers, so that a quiet network makes
// no work for the garbage collector, which would make packets late.
type queue struct {
	items []item
	bytes int
	spare [][]byte
}

func (q *queue) len() int     { return len(q.items) }
func (q *queue) first() *item { return &q.items[0] }

func (q *queue) push(it item) {
	q.bytes += len(it.packet)
	q.items = append(q.items, it)
	for i := len(q.items) - 1; i > 0; {
		parent := (i - 1) / 2
		if !q.items[i].before(&q.items[parent]) {
			break
		}
		q.items[i], q.items[parent] = q.items[parent], q.items[i]
		i = parent
	}
}

func (q *queue) pop() item {
	it := q.items[0]
	q.bytes -= len(it.packet)
	end := len(q.items) - 1
	q.items[0] = q.items[end]
	q.items[end] = item{}
	q.items = q.items[:end]
	for i := 0; ; {
		child := 2*i + 1
		if child >= end {
			break
		}
		if right := child + 1; right < end && q.items[right].before(&q.items[child]) {
			child = right
		}
		if !q.items[child].before(&q.items[i]) {
			break
		}
		q.items[i], q.items[child] = q.items[child], q.items[i]
		i = child
	}
	return it
}

// copy returns a copy of a packet, for free to take back.
func (q *queue) copy(packet []byte) []byte {
	if n := len(q.spare); n > 0 && len(packet) <= smallPacket {
		b := q.spare[n-1][:len(packet)]
		q.spare = q.spare[:n-1]
		copy(b, packet)
		return b
	}
	b := make([]byte, len(packet), max(len(packet), smallPacket))
	copy(b, packet)
	return b
}

func (q *queue) free(packet []byte) {
	if cap(packet) == smallPacket && len(q.spare) < maxSpare {
		q.spare = append(q.spare, packet)
	}
}
