package agents

import (
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/synmesh/synmesh/internal/identity"
)

const (
	// maxGreeting is how many sessions may be about to begin: a fleet that comes
	// back all at once is let in bit by bit.
	maxGreeting = 128
	// ownGreeting is how many of them may be of one caller, so that nobody keeps the
	// others out by saying nothing.
	ownGreeting = 4
	// epochsAtOnce is how many epochs that are new to the history an agent may
	// report under: as many as a hello names. Later it may begin one every epochEvery.
	// Each costs the history a mark for as long as results are kept.
	epochsAtOnce = 2000
	epochEvery   = 10 * time.Second
)

// greeting counts the sessions that are not welcomed yet, by who calls.
type greeting struct {
	mu  sync.Mutex
	all int
	of  map[identity.Identity]int
}

// enter counts one more, unless there are too many.
func (g *greeting) enter(who identity.Identity) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.all == maxGreeting || g.of[who] == ownGreeting && who != nobody {
		return false
	}
	g.all++
	g.of[who]++
	return true
}

func (g *greeting) leave(who identity.Identity) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all--
	if g.of[who]--; g.of[who] == 0 {
		delete(g.of, who)
	}
}

// nobody calls where access lets everybody in, as in tests.
var nobody identity.Identity

func caller(ctx context.Context) identity.Identity {
	p, err := identity.FromContext(ctx)
	if err != nil {
		return nobody
	}
	return p.Identity
}

// beginnings bounds how many epochs agents begin.
type beginnings struct {
	mu    sync.Mutex
	of    map[string]*rate.Limiter // by agent; their names are those of certificates
	sweep int                      // how many there may be before those are forgotten that are as good as new
}

// take tells whether an agent may begin another epoch.
func (b *beginnings) take(agent string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	one := b.of[agent]
	if one == nil {
		b.forget(now)
		one = rate.NewLimiter(rate.Every(epochEvery), epochsAtOnce)
		b.of[agent] = one
	}
	return one.AllowN(now, 1)
}

func (b *beginnings) forget(now time.Time) {
	if len(b.of) < b.sweep {
		return
	}
	for agent, one := range b.of {
		if one.TokensAt(now) >= epochsAtOnce {
			delete(b.of, agent)
		}
	}
	b.sweep = 2*len(b.of) + 1000
}
