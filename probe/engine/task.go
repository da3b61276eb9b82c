package engine

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/probe/rawsock"
)

// batchLen is how many SYNs go to the kernel at once, and so how long a burst
// gets when a task has fallen behind.
const batchLen = 64

// maxLag is how far a task falls behind before it shifts its timetable instead
// of catching up, as after the host was suspended.
const maxLag = time.Second

// Do carries out the Spec and hands every result to emit, from the calling
// goroutine, in the order in which they become known; the Result is valid during the
// call only. The targets' probes are spread evenly over the interval. Do returns nil when all
// results have been handed over, and ctx's error if it ended before; probes
// that were still unanswered then have no result.
func (e *Engine) Do(ctx context.Context, spec probe.Spec, emit func(*probe.Result)) (err error) {
	if err := spec.Validate(); err != nil {
		return err
	}
	guards, err := e.ports.lease(spec.Flows)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.ports.release(guards)) }()
	t := &task{engine: e, spec: spec, guards: guards, emit: emit, wake: make(chan struct{}, 1)}
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

	start  time.Duration // when the first probe is due
	begun  int           // probes begun
	flying queue         // in the order sent, which is the order of expiry
	ready  []*flight     // completed by the receiver
	wake   chan struct{} // says that ready is not empty
	taken  []*flight     // what ready was, being handed over

	batch     []*flight
	segments  []byte
	datagrams []rawsock.Datagram
}

func (t *task) resolve(ctx context.Context) error {
	t.targets = make([]target, len(t.spec.Targets))
	var g errgroup.Group
	g.SetLimit(16) // lookups at a time
	for i := range t.targets {
		g.Go(func() error {
			to := &t.targets[i]
			to.name = t.spec.Targets[i].Name
			to.remote, to.err = resolve(ctx, t.spec.Targets[i], t.spec.Family)
			return nil
		})
	}
	_ = g.Wait() // a target that does not resolve is a result, not a failure of ours
	for i := range t.targets {
		if to := &t.targets[i]; to.err == nil {
			to.err = t.engine.route(to)
		}
	}
	return ctx.Err()
}

func (t *task) loop(ctx context.Context) error {
	t.start = t.engine.clock().mono
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		t.handOver()
		now := t.engine.clock()
		t.expire(now)
		more, next := t.send(now)
		if !more && t.flying.empty() {
			return nil
		}
		if f := t.flying.first(); f != nil && (!more || f.expires < next) {
			next = f.expires
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
	slots := len(t.targets) * len(t.guards)
	t.batch = t.batch[:0]
	for len(t.batch) < batchLen && t.more() {
		round, slot := t.begun/slots, t.begun%slots
		due := t.start + time.Duration(round)*t.spec.Interval +
			time.Duration(float64(slot)/float64(slots)*float64(t.spec.Interval))
		if due > now.mono {
			t.launch(now)
			return true, due
		}
		if lag := now.mono - due; lag > maxLag {
			t.start += lag
			due = now.mono
		}
		t.begun++
		to := &t.targets[slot%len(t.targets)]
		f := &flight{task: t, target: to, local: t.guards[slot/len(t.targets)].Port, due: due}
		t.batch = append(t.batch, f)
	}
	t.launch(now)
	return t.more(), now.mono
}

func (t *task) more() bool {
	return t.spec.Count == 0 || t.begun < t.spec.Count*len(t.targets)*len(t.guards)
}

// launch sends the batch.
func (t *task) launch(now reading) {
	t.fail(now)
	if len(t.batch) == 0 {
		return
	}
	e := t.engine
	called := e.clock()
	e.mu.Lock()
	for _, f := range t.batch {
		f.called, f.expires = called, called.mono+t.spec.Timeout
		e.enter(f)
	}
	e.mu.Unlock()

	t.segments, t.datagrams = t.segments[:0], t.datagrams[:0]
	for _, f := range t.batch {
		at := len(t.segments)
		t.segments = f.target.template.Append(t.segments, f.local, f.isn, e.tsval.Add(1))
		t.datagrams = append(t.datagrams, rawsock.Datagram{Src: f.target.src, Dst: f.target.remote.Addr(), Segment: t.segments[at:]})
		t.flying.push(f)
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
	e.settle() // so that stamps never outgrow their buffer
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
	return e.senders[family].Send(ds[:n])
}

// fail hands over the probes of the batch whose target cannot be probed at all.
func (t *task) fail(now reading) {
	kept := t.batch[:0]
	for _, f := range t.batch {
		if f.target.err == nil {
			kept = append(kept, f)
			continue
		}
		r := t.blank(f)
		r.Time, r.Outcome, r.Err = time.Unix(0, now.wall), probe.Error, f.target.err.Error()
		t.emit(&r)
	}
	t.batch = kept
}

// refused hands over a probe that the kernel would not send. The address or
// the route may have gone, so the way is looked up anew.
func (t *task) refused(f *flight, err error) {
	e := t.engine
	e.mu.Lock()
	e.leave(f)
	e.mu.Unlock()
	r := t.blank(f)
	r.Time, r.Outcome, r.Err = time.Unix(0, f.called.wall), probe.Error, err.Error()
	f.over = true
	t.emit(&r)
	f.target.err = e.route(f.target)
}

// expire hands over the flights whose time has run out.
func (t *task) expire(now reading) {
	if f := t.flying.first(); f == nil || f.expires > now.mono {
		return
	}
	e := t.engine
	var expired []*flight
	e.mu.Lock()
	e.settle()
	drops := e.stats.Drops
	for f := t.flying.first(); f != nil && f.expires <= now.mono; f = t.flying.first() {
		if !f.done { // otherwise it is among the ready
			e.leave(f)
			expired = append(expired, f)
		}
		t.flying.pop()
	}
	e.mu.Unlock()
	t.handOver()
	now = e.clock()
	for _, f := range expired {
		t.finish(f, now, drops)
	}
}

// handOver gives the completed flights to emit.
func (t *task) handOver() {
	t.engine.mu.Lock()
	t.taken, t.ready = t.ready, t.taken[:0]
	t.engine.mu.Unlock()
	for i, f := range t.taken {
		t.finish(f, reading{}, 0)
		t.taken[i] = nil
	}
}

// finish hands over the result of a flight that is done; see flight.result.
func (t *task) finish(f *flight, now reading, drops uint64) {
	r := f.result(now, drops)
	f.over = true
	t.emit(&r)
}

// abandon takes what is still flying out of the table.
func (t *task) abandon() {
	t.engine.mu.Lock()
	defer t.engine.mu.Unlock()
	for f := t.flying.first(); f != nil; f = t.flying.first() {
		if !f.done {
			t.engine.leave(f)
		}
		t.flying.pop()
	}
}

// blank is a result that says only what was probed.
func (t *task) blank(f *flight) probe.Result {
	return probe.Result{Target: f.target.name, Remote: f.target.remote, LocalPort: f.local, Stamp: probe.StampKernel}
}
