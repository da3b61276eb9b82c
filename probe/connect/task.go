package connect

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/probe/resolve"
	"github.com/synmesh/synmesh/probe/schedule"
)

// task is one Spec being carried out. Its fields are the calling goroutine's.
type task struct {
	engine   *Engine
	spec     *probe.Spec
	emit     func(*probe.Result)
	targets  []target
	start    time.Time
	schedule *schedule.Schedule

	waiting []*flight // for their next SYN, the earliest first
	open    map[*flight]*conn
	landed  chan *flight // of open ones, when it is known what came of the SYN
	group   sync.WaitGroup
}

type target struct {
	name string
	resolve.Address
}

func newTask(e *Engine, spec *probe.Spec, emit func(*probe.Result)) *task {
	return &task{
		engine: e, spec: spec, emit: emit, targets: make([]target, len(spec.Targets)),
		schedule: schedule.New(spec, len(spec.Targets)),
		open:     make(map[*flight]*conn),
		landed:   make(chan *flight, maxOpen), // so that sending never blocks
	}
}

func (t *task) loop(ctx context.Context) error {
	t.start = time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		due, retry, more := t.next()
		if !more && len(t.open) == 0 {
			return nil
		}
		var room chan<- struct{} // nil, which is never chosen, unless there is a SYN to send
		if wait := due - time.Since(t.start); more && wait <= 0 {
			room = t.engine.room
		} else if more {
			timer.Reset(wait)
		}
		select {
		case room <- struct{}{}:
			t.launch(retry)
		case f := <-t.landed:
			t.land(f)
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// next tells when the next SYN is due, and whether it is a retry.
func (t *task) next() (due time.Duration, retry, more bool) {
	_, due, more = t.schedule.Next()
	if len(t.waiting) > 0 && (!more || t.waiting[0].due < due) {
		return t.waiting[0].due, true, true
	}
	return due, false, more
}

// launch sends the SYN that is due. It owns a place in the engine's room.
func (t *task) launch(retry bool) {
	var f *flight
	if retry {
		f, t.waiting = t.waiting[0], t.waiting[1:]
	} else {
		slot, _, _ := t.schedule.Next()
		now := time.Now()
		f = &flight{target: &t.targets[slot], due: t.schedule.Begin(now.Sub(t.start)), began: now}
	}
	limit := MaxWait
	if f.tries == t.spec.Retries {
		limit = min(limit, t.spec.Timeout)
	}
	var c *conn
	err := f.target.Err
	if err == nil {
		c, err = dial(f.target.Remote, &t.spec.Sending, limit)
	}
	if err != nil {
		<-t.engine.room
		f.found = found{outcome: probe.Error, err: err}
		t.finish(f)
		return
	}
	if f.tries++; f.tries == 1 {
		f.began = c.called
		f.lateness = max(0, c.called.Sub(t.start)-f.due)
	}
	t.open[f] = c
	t.group.Go(func() {
		f.found = c.wait()
		<-t.engine.room
		t.landed <- f
	})
}

// land takes in what came of a SYN: a result, or that there is to be another.
func (t *task) land(f *flight) {
	c := t.open[f]
	delete(t.open, f)
	f.local = c.local
	f.syns += f.found.syns
	f.waited = c.called.Sub(f.began) + f.found.elapsed
	if f.found.outcome == probe.Timeout && f.tries <= t.spec.Retries {
		f.due = f.began.Sub(t.start) + probe.Backoff(f.tries)
		at, _ := slices.BinarySearchFunc(t.waiting, f, func(a, b *flight) int { return cmp.Compare(a.due, b.due) })
		t.waiting = slices.Insert(t.waiting, at, f)
		return
	}
	t.finish(f)
}

func (t *task) finish(f *flight) {
	r := f.result()
	t.emit(&r)
}

// abandon gives up what is still under way, and waits for its end.
func (t *task) abandon() {
	for _, c := range t.open {
		c.abandon()
	}
	t.group.Wait()
}

// flight is a probe under way.
type flight struct {
	target   *target
	due      time.Duration // its next SYN, after the start
	began    time.Time     // with the first SYN
	lateness time.Duration
	tries    int // connections, one for each SYN that was asked for
	syns     int // that left
	local    uint16
	waited   time.Duration // from the first SYN to the end
	found    found         // by the last connection
}

// found is what came of one connection.
type found struct {
	outcome probe.Outcome
	stamp   probe.Stamp   // of the round trip
	rtt     time.Duration // if there was an answer
	elapsed time.Duration // from our call to our learning of it
	syns    int
	icmp    *probe.ICMP
	err     error
}

var errAmbiguous = errors.New("there was an answer, but the kernel had sent the SYN again, and does not tell when the one that was answered had left")

// result says what became of the flight, whose last connection has ended.
func (f *flight) result() probe.Result {
	d := &f.found
	r := probe.Result{
		Time: f.began.Round(0), Target: f.target.name, Remote: f.target.Remote, LocalPort: f.local,
		Outcome: d.outcome, Attempts: f.syns, Stamp: d.stamp, Lateness: f.lateness, ICMP: d.icmp,
	}
	if r.Stamp == 0 {
		r.Stamp = nativeStamp
	}
	if d.err != nil {
		r.Err = d.err.Error()
	}
	if !d.outcome.Answered() {
		return r
	}
	if d.syns > 1 {
		r.Outcome, r.Err = probe.Error, errAmbiguous.Error()
		r.Retry = &probe.Retry{Waited: f.waited}
		return r
	}
	r.RTT = d.rtt
	if r.Stamp == probe.StampTCPInfo {
		r.HostDelay = max(0, d.elapsed-d.rtt)
	}
	if f.tries > 1 {
		// The connection tells which SYN was answered; of the others it is not
		// known whether they or their answers were lost.
		r.Retry = &probe.Retry{Answered: f.syns, Waited: f.waited}
	}
	return r
}
