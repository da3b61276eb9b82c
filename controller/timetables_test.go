package controller

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/synmesh/synmesh/controller/fleet"
	"github.com/synmesh/synmesh/controller/plan"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// planned runs timetables over a mesh, in a bubble of synctest.
func planned(t *testing.T, f func(*fleet.Fleet)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m, err := plan.Parse(&synmeshv1.Measurement{Name: "mesh", Destination: &synmeshv1.Measurement_Mesh{Mesh: &synmeshv1.Mesh{}}})
		if err != nil {
			t.Fatal(err)
		}
		tables := &timetables{fleet: fleet.New(), measurements: []plan.Measurement{m}}
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- tables.run(ctx) }()
		synctest.Wait()
		f(tables.fleet)
		cancel()
		if err := <-ran; err != nil {
			t.Errorf("run: %v", err)
		}
	})
}

func connect(f *fleet.Fleet, name string) *fleet.Session {
	s := f.Connect(fleet.Agent{Name: name, Responder: "10.0.0.1:7401"}, &synmeshv1.SessionResponse{})
	<-s.Queue() // the welcome
	return s
}

// wantTables looks at the timetables a session has been sent: of each, the
// names of the targets. Their versions rise.
func wantTables(t *testing.T, s *fleet.Session, last *uint64, want ...string) {
	t.Helper()
	synctest.Wait()
	var got []string
	for len(s.Queue()) > 0 {
		m := (<-s.Queue()).GetTimetable()
		if m.GetVersion() <= *last {
			t.Errorf("version %d comes after %d", m.GetVersion(), *last)
		}
		*last = m.GetVersion()
		var names []string
		for _, e := range m.GetEntries() {
			for _, target := range e.GetSpec().GetTargets() {
				names = append(names, target.GetName())
			}
		}
		got = append(got, strings.Join(names, " "))
	}
	if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
		t.Errorf("got the timetables %q, want %q", got, want)
	}
}

func TestTimetablesFollowTheFleet(t *testing.T) {
	planned(t, func(f *fleet.Fleet) {
		var seen uint64
		fra := connect(f, "fra-1")
		time.Sleep(settle)
		wantTables(t, fra, &seen, "") // nothing to do is told as well
		nyc := connect(f, "nyc-1")
		time.Sleep(settle)
		wantTables(t, fra, &seen, "nyc-1")
		wantTables(t, nyc, new(uint64), "fra-1")
		nyc.End("gone")
		time.Sleep(settle)
		wantTables(t, fra, &seen) // it is probed on, so nothing changes
		nyc = connect(f, "nyc-1")
		time.Sleep(settle)
		wantTables(t, fra, &seen)
		wantTables(t, nyc, new(uint64), "fra-1") // a new session knows nothing
		time.Sleep(24 * time.Hour)
		wantTables(t, fra, &seen)
	})
}

func TestACrowdThatJoinsIsPlannedOnce(t *testing.T) {
	planned(t, func(f *fleet.Fleet) {
		seen := new(uint64)
		fra := connect(f, "fra-1")
		for i := range 20 {
			connect(f, fmt.Sprint("nyc-", i))
			time.Sleep(settle / 100)
		}
		time.Sleep(settle)
		if n := len(fra.Queue()); n > 2 {
			t.Errorf("%d timetables were sent for one crowd", n)
		}
		for len(fra.Queue()) > 1 {
			<-fra.Queue()
		}
		if n := len((<-fra.Queue()).GetTimetable().GetEntries()[0].GetSpec().GetTargets()); n != 20 {
			t.Errorf("the last has %d targets, want 20", n)
		}
		wantTables(t, fra, seen)
	})
}

func TestWhoIsForgottenIsNoLongerProbed(t *testing.T) {
	planned(t, func(f *fleet.Fleet) {
		var seen uint64
		fra, nyc := connect(f, "fra-1"), connect(f, "nyc-1")
		nyc.End("gone")
		time.Sleep(fleet.Forget)
		wantTables(t, fra, &seen, "nyc-1")
		time.Sleep(refresh + settle)
		wantTables(t, fra, &seen, "")
	})
}
