package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
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
// that were still unanswered then have no result.
func (e *Engine) Do(ctx context.Context, spec probe.Spec, emit func(*probe.Result)) (err error) {
	if err := spec.Validate(); err != nil {
		return err
	}
	if spec.Mode == probe.Connect {
		return fmt.Errorf("mode %v is not this engine's", spec.Mode)
	}
	guards, err := e.ports.lease(spec.Flows)
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
	if err := t.resolve(ctx); err != nil {
		return err
	}
	defer t.abandon()
	return t.loop(ctx)
}

// task is one Spec being carried out. Its fields are the calling goroutine's,
// but for ready, which the engine's lock guards.
type task struct {
	engine  *Engine
	spec    probe.Spec
	guards  []*rawsock.Guard
	targets []target
	emit    func(*probe.Result)

	start    time.Duration // when the schedule begins
	schedule *schedule.Schedule
	pending  int       // probes begun without a result
	latest   []*flight // of each slot
	// stages are what flights wait for: the answer to the first SYN, to the
	// second and so on, the end of the connection, the end of its TIME_WAIT.
	stages []queue
	ready  []*flight     // of which the receiver knows more
	wake   chan struct{} // says that ready is not empty
	taken  []*flight     // what ready was, being looked at

	batch     []*flight
	segments  []byte
	datagrams []rawsock.Datagram
}

func newTask(e *Engine, spec probe.Spec, guards []*rawsock.Guard, emit func(*probe.Result)) *task {
	t := &task{engine: e, spec: spec, guards: guards, emit: emit, wake: make(chan struct{}, 1)}
	t.latest = make([]*flight, len(spec.Targets)*len(guards))
	t.schedule = schedule.New(&t.spec, len(spec.Targets)*len(guards))
	t.stages = make([]queue, spec.Retries+3)
	for i := range spec.Retries {
		t.stages[i].wait = probe.Backoff(i+1) - probe.Backoff(i)
	}
	t.stages[spec.Retries].wait = spec.Timeout
	t.stages[t.closingStage()].wait = spec.Timeout / maxFins
	t.stages[t.timeWaitStage()].wait = timeWait
	return t
}

func (t *task) closingStage() int  { return t.spec.Retries + 1 }
func (t *task) timeWaitStage() int { return t.spec.Retries + 2 }

// enqueue has the flight wait in a stage, and in no other.
func (t *task) enqueue(f *flight, stage int) {
	f.stage = stage
	t.stages[stage].push(f, t.engine.clock().mono)
}

func (t *task) resolve(ctx context.Context) error {
	t.targets = make([]target, len(t.spec.Targets))
	for i, at := range resolve.Targets(ctx, t.spec.Targets, t.spec.Family) {
		t.targets[i] = target{name: t.spec.Targets[i].Name, remote: at.Remote, unknown: at.Err}
	}
	return ctx.Err()
}

func (t *task) loop(ctx context.Context) error {
	t.start = t.engine.clock().mono
	timer := time.NewTimer(0)
	defer timer.Stop()
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
		timer.Reset(next - t.engine.clock().mono)
		select {
		case <-timer.C:
		case <-t.wake:
		case <-ctx.Done():
			return ctx.Err()
		case <-t.engine.stopped:
			return errStopped
		}
	}
}

// send begins the probes that are due, a batch at the most, and tells whether
// there are more to come, and when.
func (t *task) send(now reading) (more bool, next time.Duration) {
	t.batch = t.batch[:0]
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
		to := &t.targets[slot%len(t.targets)]
		f := &flight{task: t, target: to, local: t.guards[slot/len(t.targets)].Port, slot: slot, due: due}
		f.syns = f.first[:0]
		t.batch = append(t.batch, f)
	}
	t.launch(now)
	return more, next
}

// launch begins the probes of the batch: those whose target cannot be probed
// have failed at once, the others get their first SYN.
func (t *task) launch(now reading) {
	if len(t.batch) == 0 {
		return
	}
	e := t.engine
	kept := t.batch[:0]
	for _, f := range t.batch {
		err := f.target.unknown
		if err == nil && f.target.way == nil {
			f.target.way, err = e.route(f.target, &t.spec.Sending)
		}
		if err == nil {
			f.way = f.target.way
			e.mu.Lock()
			if t.spec.Mode == probe.Full {
				if err = e.busy(f); err == nil {
					e.conns[f.pair()] = f
				}
			}
			if err == nil {
				if before := t.latest[f.slot]; before != nil && !before.done {
					f.behind = e.overlap(f.pair())
				}
				t.latest[f.slot] = f
				e.enter(f)
			}
			e.mu.Unlock()
		}
		if err != nil {
			t.fail(f, now, err)
			continue
		}
		kept = append(kept, f)
	}
	t.batch = kept
	t.transmit()
}

