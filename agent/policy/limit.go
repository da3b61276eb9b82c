package policy

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/probe/resolve"
)

// Prober carries out one Spec, handing over every result; see engine.Engine.Do.
type Prober interface {
	Do(ctx context.Context, s probe.Spec, emit func(*probe.Result)) error
}

// Responders tells where the fleet's own responders are, by word of somebody
// else than who asks for the probes.
type Responders func() map[netip.AddrPort]bool

// Limited is a Prober that holds all that goes on at a time, together, to the ceilings.
type Limited struct {
	prober     Prober
	responders Responders
	names      resolve.Resolver

	mu    sync.Mutex
	room  room
	ended []ended // the earliest first to lapse
}

// ended is the claim of a Spec that is over, but for what it sent last.
type ended struct {
	claim *claim
	lapse time.Time
}

// Limit returns a Prober that keeps p within the ceilings. Without responders
// (nil) all targets are alike.
func Limit(p Prober, responders Responders) *Limited {
	return &Limited{prober: p, responders: responders, room: newRoom()}
}

// Do carries out the Spec, unless somebody would get too much together with
// what is sent to them already: that is a Refusal. If it is only what was sent
// a moment ago, Do waits. Targets are probed where their names lead; when one comes
// to lead elsewhere, a Spec without an end begins anew, for who is there has to be judged.
func (l *Limited) Do(ctx context.Context, s probe.Spec, emit func(*probe.Result)) error {
	if err := s.Validate(); err != nil {
		return err
	}
	if err := Check(&s); err != nil { // before anybody is asked for names
		return err
	}
	for {
		if err := l.whileNamesStay(ctx, s, emit); !errors.Is(err, errMoved) {
			return err
		}
	}
}

var errMoved = errors.New("a name leads elsewhere")

// whileNamesStay carries out the Spec, and returns errMoved when one of its
// names comes to lead elsewhere.
func (l *Limited) whileNamesStay(ctx context.Context, s probe.Spec, emit func(*probe.Result)) error {
	at := l.names.Targets(ctx, s.Targets, s.Family)
	if s.Count > 0 {
		return l.at(ctx, s, at, emit)
	}
	ctx, stop := context.WithCancelCause(ctx)
	followed := make(chan struct{})
	go func() {
		defer close(followed)
		l.names.Follow(ctx, s.Targets, s.Family, at, func(int, netip.AddrPort) { stop(errMoved) })
	}()
	err := l.at(ctx, s, at, emit)
	stop(nil)
	<-followed
	if context.Cause(ctx) == errMoved {
		return errMoved
	}
	return err
}

// at carries out the Spec where its names lead.
func (l *Limited) at(ctx context.Context, s probe.Spec, at []resolve.Address, emit func(*probe.Result)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s, unknown := pin(s, at)
	spread(s.Targets)
	var known map[netip.AddrPort]bool
	hint := ""
	if l.responders != nil {
		known, hint = l.responders(), "; only the fleet's own responders may get more, which signed gossip tells of"
	}
	c := count(&s, func(t probe.Target) bool { return known[addrPort(endpointOf(t))] })
	c.hint = hint
	fast, err := l.admit(ctx, c)
	if err != nil {
		return err
	}
	defer func() { l.release(c, time.Now()) }()
	explained := func(r *probe.Result) {
		if why := unknown[r.Target]; why != "" && r.Outcome == probe.Error && !r.Remote.IsValid() {
			r.Err = why
		}
		emit(r)
	}
	if len(fast) > 0 {
		return l.whileAnnounced(ctx, fast, func(ctx context.Context) error { return l.prober.Do(ctx, s, explained) })
	}
	return l.prober.Do(ctx, s, explained)
}

// addrPort returns the address of an endpoint; without one it is not valid.
func addrPort(at endpoint) netip.AddrPort {
	a, err := netip.ParseAddr(at.host)
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a, at.port)
}

// admit takes room for the claim, and returns the responders that get more
// with it than others would.
func (l *Limited) admit(ctx context.Context, c *claim) (fast []endpoint, err error) {
	if err := c.alone(); err != nil {
		return nil, err
	}
	for {
		wait, fast, err := l.try(c, time.Now())
		if err != nil || wait == 0 {
			return fast, err
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		}
	}
}

// try admits the claim, refuses it, or says how long to wait until something
// lapses that stands in its way.
func (l *Limited) try(c *claim, now time.Time) (wait time.Duration, fast []endpoint, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.ended) > 0 && !l.ended[0].lapse.After(now) {
		l.room.remove(l.ended[0].claim)
		l.ended = l.ended[1:]
	}
	if err = l.room.admits(c); err == nil {
		l.room.add(c)
		return 0, l.room.fast(c), nil
	}
	for _, e := range l.ended {
		l.room.remove(e.claim)
	}
	err = l.room.admits(c)
	for _, e := range l.ended {
		l.room.add(e.claim)
	}
	if err != nil {
		return 0, nil, err
	}
	return l.ended[0].lapse.Sub(now), nil, nil
}

// release keeps the claim for what was sent last.
func (l *Limited) release(c *claim, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := ended{c, now.Add(c.spacing())}
	at, _ := slices.BinarySearchFunc(l.ended, e, func(a, b ended) int { return a.lapse.Compare(b.lapse) })
	l.ended = slices.Insert(l.ended, at, e)
}
