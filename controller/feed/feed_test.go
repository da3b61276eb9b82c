package feed

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

func TestPreviewsNeverTakeThePlaceOfWhatIsStored(t *testing.T) {
	f := New()
	s := f.Subscribe("runs/a")
	defer s.Close()
	of := &synmeshv1.Report{Blocks: []*synmeshv1.ResultBlock{block("runs/a")}}
	for range queueLen {
		f.Publish(Event{Report: of, Preview: true})
	}
	if n := len(s.Events()); n != maxPreviews {
		t.Errorf("%d previews wait, want %d", n, maxPreviews)
	}
	for range queueLen - maxPreviews {
		f.Publish(Event{Report: of})
	}
	if f.Publish(Event{Report: of, Preview: true}); overflowed(s) {
		t.Error("the reader was too slow, and of what is stored there was room for all")
	}
}

// waiting returns what a subscription has been handed and nobody has taken.
func waiting(s *Subscription) (got []string) {
	for {
		select {
		case e := <-s.Events():
			if e.Report == nil {
				got = append(got, fmt.Sprintf("%s %d ended", e.Agent, e.Session))
			} else {
				got = append(got, fmt.Sprintf("%s %d report %d", e.Agent, e.Session, e.Report.GetSequence()))
			}
		default:
			return got
		}
	}
}

func overflowed(s *Subscription) bool {
	select {
	case <-s.Overflow():
		return true
	default:
		return false
	}
}

func block(source string) *synmeshv1.ResultBlock { return &synmeshv1.ResultBlock{Source: source} }

func TestASubscriptionGetsWhatConcernsItsSource(t *testing.T) {
	f := New()
	s := f.Subscribe("runs/a")
	defer s.Close()
	for i, e := range []Event{
		{Report: &synmeshv1.Report{Blocks: []*synmeshv1.ResultBlock{block("runs/b"), block("runs/a")}}},
		{Report: &synmeshv1.Report{Blocks: []*synmeshv1.ResultBlock{block("runs/b"), block("measurements/a"), block("")}}},
		{Report: &synmeshv1.Report{RunEnds: []*synmeshv1.RunEnd{{Run: "runs/a"}}}},
		{Report: &synmeshv1.Report{RunEnds: []*synmeshv1.RunEnd{{Run: "runs/b"}}}},
		{Report: &synmeshv1.Report{}},
		{}, // the end of a session concerns everybody
	} {
		if e.Report != nil {
			e.Report.Sequence = uint64(i)
		}
		e.Agent, e.Session = "fra-1", 7
		f.Publish(e)
	}
	if got, want := waiting(s), []string{"fra-1 7 report 0", "fra-1 7 report 2", "fra-1 7 ended"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if overflowed(s) {
		t.Error("a reader that was fast enough is told that it was not")
	}
}

func TestASlowReaderIsToldSoAndHoldsUpNobody(t *testing.T) {
	f := New()
	slow, fast := f.Subscribe("runs/a"), f.Subscribe("runs/a")
	for i := range queueLen {
		f.Publish(Event{Agent: "fra-1", Session: uint64(i)})
	}
	if n := len(waiting(fast)); n != queueLen || overflowed(slow) {
		t.Fatalf("%d of %d events came, and the slow reader's overflow is %v before the queue is", n, queueLen, overflowed(slow))
	}
	for range 3 {
		f.Publish(Event{Agent: "fra-1"})
	}
	if !overflowed(slow) || overflowed(fast) {
		t.Errorf("overflow of the slow reader: %v, of the fast one: %v", overflowed(slow), overflowed(fast))
	}
	if n := f.Overflows(); n != 1 {
		t.Errorf("%d overflows are counted, of one reader", n)
	}
	if n := len(waiting(slow)); n != queueLen {
		t.Errorf("the slow reader still gets %d events, want the %d that fitted", n, queueLen)
	}
	slow.Close()
	fast.Close()
	f.Publish(Event{Agent: "fra-1"})
	if n := len(waiting(slow)) + len(waiting(fast)) - 3; n != 0 {
		t.Errorf("%d events came after Close", n)
	}
	if len(f.subs) != 0 {
		t.Errorf("%d subscriptions are left", len(f.subs))
	}
}

func TestManyMayPublishAndSubscribe(t *testing.T) {
	f := New()
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for n := range 200 {
				f.Publish(Event{Agent: fmt.Sprint(i), Session: uint64(n)})
			}
		})
		all.Go(func() {
			for range 50 {
				s := f.Subscribe("runs/a")
				waiting(s)
				s.Close()
			}
		})
	}
	s := f.Subscribe("runs/a")
	defer s.Close()
	all.Wait()
	last := make(map[string]uint64)
	for len(s.Events()) > 0 {
		e := <-s.Events()
		if before, ok := last[e.Agent]; ok && e.Session <= before {
			t.Fatalf("event %d of agent %s comes after %d", e.Session, e.Agent, before)
		}
		last[e.Agent] = e.Session
	}
}
