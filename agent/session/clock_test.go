package session

import (
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
)

// echo is a heartbeat and its echo over a path that takes so long each way, from
// a controller whose clock is ahead.
func (c *clock) echo(ahead, there, back time.Duration) {
	asked := c.ask()
	time.Sleep(there)
	controller := time.Now().Add(ahead).Round(0)
	time.Sleep(back)
	c.hear(asked.Round(0), controller)
}

const ms = time.Millisecond

func TestTheBestReadingOfTheControllersClockCounts(t *testing.T) {
	tests := []struct {
		name           string
		do             func(*clock)
		offset, within time.Duration
		known          bool
	}{
		{"none is none", func(*clock) {}, 0, 0, false},
		{"one with the same delay both ways is exact", func(c *clock) { c.echo(time.Hour, 75*ms, 75*ms) }, -time.Hour, 75*ms + 75*50*time.Nanosecond, true},
		{"one with all delay on one way is as wrong as it says", func(c *clock) { c.echo(0, 0, 100*ms) }, 50 * ms, 50*ms + 50*50*time.Nanosecond, true},
		{"a delayed one does not spoil the one before", func(c *clock) {
			c.echo(time.Hour, 0, 0)
			c.echo(time.Hour, 0, 2*time.Second)
		}, -time.Hour, 100 * time.Microsecond, true},
		{"an old one does not count any more", func(c *clock) {
			c.echo(0, 0, 0)
			for range maxReadings {
				c.echo(0, 0, 10*ms)
			}
		}, 5 * ms, 5*ms + 5*50*time.Nanosecond, true},
		{"those before the controller's clock was set do not count", func(c *clock) {
			c.echo(0, 0, 0)
			c.echo(time.Minute, 5*ms, 5*ms)
		}, -time.Minute, 5*ms + 5*50*time.Nanosecond, true},
		{"an echo of another heartbeat is none", func(c *clock) {
			asked := c.ask()
			c.hear(asked.Add(1), time.Now())
		}, 0, 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var c clock
				tt.do(&c)
				if offset, within, known := c.tell(); offset != tt.offset || within != tt.within || known != tt.known {
					t.Errorf("got %v +- %v, %v; want %v +- %v, %v", offset, within, known, tt.offset, tt.within, tt.known)
				}
			})
		})
	}
}

func TestATimeOfTheControllerIsFoundHere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c clock
		in := func(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(time.Now().Add(time.Hour + d)) }
		if at := c.local(in(0)); !at.IsZero() {
			t.Errorf("without a reading, got %v", at)
		}
		c.echo(time.Hour, 30*ms, 30*ms)
		time.Sleep(5 * time.Second)
		for _, d := range []time.Duration{-time.Hour, -ms, 0, 150 * ms, time.Second} {
			if at := c.local(in(d)); time.Until(at) != d {
				t.Errorf("%v from now is found to be in %v", d, time.Until(at))
			}
		}
		if at := c.local(in(time.Second + 1)); !at.IsZero() {
			t.Errorf("what is too far ahead for a run is found to be in %v", time.Until(at))
		}
		if at := c.local(nil); !at.IsZero() {
			t.Errorf("no time is found to be %v", at)
		}
	})
}
