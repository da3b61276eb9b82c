package session

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
)

const (
	// maxReadings is how many readings are kept. The best of them counts: others
	// were delayed by what was under way.
	maxReadings = 8
	// drift is by how much the clocks may part in a second.
	drift = 50 * time.Microsecond
	// maxAhead is how far ahead the beginning of a run may be.
	maxAhead = time.Second
)

// clock compares this host's clock with the controller's.
type clock struct {
	mu    sync.Mutex
	asked time.Time // of the heartbeat that has no echo yet; zero if none
	heard []reading // the newest last
}

// reading is of the controller's clock, which it has read somewhere between a
// heartbeat and its echo: half of that time is the most that the middle of it can
// be wrong by, however slow either way was. As here has a monotonic reading, too,
// it holds even if this host's clock is set afterwards.
type reading struct {
	here   time.Time
	there  time.Time
	within time.Duration
}

// at returns the controller's time at a later time of this host, and how far that may be off.
func (r reading) at(here time.Time) (there time.Time, within time.Duration) {
	age := here.Sub(r.here)
	return r.there.Add(age), r.within + time.Duration(age.Seconds()*float64(drift))
}

// contradicts tells whether one of the clocks must have been set between two readings.
func (r reading) contradicts(later reading) bool {
	there, within := r.at(later.here)
	return there.Sub(later.there).Abs() > within+later.within
}

// ask returns the time of a heartbeat.
func (c *clock) ask() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = time.Now()
	return c.asked
}

// hear takes in an echo: the time of its heartbeat and that of the controller. It
// returns whether that was the first.
func (c *clock) hear(asked, controller time.Time) (first bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.asked.IsZero() || !asked.Equal(c.asked) {
		return false
	}
	first = c.heard == nil
	half := time.Since(c.asked) / 2
	now := reading{here: c.asked.Add(half), there: controller, within: half}
	c.asked = time.Time{}
	c.heard = slices.DeleteFunc(c.heard, func(r reading) bool { return r.contradicts(now) })
	c.heard = append(c.heard, now)
	c.heard = c.heard[max(0, len(c.heard)-maxReadings):]
	return first
}

// best returns the reading that tells most of this time. The lock is held.
func (c *clock) best(now time.Time) (r reading, ok bool) {
	if len(c.heard) == 0 {
		return r, false
	}
	return slices.MinFunc(c.heard, func(a, b reading) int {
		_, first := a.at(now)
		_, second := b.at(now)
		return cmp.Compare(first, second)
	}), true
}

// tell returns by how much this clock is ahead, and how far that may be off.
func (c *clock) tell() (offset, within time.Duration, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	r, ok := c.best(now)
	if !ok {
		return 0, 0, false
	}
	there, within := r.at(now)
	return now.Round(0).Sub(there), within, true
}

// local returns when it is that time of the controller here. It is the zero Time,
// which is long past, if there is none, nobody knows, or it is too far ahead.
func (c *clock) local(there *timestamppb.Timestamp) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	r, ok := c.best(now)
	if !ok || there == nil {
		return time.Time{}
	}
	here := r.here.Add(there.AsTime().Sub(r.there))
	if here.Sub(now) > maxAhead {
		return time.Time{}
	}
	return here
}
