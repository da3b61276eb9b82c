package engine

import (
	"encoding/binary"
	"errors"
	"hash/maphash"
	"time"

	"github.com/synmesh/synmesh/probe"
)

// flight is a probe under way. The table's lock guards what changes after it
// has been sent: sent, answer and done.
type flight struct {
	task    *task
	target  *target
	local   uint16
	isn     uint32
	due     time.Duration // by the monotonic clock
	expires time.Duration
	called  reading // before the kernel was asked to send
	drops   uint64  // of the capture, when it was sent
	over    bool    // its result has been handed over; the task's own

	sent   int64 // stamp of the SYN; 0 while it is unknown
	answer answer
	done   bool // no longer in the table
}

// answer is what came back.
type answer struct {
	outcome probe.Outcome // 0 while there is none
	stamp   int64
	read    reading
	drops   uint64 // of the capture by then
	synAck  probe.SynAck
	icmp    probe.ICMP
}

// enter gives the flight an initial sequence number that no other flight has,
// and puts it into the table. The lock is held.
func (e *Engine) enter(f *flight) {
	var b [46]byte
	src, dst := f.target.src.As16(), f.target.plain.Addr().As16()
	copy(b[:], src[:])
	copy(b[16:], dst[:])
	binary.NativeEndian.PutUint16(b[32:], f.local)
	binary.NativeEndian.PutUint16(b[34:], f.target.plain.Port())
	for {
		binary.NativeEndian.PutUint64(b[38:], e.probes.Add(1))
		f.isn = uint32(maphash.Bytes(e.seed, b[:]))
		if e.table[f.isn] == nil {
			break
		}
	}
	f.drops = e.stats.Drops
	e.table[f.isn] = f
}

// complete hands an answered flight with its stamp to its task. The lock is held.
func (e *Engine) complete(f *flight) {
	e.leave(f)
	f.task.ready = append(f.task.ready, f)
	select {
	case f.task.wake <- struct{}{}:
	default:
	}
}

func (e *Engine) leave(f *flight) {
	delete(e.table, f.isn)
	f.done = true
}

// result says what became of the flight, which is done. Now is when that was decided.
func (f *flight) result(now reading, drops uint64) probe.Result {
	r := f.task.blank(f)
	r.Attempts = 1
	r.Lateness = max(0, f.called.mono-f.due)
	if f.sent != 0 {
		r.Time = time.Unix(0, f.sent)
		r.HostDelay = time.Duration(f.sent - f.called.wall)
	} else {
		r.Time = time.Unix(0, f.called.wall)
	}
	a := &f.answer
	if a.outcome != 0 {
		now, drops = a.read, a.drops
		r.HostDelay += time.Duration(a.read.wall - a.stamp)
	}
	r.Drops = int(drops - f.drops)
	if err := f.fault(now); err != nil {
		r.Outcome, r.Err, r.HostDelay = probe.Error, err.Error(), max(0, r.HostDelay)
		return r
	}
	switch r.Outcome = a.outcome; r.Outcome {
	case 0:
		r.Outcome = probe.Timeout
	case probe.Open:
		synAck := a.synAck
		r.SynAck = &synAck
	case probe.Unreachable:
		icmp := a.icmp
		r.ICMP = &icmp
	}
	if r.Outcome.Answered() {
		r.RTT = time.Duration(a.stamp - f.sent)
	}
	return r
}

// fault tells why the flight's times cannot be trusted.
func (f *flight) fault(now reading) error {
	switch stepped := now.steppedSince(f.called); {
	case stepped != nil:
		return stepped
	case f.sent == 0 && f.answer.outcome != 0:
		return errors.New("the kernel gave no stamp of the SYN, which was answered")
	case f.sent == 0:
		return errors.New("the SYN was never seen to leave this host")
	case f.answer.outcome != 0 && f.answer.stamp < f.sent:
		return errors.New("the answer's stamp is before the SYN's")
	}
	return nil
}
