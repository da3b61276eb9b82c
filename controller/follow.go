package controller

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

const (
	// followFor is how long an agent waits for other keys before it is told that there are none.
	followFor = 2 * time.Minute
	// away is how long an agent that was answered is taken for one that is about to ask again. After
	// that it is away, and gets the keys of then when it comes back.
	away = 30 * time.Second
)

// follower is an agent that gossips and has a session.
type follower struct {
	version string    // of the files that it uses, as it says
	waiting int       // of its calls
	seen    time.Time // for the last time
}

// follow notes what an agent uses, and waits until there is something else.
func (h *herald) follow(ctx context.Context, agent, version string) (string, map[string][]byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f := h.followers[agent]
	if f == nil {
		f = &follower{}
		h.followers[agent] = f
	}
	f.version, f.seen = version, time.Now()
	if version == h.version {
		changed := h.changed
		f.waiting++
		h.mu.Unlock()
		err := h.await(ctx, changed)
		h.mu.Lock()
		f.waiting--
		f.seen = time.Now()
		if err != nil {
			if f.waiting == 0 { // it has hung up
				delete(h.followers, agent)
			}
			return "", nil, err
		}
	}
	if version == h.version {
		return version, nil, nil
	}
	return h.version, h.given, nil
}

func (h *herald) await(ctx context.Context, changed <-chan struct{}) error {
	timer := time.NewTimer(followFor/2 + rand.N(followFor/2))
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-h.stopped:
		return errors.New("the controller is stopping")
	}
	return nil
}

// behind returns the agents that are connected and do not use the files of now yet, and how
// many do. Those that are away are forgotten.
func (h *herald) behind(now time.Time) (names []string, abreast int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, f := range h.followers {
		switch {
		case f.waiting == 0 && now.Sub(f.seen) >= away:
			if f.version != h.version {
				h.log.Warn("an agent has not changed the keys of the gossip, and is taken for gone; it gets them when it comes back", "agent", name)
			}
			delete(h.followers, name)
		case f.version == h.version:
			abreast++
		case h.barred(name):
			delete(h.followers, name)
		default:
			names = append(names, name)
		}
	}
	return names, abreast
}
