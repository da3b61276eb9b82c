package engine

import (
	"fmt"
	"time"
)

// reading is the wall clock and the monotonic clock at one moment. They cannot
// be read at once, so their difference is known as an interval.
type reading struct {
	mono     time.Duration // since the engine was made
	wall     int64         // nanoseconds since 1970
	min, max int64         // of wall - mono
}

func (e *Engine) clock() reading {
	before := time.Since(e.born)
	wall := time.Now().UnixNano()
	after := time.Since(e.born)
	return reading{mono: before, wall: wall, min: wall - int64(after), max: wall - int64(before)}
}

// steppedSince returns an error if somebody has set the wall clock since the
// earlier reading. Adjusting its rate moves both clocks alike and does no harm;
// a step makes the difference of two wall times wrong.
func (r reading) steppedSince(earlier reading) error {
	var by int64
	switch {
	case r.min > earlier.max:
		by = r.min - earlier.max
	case r.max < earlier.min:
		by = r.max - earlier.min
	default:
		return nil
	}
	return fmt.Errorf("the wall clock was set by %v while the probe was under way", time.Duration(by))
}
