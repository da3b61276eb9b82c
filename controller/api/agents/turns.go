package agents

import (
	"context"
	"sync"
)

// turns lets one session of an agent at a time be welcomed and store reports.
type turns struct {
	mu sync.Mutex
	of map[string]*turn // by agent
}

// turn is a session's, from before its welcome until it stores nothing any more.
type turn struct {
	newer func()        // says that another session waits for the turn
	asked chan struct{} // closed by newer
	over  chan struct{} // closed by end
	end   func()
}

// take waits until the agent's session before, which is asked to end, has nothing on its way any more. Who
// has the turn must end it.
func (t *turns) take(ctx context.Context, agent string) (*turn, error) {
	mine := &turn{asked: make(chan struct{}), over: make(chan struct{})}
	mine.newer = sync.OnceFunc(func() { close(mine.asked) })
	mine.end = sync.OnceFunc(func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.of, agent)
		close(mine.over)
	})
	for {
		t.mu.Lock()
		before := t.of[agent]
		if before == nil {
			t.of[agent] = mine
			t.mu.Unlock()
			return mine, nil
		}
		t.mu.Unlock()
		before.newer()
		select {
		case <-before.over:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