// overlap returns what flights of the pair share. The lock is held.
func (e *Engine) overlap(p pair) *overlap {
	o := e.overlaps[p]
	if o == nil {
		o = &overlap{}
		e.overlaps[p] = o
	}
	return o
}

// transmit sends a SYN of each flight in the batch, the first or another.
func (t *task) transmit() {
	if len(t.batch) == 0 {
		return
	}
	e := t.engine
	called := e.clock()
	t.segments, t.datagrams = t.segments[:0], t.datagrams[:0]
	e.mu.Lock()
	t.batch = slices.DeleteFunc(t.batch, func(f *flight) bool { return f.answer.outcome != 0 }) // at this moment
	for _, f := range t.batch {
		tsval, at := e.nextTSVal(), len(t.segments)
		f.syns = append(f.syns, transmission{tsval: tsval, called: called})
		t.segments = f.way.template.Append(t.segments, f.local, f.isn, tsval)
		t.datagrams = append(t.datagrams, t.datagram(f, t.segments[at:]))
	}
	e.mu.Unlock()
	for _, f := range t.batch {
		f.stage = len(f.syns) - 1
		t.stages[f.stage].push(f, called.mono)
	}
	var sent uint64
	for rest := 0; rest < len(t.batch); {
		n, err := e.sendSome(t.datagrams[rest:])
		sent += uint64(n)
		if rest += n; err != nil {
			t.refused(t.batch[rest], err)
			rest++
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stats.Sent += sent
	for _, s := range e.stamps {
		if s.awaited.Load() > stampsHeld {
			e.settle() // so that stamps never outgrow their buffer
		}
	}
}

// stampsHeld is how many stamps may lie unread.
const stampsHeld = 512

// datagram says how a segment is to leave.
func (t *task) datagram(f *flight, segment []byte) rawsock.Datagram {
	s := &t.spec.Sending
	return rawsock.Datagram{Src: f.way.src, Dst: f.target.remote.Addr(), Interface: f.way.device, TTL: s.TTL, TOS: s.DSCP << 2, Segment: segment}
}

// sendSome sends the datagrams of the first one's family that stand together.
func (e *Engine) sendSome(ds []rawsock.Datagram) (int, error) {
	family := 0
	if ds[0].Dst.Is6() {
		family = 1
	}
	n := 1
	for n < len(ds) && ds[n].Dst.Is6() == ds[0].Dst.Is6() {
		n++
	}
	if e.senders[family] == nil {
		return 0, errors.New("this host has no IPv6")
	}
	awaited := &e.stamps[family].awaited
	awaited.Add(int64(n)) // before an answer can be there
	sent, err := e.senders[family].Send(ds[:n])
	awaited.Add(int64(sent - n))
	return sent, err
}

// refused hands over a probe that the kernel would not send, unless an earlier
// SYN of it has been answered at this moment.
func (t *task) refused(f *flight, err error) {
	t.engine.mu.Lock()
	answered := f.answer.outcome != 0
	t.engine.mu.Unlock()
	if !answered {
		t.drop(f, err)
	}
}

// drop hands over a probe that cannot go on. The address or the route may have
// gone, so the way is looked up anew.
func (t *task) drop(f *flight, err error) {
	e := t.engine
	e.mu.Lock()
	e.leave(f)
	e.mu.Unlock()
	t.fail(f, f.syns[0].called, err)
	f.target.way = nil
}

// fail hands over a probe that could not be done.
func (t *task) fail(f *flight, now reading, err error) {
	r := t.blank(f)
	r.Attempts = max(0, len(f.syns)-1)
	r.Time, r.Outcome, r.Err = time.Unix(0, now.wall), probe.Error, err.Error()
	t.handOver(f, &r)
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
	e.mu.Lock()
	e.settle()
	drops := e.stats.Drops
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
		if t.spec.Mode == probe.Full && f.answer.outcome == probe.Open {
			t.proceed(f)
		} else {
			t.finish(f, reading{}, 0)
		}
		t.taken[i] = nil
	}
}

// finish hands over the result of a flight that is done; see flight.result.
func (t *task) finish(f *flight, now reading, drops uint64) {
	r := f.result(now, drops)
	t.handOver(f, &r)
}

func (t *task) handOver(f *flight, r *probe.Result) {
	if f.over {
		return
	}
	f.over = true
	if f.conn.state != connWaiting {
		f.stage = -1
	}
	t.pending--
	t.emit(r)
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
	for _, f := range t.latest {
		if f != nil {
			delete(e.overlaps, f.pair())
		}
	}
	e.mu.Unlock()
	for _, f := range open {
		t.reset(f, &f.conn)
	}
}

// blank is a result that says only what was probed.
func (t *task) blank(f *flight) probe.Result {
	return probe.Result{Target: f.target.name, Remote: f.target.remote, LocalPort: f.local, Stamp: probe.StampKernel}
}
