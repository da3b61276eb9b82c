package fleet

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/synmesh/synmesh/internal/selector"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func message(run string) *synmeshv1.SessionResponse {
	return &synmeshv1.SessionResponse{Message: &synmeshv1.SessionResponse_CancelRun{CancelRun: &synmeshv1.CancelRun{Run: run}}}
}

func connect(f *Fleet, name string) *Session {
	return f.Connect(Agent{Name: name, Labels: map[string]string{"dc": name[:3]}}, message("welcome"))
}

// list returns name and state of the agents that match.
func list(t *testing.T, f *Fleet, text string) (got []string) {
	t.Helper()
	match, err := selector.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	states := map[State]string{Connected: "connected", Disconnected: "disconnected", Gossiped: "gossiped"}
	for _, a := range f.Agents(match) {
		got = append(got, a.Name+" "+states[a.State])
	}
	return got
}

func wantList(t *testing.T, f *Fleet, text string, want ...string) {
	t.Helper()
	if got := list(t, f, text); !slices.Equal(got, want) {
		t.Errorf("selector %q: got %q, want %q", text, got, want)
	}
}

func isDone(s *Session) bool {
	select {
	case <-s.Done():
		return true
	default:
		return false
	}
}

func TestAgentsAreListedInOrderAndBySelector(t *testing.T) {
	f := New()
	wantList(t, f, "")
	for _, name := range []string{"nyc-2", "fra-1", "nyc-1"} {
		connect(f, name)
	}
	f.Session("nyc-1").End("it went away")
	f.SetGossiped([]Agent{{Name: "sin-1", Labels: map[string]string{"dc": "sin"}}, {Name: "nyc-1"}, {Name: "fra-1"}})
	wantList(t, f, "", "fra-1 connected", "nyc-1 disconnected", "nyc-2 connected", "sin-1 gossiped")
	wantList(t, f, "dc=nyc", "nyc-1 disconnected", "nyc-2 connected")
	wantList(t, f, "dc in (sin,fra)", "fra-1 connected", "sin-1 gossiped")
	f.SetGossiped(nil)
	wantList(t, f, "dc=sin")
}

func TestLabelsThatWereHandedOutAreACopy(t *testing.T) {
	f := New()
	connect(f, "fra-1")
	f.Agents(selector.Selector{})[0].Labels["dc"] = "nyc"
	wantList(t, f, "dc=fra", "fra-1 connected")
}

func TestANewerSessionTakesThePlaceOfTheOlder(t *testing.T) {
	f := New()
	old := connect(f, "fra-1")
	young := connect(f, "fra-1")
	if !isDone(old) || !strings.Contains(old.Why(), "a newer session of this agent") {
		t.Errorf("the older session goes on, or ended because of %q", old.Why())
	}
	if f.Session("fra-1") != young || isDone(young) || young.ID == old.ID {
		t.Error("the newer session is not the agent's")
	}
	old.End("late")
	wantList(t, f, "", "fra-1 connected")
	old.Heard(&synmeshv1.Heartbeat{Dropped: 5})
	if f.Agents(selector.Selector{})[0].Dropped != 0 {
		t.Error("the older session is still heard")
	}
	young.End("gone")
	wantList(t, f, "", "fra-1 disconnected")
	if f.Session("fra-1") != nil || f.Session("nobody") != nil {
		t.Error("there is a session of somebody who has none")
	}
}

func TestOnlyTheFirstReasonOfAnEndCounts(t *testing.T) {
	s := connect(New(), "fra-1")
	s.End("first")
	s.End("second")
	if s.Why() != "first" {
		t.Errorf("it ended because of %q, want the first reason", s.Why())
	}
}

func TestMessagesComeInOrderBehindTheFirst(t *testing.T) {
	s := connect(New(), "fra-1")
	s.Send(message("a"))
	s.Send(message("b"))
	for _, want := range []string{"welcome", "a", "b"} {
		if got := (<-s.Queue()).GetCancelRun().GetRun(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestAnAgentThatTakesNothingIsGivenUp(t *testing.T) {
	f := New()
	s := connect(f, "fra-1")
	for range queueLen - 1 {
		s.Send(message("a"))
	}
	if isDone(s) {
		t.Fatal("the session ended before the queue was full")
	}
	s.Send(message("too many"))
	if !isDone(s) || !strings.Contains(s.Why(), "too slowly") {
		t.Errorf("the session goes on, or ended because of %q", s.Why())
	}
	wantList(t, f, "", "fra-1 disconnected")
	s.Send(message("later")) // and it does not wait
}

func TestWhatAnAgentSaysOfItselfIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, began := New(), time.Now()
		s := connect(f, "fra-1")
		time.Sleep(time.Second)
		s.Heard(&synmeshv1.Heartbeat{Dropped: 3, Backlog: 4, Produced: 9, ClockOffset: durationpb.New(time.Second), ClockError: durationpb.New(5),
			Drops: []*synmeshv1.DropCount{{Reason: synmeshv1.DropReason_DROP_REASON_FULL, Results: 3}}, Refused: []*synmeshv1.Refusal{{Source: "measurements/web"}}})
		time.Sleep(time.Second)
		s.Heard(nil) // a report
		time.Sleep(time.Second)
		a := f.Agents(selector.Selector{})[0]
		if a.Dropped != 3 || a.Backlog != 4 || a.Produced != 9 || !a.ClockKnown || a.ClockOffset != time.Second || a.ClockError != 5 ||
			a.Drops[0].GetResults() != 3 || a.Refused[0].GetSource() != "measurements/web" || !a.Connect.Equal(began) || !a.LastSeen.Equal(began.Add(2*time.Second)) {
			t.Errorf("got %+v", a)
		}
		s.End("gone")
		if a = f.Agents(selector.Selector{})[0]; !a.LastSeen.Equal(began.Add(3*time.Second)) || a.Dropped != 3 {
			t.Errorf("after its end: got %+v", a)
		}
	})
}

