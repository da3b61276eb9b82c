package engine

import (
	"time"

	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/probe/rawsock"
)

// A warm-up is a SYN that goes ahead of a target's first probe where the
// kernel has to look for the neighbour on the way, so that it knows it when the
// probe leaves. It is nobody's probe: what comes of it is not told. The target's
// probes that fall due meanwhile wait for it, and their lateness says how long; those of
// other targets do not.

// maxWarmUp is how long probes wait for a warm-up's answer, if the timeout is not shorter.
const maxWarmUp = time.Second

// warmUps are those of a task.
type warmUps struct {
	waiting  int              // for an answer
	port     []*rawsock.Guard // the one that they leave from, while there are any
	released []*flight        // probes that have waited, and are to be begun
}

func (t *task) warmUpStage() int { return t.spec.Retries + 3 }

// warmUp holds a flight back if it is its target's first and the kernel has to
// look for the neighbour, and returns what to send ahead of it, or nil.
//
// Warm-ups have a source port that no probe has. A probe may have to leave
// while the warm-up's handshake is half open at the target, which would take
// its SYN for a stray of that one.
func (t *task) warmUp(f *flight) *flight {
	to := f.target
	first := !to.begun
	to.begun = true
	if !first || !f.lookup {
		return nil
	}
	w := &t.warmUps
	if w.waiting == 0 {
		var err error
		if w.port, err = t.engine.ports.lease(1, false); err != nil {
			return nil // none is free: the result will say that there was a lookup
		}
	}
	w.waiting++
	to.warming, to.held = true, append(to.held, f)
	ahead := &flight{task: t, target: to, way: f.way, local: w.port[0].Port, due: f.due, warmUp: true}
	ahead.syns = ahead.first[:0]
	return ahead
}

// warmedUp lets the probes go that have waited for an answer from the target.
func (t *task) warmedUp(to *target) {
	w := &t.warmUps
	w.released = append(w.released, to.held...)
	to.warming, to.held = false, nil
	if w.waiting--; w.waiting == 0 {
		t.endWarmUps()
	}
}

// endWarmUps gives the port of the warm-ups back, if there is one.
func (t *task) endWarmUps() {
	if t.warmUps.port == nil {
		return
	}
	if err := t.engine.ports.release(t.warmUps.port); err != nil {
		t.engine.cfg.Logger.Warn("the port of warm-ups is not given back", "reason", err)
	}
	t.warmUps.port = nil
}

// full tells whether the flight goes on to open a connection.
func (f *flight) full() bool { return f.task.spec.Mode == probe.Full && !f.warmUp }
