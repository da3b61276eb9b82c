// Package schedule says which probe of a Spec is to begin next, and when. It
// reads no clock and sends nothing: an engine asks it, with a clock of its own.
//
// New makes a Schedule, Next looks at the probe that comes next, and Begin
// goes on to the one after.
package schedule

import (
	"container/heap"
	"math/rand/v2"
	"time"

	"github.com/synmesh/synmesh/probe"
)

// MaxLag is how far an engine falls behind before the Schedule is shifted
// instead of being caught up with, as after the host was suspended.
const MaxLag = time.Second

// Schedule is the order and the times of a Spec's probes. A slot stands for
// one of the pairs of a target and a flow. Times count from the beginning.
type Schedule struct {
	spec   *probe.Spec
	slots  int
	begun  int64 // of probes that are periodic to the letter
	random dues  // of all others
	shift  time.Duration
}

// New returns the Schedule of a Spec that is valid, with so many slots. Of the
// Spec it uses Count, Interval, Poisson, Jitter and Phase.
func New(s *probe.Spec, slots int) *Schedule {
	c := &Schedule{spec: s, slots: slots, shift: s.Phase}
	if !c.drawn() {
		return c
	}
	c.random = make(dues, slots)
	for i := range c.random {
		c.random[i] = due{slot: i}
		c.draw(&c.random[i])
	}
	heap.Init(&c.random)
	return c
}

// drawn tells whether probes are in no order that is known beforehand.
func (c *Schedule) drawn() bool { return c.spec.Poisson || c.spec.Jitter > 0 }

// Next returns the slot that is probed next, and when that is due. It returns
// false when each has been probed as often as the Spec says.
func (c *Schedule) Next() (slot int, due time.Duration, ok bool) {
	if c.drawn() {
		if len(c.random) == 0 {
			return 0, 0, false
		}
		return c.random[0].slot, c.random[0].at + c.shift, true
	}
	if c.spec.Count > 0 && c.begun >= int64(c.spec.Count)*int64(c.slots) {
		return 0, 0, false
	}
	slot = int(c.begun % int64(c.slots))
	return slot, c.periodic(c.begun/int64(c.slots), slot) + c.shift, true
}

// periodic probes every slot once in each interval, and spreads the slots
// evenly over it, though no finer than into fifty beats, and beats of 20 ms
// at the most: waking up for every one of a thousand targets would cost more
// than probing them.
func (c *Schedule) periodic(round int64, slot int) time.Duration {
	even := time.Duration(float64(slot) / float64(c.slots) * float64(c.spec.Interval))
	beat := min(20*time.Millisecond, c.spec.Interval/50)
	return time.Duration(round)*c.spec.Interval + even/beat*beat
}

// Begin says that the probe that Next tells of begins at the time now. It
// returns when that was due; if it is later than MaxLag, everything that is
// left is shifted, and what Begin returns is now.
func (c *Schedule) Begin(now time.Duration) (due time.Duration) {
	_, due, ok := c.Next()
	if !ok {
		return now
	}
	if lag := now - due; lag > MaxLag {
		c.shift += lag
		due = now
	}
	c.advance()
	return due
}

func (c *Schedule) advance() {
	if !c.drawn() {
		c.begun++
		return
	}
	first := &c.random[0]
	first.begun++
	if c.spec.Count > 0 && first.begun >= int64(c.spec.Count) {
		heap.Pop(&c.random)
		return
	}
	c.draw(first)
	heap.Fix(&c.random, 0)
}

// draw sets when a slot is due next. The times between Poisson probes are
// independent of each other and of everything else (RFC 2330 section 11.1.1).
// Jitter counts from the period, not from the probe before, so that the mean
// rate stays what it is; at half an interval no two probes change places.
func (c *Schedule) draw(d *due) {
	if c.spec.Poisson {
		d.at += time.Duration(rand.ExpFloat64() * float64(c.spec.Interval))
		return
	}
	d.at = c.periodic(d.begun, d.slot) + time.Duration(rand.Float64()*c.spec.Jitter*float64(c.spec.Interval))
}

// due is the next time of a slot.
type due struct {
	slot  int
	begun int64
	at    time.Duration
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
