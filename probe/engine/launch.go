package engine

import (
	"errors"
	"slices"
	"time"

	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/probe/rawsock"
)

// launch begins the probes of the batch: those whose target cannot be probed
// have failed at once, the others get their first SYN.
func (t *task) launch(now reading) {
	if len(t.batch) == 0 {
		return
	}
	kept := t.batch[:0]
	for _, f := range t.batch {
		first, err := t.prepare(f, now)
		if err != nil {
			t.fail(f, now, err)
		} else if first != nil {
			kept = append(kept, first)
		}
	}
	t.batch = kept
	t.transmit()
}

// prepare puts a flight into the table and returns it. If it has to wait for a
// warm-up, that takes its place, unless it is under way already.
func (t *task) prepare(f *flight, now reading) (*flight, error) {
	to := f.target
	if to.unknown != nil {
		return nil, to.unknown
	}
	if to.warming {
		to.held = append(to.held, f)
		return nil, nil
	}
	if to.way == nil {
		var err error
		if to.way, err = t.ways.find(to); err != nil {
			return nil, err
		}
	}
	f.way = to.way
	f.lookup = t.lookup(to, now.mono)
	if ahead := t.warmUp(f); ahead != nil {
		f = ahead
	}
	return f, t.begin(f)
}

// begin puts a flight into the table.
func (t *task) begin(f *flight) error {
	e := t.engine
	var before *flight // of the same addresses and ports
	repeated := t.latest != nil && !f.warmUp
	if repeated {
		if b := t.latest[f.slot]; b != nil && b.target == f.target && b.way == f.way {
			before = b
		}
	}
	if before != nil {
		f.ahead = before.ahead
	} else {
		f.ahead = e.offset(f.tuple())
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if f.full() {
		if err := e.busy(f); err != nil {
			return err
		}
		e.conns[f.pair()] = f
	}
	if f.warmUp {
		e.stats.WarmUps++
	}
	if repeated {
		f.behind = before != nil && !before.done
		t.latest[f.slot] = f
	}
	e.enter(f)
	return nil
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
	t.batch = slices.DeleteFunc(t.batch, func(f *flight) bool {
		answered := f.answer.outcome != 0 // at this moment
		if answered {
			t.enqueue(f, f.stage) // its stamp may be missing, and never come
		}
		return answered
	})
	for _, f := range t.batch {
		tsval, at := e.tick()+f.ahead, len(t.segments)
		f.syns = append(f.syns, transmission{tsval: tsval, called: called})
		t.segments = f.way.template.Append(t.segments, f.local, f.target.plain, f.isn, tsval)
		t.datagrams = append(t.datagrams, t.datagram(f, t.segments[at:]))
	}
	e.mu.Unlock()
	for _, f := range t.batch {
		if f.stage = len(f.syns) - 1; f.warmUp {
			f.stage = t.warmUpStage()
		}
		t.stages[f.stage].push(f, called.mono)
	}
	var sent uint64
	for rest := 0; rest < len(t.batch); {
		n, err := e.sendSome(t.datagrams[rest:], true)
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
// Awaited says that their stamps are of interest.
func (e *Engine) sendSome(ds []rawsock.Datagram, awaited bool) (int, error) {
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
	if !awaited {
		return e.senders[family].Send(ds[:n])
	}
	s := e.stamps[family]
	s.awaited.Add(int64(n)) // before an answer can be there
	sent, err := e.senders[family].Send(ds[:n])
	s.awaited.Add(int64(sent - n))
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
// gone, so both the way and the neighbour are looked up anew.
func (t *task) drop(f *flight, err error) {
	e := t.engine
	e.mu.Lock()
	e.leave(f)
	e.mu.Unlock()
	t.fail(f, f.syns[0].called, err)
	f.target.way, f.target.neighbour = nil, 0
}

// fail hands over a probe that could not be done.
func (t *task) fail(f *flight, now reading, err error) {
	t.result = t.blank(f)
	r := &t.result
	r.Attempts = max(0, len(f.syns)-1)
	r.Time, r.Outcome, r.Err = time.Unix(0, now.wall), probe.Error, err.Error()
	t.handOver(f)
}
