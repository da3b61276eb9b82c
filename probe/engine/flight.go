package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"time"

	"github.com/synmesh/synmesh/probe"
)

// flight is a probe under way.
type flight struct {
	task   *task
	target *target
	way    *way // the one it was begun with
	slot   int  // of the schedule
	local  uint16
	isn    uint32
	ahead  uint32        // of the clock are its timestamps; see tick
	due    time.Duration // by the monotonic clock
	drops  uint64        // of the capture, when it was begun
	behind bool          // the one before had not been answered when it was begun
	lookup bool          // the kernel has to look for a neighbour first
	warmUp bool          // it is no probe, and goes ahead of one

	// The task's own.
	stage int          // the queue that it waits in
	over  bool         // its result has been handed over
	close *probe.Close // of mode Full

	// Guarded by the engine's lock.
	syns   []transmission
	first  [1]transmission // where syns begins
	answer answer
	conn   conn // mode Full only
	done   bool // no longer waiting for an answer
}

// transmission is one SYN of a flight.
type transmission struct {
	tsval    uint32
	called   reading // before the kernel was asked to send
	sent     int64   // stamp; 0 while it is unknown
	hardware int64   // the device's, if there is one
}

// answer is what came back.
type answer struct {
	outcome  probe.Outcome // 0 while there is none
	stamp    int64
	hardware int64 // the device's, if there is one
	read     reading
	drops    uint64 // of the capture by then
	to       int    // the SYN that the answer names, counted from 1; 0 if it names none
	synAck   probe.SynAck
	tsval    uint32 // of a SYN-ACK with timestamps
	icmp     probe.ICMP
}

// enter gives the flight an initial sequence number that no other flight has,
// and puts it into the table. The lock is held.
func (e *Engine) enter(f *flight) {
	of := f.tuple()
	var b [len(of) + 8]byte
	copy(b[:], of[:])
	for {
		binary.NativeEndian.PutUint64(b[len(of):], e.probes.Add(1))
		f.isn = uint32(maphash.Bytes(e.seed, b[:]))
		if e.table[f.isn] == nil {
			break
		}
	}
	f.drops = e.stats.Drops
	e.table[f.isn] = f
}

// complete hands an answered flight with its stamps to its task. One with a
// connection stays in the table until that is closed. The lock is held.
func (e *Engine) complete(f *flight) {
	f.done = true
	if !f.full() || f.answer.outcome != probe.Open {
		e.leave(f)
	}
	e.hand(f)
}

// hand shows a flight to its task. The lock is held.
func (e *Engine) hand(f *flight) {
	f.task.ready = append(f.task.ready, f)
	f.task.rouse()
}

// leave takes a flight out of the table, and its connection, unless that is in
// TIME_WAIT. The lock is held.
func (e *Engine) leave(f *flight) {
	delete(e.table, f.isn)
	f.done = true
	if f.conn.state != connWaiting {
		e.disconnect(f)
	}
}

// answered returns the SYN that the round trip counts from: the one that the
// answer names, or else the last that had left when it came.
func (f *flight) answered() *transmission {
	if f.answer.to > 0 {
		return &f.syns[f.answer.to-1]
	}
	for i := len(f.syns) - 1; i > 0 && f.answer.outcome != 0; i-- {
		if at := f.syns[i].sent; at != 0 && at <= f.answer.stamp {
			return &f.syns[i]
		}
	}
	if f.answer.outcome != 0 {
		return &f.syns[0]
	}
	return &f.syns[len(f.syns)-1]
}

