package engine

import (
	"container/heap"
	"math/rand/v2"
	"time"

	"github.com/synmesh/synmesh/probe"
)

// schedule says which slot, of all pairs of a target and a flow, is to be
// probed next, and when.
type schedule interface {
	// next returns the slot and its time since the beginning; ok is false when
	// all have been probed as often as they are to be.
	next() (slot int, due time.Duration, ok bool)
	// advance goes on to the one after.
	advance()
}

func newSchedule(s *probe.Spec, slots int) schedule {
	if s.Poisson {
		return newPoisson(s, slots)
	}
	return &periodic{spec: s, slots: slots}
}

// periodic probes every slot once in each interval, and spreads the slots
// evenly over it, though no finer than into a hundred beats, and beats of 10 ms
// at the most: waking up for every one of a thousand targets would cost more
// than probing them.
type periodic struct {
	spec  *probe.Spec
	slots int
	begun int
}

func (p *periodic) next() (int, time.Duration, bool) {
	if p.spec.Count > 0 && p.begun >= p.spec.Count*p.slots {
		return 0, 0, false
	}
	round, slot := p.begun/p.slots, p.begun%p.slots
	even := time.Duration(float64(slot) / float64(p.slots) * float64(p.spec.Interval))
	beat := min(10*time.Millisecond, p.spec.Interval/100)
	return slot, time.Duration(round)*p.spec.Interval + even/beat*beat, true
}

func (p *periodic) advance() { p.begun++ }

// poisson probes every slot at times of its own that are independent of each
// other and of everything else.
type poisson struct {
	spec *probe.Spec
	due  dues
}

// due is the next time of a slot.
type due struct {
	slot, begun int
	at          time.Duration
}

func newPoisson(s *probe.Spec, slots int) *poisson {
	p := &poisson{spec: s, due: make(dues, slots)}
	for i := range p.due {
		p.due[i] = due{slot: i, at: p.wait()}
	}
	heap.Init(&p.due)
	return p
}

func (p *poisson) wait() time.Duration {
	return time.Duration(rand.ExpFloat64() * float64(p.spec.Interval))
}

func (p *poisson) next() (int, time.Duration, bool) {
	if len(p.due) == 0 {
		return 0, 0, false
	}
	return p.due[0].slot, p.due[0].at, true
}

func (p *poisson) advance() {
	first := &p.due[0]
	first.begun++
	first.at += p.wait()
	if p.spec.Count > 0 && first.begun >= p.spec.Count {
		heap.Pop(&p.due)
		return
	}
	heap.Fix(&p.due, 0)
}

// dues is a heap, the earliest first.
type dues []due

func (d dues) Len() int           { return len(d) }
func (d dues) Less(i, j int) bool { return d[i].at < d[j].at }
func (d dues) Swap(i, j int)      { d[i], d[j] = d[j], d[i] }
func (d *dues) Push(x any)        { *d = append(*d, x.(due)) }
func (d *dues) Pop() any {
	last := (*d)[len(*d)-1]
	*d = (*d)[:len(*d)-1]
	return last
}
