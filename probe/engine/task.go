package engine

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/probe/rawsock"
	"github.com/synmesh/synmesh/probe/resolve"
	"github.com/synmesh/synmesh/probe/schedule"
)

// batchLen is how many SYNs go to the kernel at once, and so how long a burst
// gets when a task has fallen behind.
const batchLen = 64

// Do carries out the Spec and hands every result to emit, from the calling
// goroutine, in the order in which they become known; the Result is valid during the
// call only. The targets' probes are spread evenly over the interval. Do returns nil when all
// results have been handed over, and ctx's error if it ended before; probes
// that were still unanswered then have no result. Where a target's name comes to
// lead elsewhere, its next probe goes there.
func (e *Engine) Do(ctx context.Context, spec probe.Spec, emit func(*probe.Result)) (err error) {
	if err := spec.Validate(); err != nil {
		return err
	}
	if spec.Mode == probe.Connect {
		return fmt.Errorf("mode %v is not this engine's", spec.Mode)
	}
	guards, err := e.ports.lease(spec.Flows, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.ports.release(guards)) }()
	t := newTask(e, spec, guards, emit)
	if spec.Mode == probe.Full {
		for _, g := range guards {
			if err := g.Silence(); err != nil {
				return err
			}
		}
	}
	found := e.cfg.Names.Targets(ctx, spec.Targets, spec.Family)
	if err := ctx.Err(); err != nil {
		return err
	}
	for i := range found {
		t.targets[i] = newTarget(spec.Targets[i].Name, &found[i])
	}
	if t.alarm, err = rawsock.OpenAlarm(); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	var others sync.WaitGroup
	others.Go(func() { t.follow(ctx, found) })
	others.Go(func() { t.silent <- t.alarm.Each(t.rouse) })
	defer others.Wait()
	defer func() { err = errors.Join(err, t.alarm.Close()) }()
	defer stop()
	defer t.endWarmUps()
	defer t.abandon()
	return t.loop(ctx)
}

// task is one Spec being carried out. Its fields are the calling goroutine's,
// but for ready, which the engine's lock guards.
type task struct {
	engine  *Engine
	spec    probe.Spec
	guards  []*rawsock.Guard
	targets []*target
	moved   chan move // where names lead now
	emit    func(*probe.Result)
	result  probe.Result // that is being handed over

	start    time.Duration // when the schedule begins
	schedule *schedule.Schedule
	pending  int       // probes begun without a result
	latest   []*flight // of each slot; nil if there is one for each, which a sweep need not remember
	// stages are what flights wait for: the answer to the first SYN, to the
	// second and so on, the end of the connection, the end of its TIME_WAIT, the
	// answer to a warm-up.
	stages []queue
	ready  []*flight     // of which the receiver knows more
	wake   chan struct{} // says that ready is not empty, or that it is time
	taken  []*flight     // what ready was, being looked at

	alarm     *rawsock.Alarm
	appointed time.Duration // when it goes off, or has gone off
	silent    chan error    // why it does not any more

	warmUps   warmUps
	ways      ways
	batch     []*flight
	segments  []byte
	datagrams []rawsock.Datagram
}

func newTask(e *Engine, spec probe.Spec, guards []*rawsock.Guard, emit func(*probe.Result)) *task {
	t := &task{engine: e, spec: spec, guards: guards, emit: emit, wake: make(chan struct{}, 1), silent: make(chan error, 1), moved: make(chan move)}
	t.targets = make([]*target, len(spec.Targets))
	t.ways = ways{router: e.router, how: &t.spec.Sending, known: make(map[origin]*way)}
	if spec.Count != 1 {
		t.latest = make([]*flight, len(spec.Targets)*len(guards))
	}
	t.schedule = schedule.New(&t.spec, len(spec.Targets)*len(guards))
	t.stages = make([]queue, spec.Retries+4)
	for i := range spec.Retries {
		t.stages[i].wait = probe.Backoff(i+1) - probe.Backoff(i)
	}
	t.stages[spec.Retries].wait = spec.Timeout
	t.stages[t.closingStage()].wait = spec.Timeout / maxFins
	t.stages[t.timeWaitStage()].wait = timeWait
	t.stages[t.warmUpStage()].wait = min(spec.Timeout, maxWarmUp)
	return t
}

func (t *task) closingStage() int  { return t.spec.Retries + 1 }
func (t *task) timeWaitStage() int { return t.spec.Retries + 2 }

// enqueue has the flight wait in a stage, and in no other.
func (t *task) enqueue(f *flight, stage int) {
	f.stage = stage
	t.stages[stage].push(f, t.engine.clock().mono)
}

// move says where a target is now.
type move struct {
	target int
	to     resolve.Address
}

// follow tells the loop when a target's name leads elsewhere.
func (t *task) follow(ctx context.Context, found []resolve.Address) {
	t.engine.cfg.Names.Follow(ctx, t.spec.Targets, t.spec.Family, found, func(target int, to netip.AddrPort) {
		select {
		case t.moved <- move{target, resolve.Address{Remote: to}}:
		case <-ctx.Done():
		}
	})
}

func (t *task) loop(ctx context.Context) error {
	t.start = t.engine.clock().mono
	for {
		t.takeReady()
		now := t.engine.clock()
		t.expire(now)
		more, next := t.send(now)
		if !more && t.pending <= 0 {
			return nil
		}
		for i := range t.stages {
			if q := t.stages[i].first(i); q != nil && (!more || q.until < next) {
				more, next = true, q.until
			}
		}
		if err := t.appoint(next); err != nil {
			return err
		}
		select {
		case <-t.wake:
		case m := <-t.moved: // what is under way stays where it was sent
			t.targets[m.target] = newTarget(t.targets[m.target].name, &m.to)
		case <-ctx.Done():
			return ctx.Err()
		case <-t.engine.stopped:
			return errStopped
		case err := <-t.silent:
			return err
		}
	}
}