// result says what became of the flight, which is done. Now is when that was decided.
func (f *flight) result(now reading, drops uint64) probe.Result {
	r := f.task.blank(f)
	a, from := &f.answer, f.answered()
	r.Attempts, r.SYN = len(f.syns), f.isn
	r.Lateness = max(0, f.syns[0].called.mono-f.due)
	r.Time = time.Unix(0, f.syns[0].called.wall)
	if f.syns[0].sent != 0 {
		r.Time = time.Unix(0, f.syns[0].sent)
	}
	if from.sent != 0 {
		r.HostDelay = time.Duration(from.sent - from.called.wall)
	}
	if a.outcome != 0 {
		now, drops = a.read, a.drops
		if a.stamp != 0 {
			r.HostDelay += time.Duration(a.read.wall - a.stamp)
		}
	}
	r.Drops = int(drops - f.drops)
	if err := f.fault(now, drops); err != nil {
		r.Outcome, r.Err, r.HostDelay = probe.Error, err.Error(), max(0, r.HostDelay)
		return r
	}
	switch r.Outcome = a.outcome; r.Outcome {
	case 0:
		r.Outcome = probe.Timeout
	case probe.Open:
		r.SynAck = &a.synAck
		r.Close = f.close
	case probe.Unreachable:
		r.ICMP = &a.icmp
	}
	if r.Outcome.Answered() {
		r.Retry = f.retry()
	}
	if r.Timed() {
		r.RTT, r.Stamp = f.roundTrip()
	}
	return r
}

// retry tells more where several SYNs were sent.
func (f *flight) retry() *probe.Retry {
	if len(f.syns) == 1 {
		return nil
	}
	t := &probe.Retry{Answered: f.answer.to, Waited: time.Duration(f.answer.stamp - f.syns[0].sent)}
	switch f.answer.to {
	case 0:
	case len(f.syns):
		// A target that had seen an earlier SYN would echo that one's
		// timestamp (RFC 7323 section 4.3).
		t.Lost = probe.LostSYN
	default:
		t.Lost = probe.LostSYNACK
	}
	return t
}

// maxChallenged is how many pairs are remembered as challenged. A flood of
// challenges is forged, and tells nothing; it must not keep the receiver busy either.
const (
	maxChallenged = 4096
	sweepEvery    = time.Second
)

// challenge notes that a SYN may have been challenged instead of answered: a
// target that has not heard the end of one handshake takes the next SYN for a
// stray (RFC 5961 section 4.2). The lock is held.
func (e *Engine) challenge(p pair, now time.Duration) {
	_, known := e.challenged[p]
	if full := len(e.challenged) >= maxChallenged; full && !known && now-e.swept >= sweepEvery {
		e.swept = now
		maps.DeleteFunc(e.challenged, func(_ pair, at time.Duration) bool { return now-at > probe.MaxTimeout })
	}
	if known || len(e.challenged) < maxChallenged {
		e.challenged[p] = now
	}
}

// denied tells why the flight may have been challenged, or returns nil.
func (f *flight) denied() error {
	e := f.task.engine
	e.mu.Lock()
	at, challenged := e.challenged[f.pair()]
	e.mu.Unlock()
	switch {
	case !challenged || at < f.syns[0].called.mono:
		return nil
	case f.behind:
		return errors.New("the target still has the handshake before from this port, whose answer takes longer than the interval; a longer interval or more flows would help")
	}
	return fmt.Errorf("the target challenged the SYN: it still has an earlier handshake from port %d, so the RST that ended it was lost, or a firewall ate it; more flows would help", f.local)
}

// fault tells why the flight's times cannot be trusted.
func (f *flight) fault(now reading, drops uint64) error {
	if err := now.steppedSince(f.syns[0].called); err != nil {
		return err
	}
	if f.answer.outcome == 0 {
		return f.unanswered(drops)
	}
	from, a := f.answered(), &f.answer
	switch {
	case a.outcome == probe.Unreachable:
		return nil // it may have come of a SYN that never left, and gives no round trip
	case from.sent == 0 || f.syns[0].sent == 0:
		return errors.New("the kernel gave no stamp of the SYN, which was answered")
	case a.stamp == 0:
		return errors.New("the kernel gave no stamp of the answer")
	case a.stamp < from.sent:
		return fmt.Errorf("the answer's stamp is %v before the SYN's", time.Duration(from.sent-a.stamp))
	}
	return nil
}

// unanswered tells why it cannot be said that nothing came back.
func (f *flight) unanswered(drops uint64) error {
	if err := f.denied(); err != nil {
		return err
	}
	switch {
	case drops > f.drops:
		return fmt.Errorf("%d packets found no room in the capture meanwhile, and the answer may have been one of them", drops-f.drops)
	case f.answered().sent == 0:
		return errors.New("the SYN was never seen to leave this host")
	}
	return nil
}
