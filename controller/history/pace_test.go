package history

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// Who reads for a query rests after a stint, if reports wait, and only then.
func TestQueriesGiveWayToTheIntake(t *testing.T) {
	for what, c := range map[string]struct {
		worked  time.Duration
		waiting bool
		rest    time.Duration
	}{
		"nothing waits":    {worked: time.Second},
		"a moment":         {worked: stint - 1, waiting: true},
		"a stint":          {worked: stint, waiting: true, rest: restFor * stint},
		"far more at once": {worked: time.Minute, waiting: true, rest: restFor * 4 * stint},
	} {
		synctest.Test(t, func(t *testing.T) {
			s, err := newStore(Config{Dir: "nowhere"})
			if err != nil {
				t.Fatal(err)
			}
			if c.waiting {
				s.queue.put(&pending{})
			}
			p := pace{store: s}
			if err := p.giveWay(t.Context()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(c.worked)
			began := time.Now()
			if err := p.giveWay(t.Context()); err != nil || time.Since(began) != c.rest {
				t.Errorf("%s: it rested %v, not %v; %v", what, time.Since(began), c.rest, err)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		s, err := newStore(Config{Dir: "nowhere"})
		if err != nil {
			t.Fatal(err)
		}
		s.queue.put(&pending{})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		began := time.Now()
		if err := (&pace{store: s, began: began.Add(-time.Hour)}).giveWay(ctx); err != context.Canceled || time.Since(began) != 0 {
			t.Errorf("after the end it rested %v; %v", time.Since(began), err)
		}
	})
}
