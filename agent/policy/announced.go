package policy

import (
	"context"
	"errors"
	"time"
)

// grace is how long a responder is missing before it counts as none any more:
// it may be restarted, and to see how long that takes may be what the probes
// are for. After that its address may be another's.
const grace = time.Minute

// whileAnnounced does what is allowed towards responders only, until one of
// them is no longer announced.
func (l *Limited) whileAnnounced(ctx context.Context, fast []endpoint, do func(context.Context) error) error {
	ctx, stop := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		l.watch(ctx, fast, stop)
	}()
	err := do(ctx)
	stop(nil)
	<-watched
	var gone *Refusal
	if cause := context.Cause(ctx); err != nil && errors.As(cause, &gone) {
		return gone
	}
	return err
}

// watch stops with a Refusal when a responder was missing for the time of
// grace, and returns when ctx ends.
func (l *Limited) watch(ctx context.Context, fast []endpoint, stop context.CancelCauseFunc) {
	tick := time.NewTicker(grace / 4)
	defer tick.Stop()
	missing := make(map[endpoint]time.Time) // since when
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		known, now := l.responders(), time.Now()
		for _, at := range fast {
			since, is := missing[at]
			switch {
			case known[addrPort(at)]:
				delete(missing, at)
			case !is:
				missing[at] = now
			case now.Sub(since) >= grace:
				stop(refuse("%v is not announced as a responder any more, and others get %d SYNs a second at the most: leave it out, or take a longer interval",
					addrPort(at), MaxRate))
				return
			}
		}
	}
}
