package agents

import (
	"context"

	"golang.org/x/sync/semaphore"
)

const (
	// maxWaiting is how many bytes of a session may wait to be stored. A report that is larger waits
	// alone. What comes then is not read, be it a preview.
	maxWaiting = 256 << 10
	// minWaiting is what each message counts as, at least.
	minWaiting = 4 << 10
)

// waiting is what a session has said that is taken in in its order, each when what was before is on
// disk: reports and resumes. The rest of what is said passes it.
type waiting struct {
	room  *semaphore.Weighted
	queue chan *request
	why   error // nothing more comes; set before the queue is closed
}

func newWaiting() *waiting {
	return &waiting{room: semaphore.NewWeighted(maxWaiting), queue: make(chan *request, maxWaiting/minWaiting)}
}

// put waits for room, and adds a message that is the queue's from then on.
func (w *waiting) put(ctx context.Context, q *request) error {
	if err := w.room.Acquire(ctx, q.weight()); err != nil {
		return err
	}
	w.queue <- q // has a place for as many as there is room for
	return nil
}

// end says that nothing more comes.
func (w *waiting) end(why error) {
	w.why = why
	close(w.queue)
}

// each calls a function with what comes, until that fails, the context ends or nothing more comes.
func (w *waiting) each(ctx context.Context, take func(*request) error) error {
	for q := range w.queue {
		if ctx.Err() != nil {
			return nil // it was not acknowledged, and comes again
		}
		weight := q.weight()
		err := take(q)
		q.release()
		w.room.Release(weight)
		if err != nil {
			return err
		}
	}
	return w.why
}

func (r *request) weight() int64 {
	return min(max(int64(len(r.report.Bytes)), minWaiting), maxWaiting)
}