func TestAnAgentIsForgottenAnHourAfterItLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New()
		s := connect(f, "fra-1")
		connect(f, "nyc-1")
		time.Sleep(24 * time.Hour)
		s.End("gone")
		time.Sleep(Forget)
		wantList(t, f, "", "fra-1 disconnected", "nyc-1 connected")
		f.SetGossiped([]Agent{{Name: "fra-1"}})
		time.Sleep(time.Nanosecond)
		wantList(t, f, "", "fra-1 gossiped", "nyc-1 connected")
	})
}

func TestChangesOfWhoIsConnectedAreTold(t *testing.T) {
	f := New()
	changed := func(what string, want bool, do func()) {
		t.Helper()
		c := f.Changed()
		do()
		select {
		case <-c:
			if !want {
				t.Errorf("%s is told of", what)
			}
		default:
			if want {
				t.Errorf("%s is not told of", what)
			}
		}
	}
	var s, young *Session
	changed("an agent that connects", true, func() { s = connect(f, "fra-1") })
	changed("a heartbeat", false, func() { s.Heard(&synmeshv1.Heartbeat{}) })
	changed("an agent that connects again", true, func() { young = connect(f, "fra-1") })
	changed("the end of an older session", false, func() { s.End("late") })
	changed("an agent that leaves", true, func() { young.End("gone") })
	changed("an end that was one", false, func() { young.End("gone") })
}

func TestDrainEndsAllSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, began := New(), time.Now()
		a, b, c := connect(f, "fra-1"), connect(f, "nyc-1"), connect(f, "sin-1")
		a.End("before")
		go func() { // an agent that does as it is asked
			<-c.Queue()
			if m := (<-c.Queue()).GetDrain(); m.GetReason() != "the controller is stopping" || m.GetRetryDelay().AsDuration() >= Return {
				t.Errorf("the agent is told %v", m)
			}
			c.End("it left")
		}()
		f.Drain("the controller is stopping")
		if !isDone(b) || b.Why() != "the controller is stopping" || a.Why() != "before" || c.Why() != "it left" || !f.Draining() {
			t.Errorf("the sessions ended because of %q, %q and %q", a.Why(), b.Why(), c.Why())
		}
		if took := time.Since(began); took != drainWithin {
			t.Errorf("it took %v, want %v", took, drainWithin)
		}
		wantList(t, f, "", "fra-1 disconnected", "nyc-1 disconnected", "sin-1 disconnected")
	})
}

func TestManyMayComeAndGo(t *testing.T) {
	f := New()
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			name := fmt.Sprintf("fra-%d", i%4)
			for range 200 {
				s := connect(f, name)
				s.Heard(&synmeshv1.Heartbeat{})
				if other := f.Session(name); other != nil {
					other.Send(message("a"))
				}
				f.Agents(selector.Selector{})
				<-s.Queue()
				s.End("gone")
				<-s.Done()
			}
		})
	}
	all.Wait()
	wantList(t, f, "", "fra-0 disconnected", "fra-1 disconnected", "fra-2 disconnected", "fra-3 disconnected")
	if f.sessions != 1600 {
		t.Errorf("%d sessions began, want 1600", f.sessions)
	}
}

func TestWhoWasThereBeforeARestartIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New()
		changed := f.Changed()
		f.Recall([]Agent{
			{Name: "fra-1", Labels: map[string]string{"dc": "fra"}, LastSeen: time.Now()},
			{Name: "nyc-1", Labels: map[string]string{"dc": "nyc"}, LastSeen: time.Now().Add(-Forget + time.Minute), State: Connected},
			{Name: "sin-1", LastSeen: time.Now().Add(-Forget - 1)},
		})
		select {
		case <-changed:
		default:
			t.Error("nobody is told")
		}
		f.SetGossiped([]Agent{{Name: "fra-1"}})
		wantList(t, f, "", "fra-1 disconnected", "nyc-1 disconnected")
		wantList(t, f, "dc=fra", "fra-1 disconnected")
		if f.Session("fra-1") != nil {
			t.Error("it has a session")
		}
		connect(f, "fra-1")
		time.Sleep(2 * time.Minute)
		f.SetGossiped(nil)
		wantList(t, f, "", "fra-1 connected")
	})
}
