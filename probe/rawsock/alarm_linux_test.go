package rawsock

import (
	"errors"
	"os"
	"testing"
	"time"
)

func TestAnAlarmGoesOffWhenItWasSetToLast(t *testing.T) {
	a, err := OpenAlarm()
	must(t, err)
	rang := make(chan time.Time, 10)
	ended := make(chan error, 1)
	go func() { ended <- a.Each(func() { rang <- time.Now() }) }()
	for _, after := range []time.Duration{3 * time.Millisecond, time.Microsecond, 0, -time.Second} {
		must(t, a.Set(time.Hour))
		begun := time.Now()
		must(t, a.Set(after))
		select {
		case at := <-rang:
			if at.Sub(begun) < after {
				t.Errorf("the alarm went off after %v, want %v", at.Sub(begun), after)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("set to %v, the alarm does not go off", after)
		}
	}
	must(t, a.Set(time.Hour))
	must(t, a.Close())
	if err := <-ended; err != nil {
		t.Errorf("after Close, Each returns %v, want nil", err)
	}
	if len(rang) > 0 {
		t.Error("the alarm went off more than once")
	}
	if err := a.Set(0); err == nil {
		t.Error("a closed alarm can be set")
	}
	if err := a.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("the second Close returns %v, want os.ErrClosed", err)
	}
}