// appoint has the loop be woken at that time.
func (t *task) appoint(at time.Duration) error {
	wait := at - t.engine.clock().mono
	if wait <= 0 {
		t.rouse()
		return nil
	}
	if at == t.appointed {
		return nil // spares a system call
	}
	t.appointed = at
	return t.alarm.Set(wait)
}

// rouse wakes the loop. It may be called by anybody.
func (t *task) rouse() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// send begins the probes that are due, a batch at the most, and those first that
// were held back; it tells whether there are more to come, and when.
func (t *task) send(now reading) (more bool, next time.Duration) {
	released := t.warmUps.released
	n := min(len(released), batchLen)
	t.batch = append(t.batch[:0], released[:n]...)
	t.warmUps.released = slices.Delete(released, 0, n)
	next = now.mono
	for len(t.batch) < batchLen {
		var slot int
		var due time.Duration
		if slot, due, more = t.schedule.Next(); !more {
			break
		}
		if due += t.start; due > now.mono {
			next = due
			break
		}
		due = t.start + t.schedule.Begin(now.mono-t.start)
		t.pending++
		to := t.targets[slot%len(t.targets)]
		f := &flight{task: t, target: to, local: t.guards[slot/len(t.targets)].Port, slot: slot, due: due}
		f.syns = f.first[:0]
		t.batch = append(t.batch, f)
	}
	t.launch(now)
	if len(t.warmUps.released) > 0 {
		return true, now.mono
	}
	return more, next
}

// expire sees to the flights whose time has run out: another SYN, or the end.
func (t *task) expire(now reading) {
	due := false
	for i := range t.stages {
		if q := t.stages[i].first(i); q != nil && q.until <= now.mono {
			due = true
		}
	}
	if !due {
		return
	}
	// An answer may be here that nobody has read: on a busy host we may run
	// before the receiver does. What has come in time counts.
	e := t.engine
	if err := e.capture.Take(e.handle); err != nil && !errors.Is(err, os.ErrClosed) {
		e.cfg.Logger.Warn("answers are not read", "reason", err)
	}
	drops := e.capture.Drops()
	e.mu.Lock()
	e.settle()
	e.stats.Drops = max(e.stats.Drops, drops)
	e.mu.Unlock()
	t.takeReady()
	now = e.clock()
	t.batch = t.batch[:0]
	for i := range t.stages {
		for q := t.stages[i].first(i); q != nil && q.until <= now.mono; q = t.stages[i].first(i) {
			f := q.flight
			t.stages[i].pop()
			switch {
			case i == t.timeWaitStage():
				e.mu.Lock()
				e.disconnect(f)
				e.mu.Unlock()
			case i == t.closingStage():
				t.closeAgain(f)
			case !t.answered(f) && i < t.spec.Retries:
				t.batch = append(t.batch, f)
			case t.giveUp(f):
				t.finish(f, now, drops)
			}
		}
	}
	t.transmit()
}

// answered tells whether an answer is there; its stamp may be missing.
func (t *task) answered(f *flight) bool {
	t.engine.mu.Lock()
	defer t.engine.mu.Unlock()
	return f.answer.outcome != 0
}

// giveUp takes a flight out of the table, if it has not been completed at this moment.
func (t *task) giveUp(f *flight) bool {
	e := t.engine
	e.mu.Lock()
	defer e.mu.Unlock()
	if f.done {
		return false
	}
	e.leave(f)
	return true
}

// takeReady sees to the flights that the receiver knows more of.
func (t *task) takeReady() {
	t.engine.mu.Lock()
	t.taken, t.ready = t.ready, t.taken[:0]
	t.engine.mu.Unlock()
	for i, f := range t.taken {
		if f.full() && f.answer.outcome == probe.Open {
			t.proceed(f)
		} else {
			t.finish(f, reading{}, 0)
		}
		t.taken[i] = nil
	}
}

// finish hands over the result of a flight that is done; see flight.result.
func (t *task) finish(f *flight, now reading, drops uint64) {
	t.result = f.result(now, drops)
	t.handOver(f)
}

// handOver hands over the result of a flight that is done, once.
func (t *task) handOver(f *flight) {
	if f.over {
		return
	}
	f.over = true
	if f.conn.state != connWaiting {
		f.stage = -1
	}
	if f.warmUp {
		t.warmedUp(f.target)
		return
	}
	t.pending--
	t.emit(&t.result)
}

// abandon takes all that is left out of the engine, and resets connections
// that are not closed.
func (t *task) abandon() {
	e := t.engine
	var open []*flight
	e.mu.Lock()
	forget := func(f *flight) {
		if f.conn.state == connClosing {
			open = append(open, f)
		}
		e.leave(f)
		e.disconnect(f)
	}
	for i := range t.stages {
		for q := t.stages[i].first(i); q != nil; q = t.stages[i].first(i) {
			forget(q.flight)
			t.stages[i].pop()
		}
	}
	for _, f := range t.ready { // may be in no stage any more
		forget(f)
	}
	e.mu.Unlock()
	for _, f := range open {
		t.reset(f, &f.conn)
	}
}

// blank is a result that says only what was probed.
func (t *task) blank(f *flight) probe.Result {
	return probe.Result{Target: f.target.name, Remote: f.target.remote, LocalPort: f.local, Stamp: probe.StampKernel, NeighbourLookup: f.lookup}
}
