package policy

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/synmesh/synmesh/probe"
)

// waiting is a prober that probes until its context ends.
type waiting struct{ began chan struct{} }

func (w waiting) Do(ctx context.Context, _ probe.Spec, _ func(*probe.Result)) error {
	w.began <- struct{}{}
	<-ctx.Done()
	return ctx.Err()
}

func TestWhatGoesOnAtATimeIsHeldToTheCeilingTogether(t *testing.T) {
	w := waiting{make(chan struct{}, 1)}
	l := Limit(w)
	spec := func(interval time.Duration, ports string) probe.Spec {
		ts, err := probe.ParseTargets("db.fra:" + ports)
		if err != nil {
			t.Fatal(err)
		}
		return probe.Spec{Targets: ts, Interval: interval, Flows: 1}
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.Do(ctx, spec(150*time.Millisecond, "22,80"), nil) }() // 6.667 a second each
	<-w.began

	err := l.Do(ctx, spec(200*time.Millisecond, "79,80"), nil)
	if err == nil || !strings.Contains(err.Error(), "5 SYNs a second to db.fra:80, which gets 6.667 from this agent already; agents allow 10 in all") {
		t.Errorf("got %v", err)
	}
	short, stop := context.WithCancel(ctx)
	stop()
	if err := l.Do(short, spec(100*time.Millisecond, "79"), nil); err != context.Canceled {
		t.Errorf("what was refused has left something behind: %v", err)
	}
	<-w.began

	cancel()
	<-ended
	if err := l.Do(ctx, spec(100*time.Millisecond, "80"), nil); err != context.Canceled {
		t.Errorf("what is over has left something behind: %v", err)
	}
	if len(l.rates) != 0 {
		t.Errorf("rates are left: %v", l.rates)
	}
}
