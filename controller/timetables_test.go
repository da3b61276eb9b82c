package controller

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/synmesh/synmesh/controller/api/apitest"
	"github.com/synmesh/synmesh/controller/catalogue"
	"github.com/synmesh/synmesh/controller/fleet"
	"github.com/synmesh/synmesh/internal/identity"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

func mesh(name string) *synmeshv1.Measurement {
	return &synmeshv1.Measurement{Name: name, Destination: &synmeshv1.Measurement_Mesh{Mesh: &synmeshv1.Mesh{}}}
}

// planned runs timetables over a mesh, in a bubble of synctest.
func planned(t *testing.T, f func(*fleet.Fleet, *apitest.Measurements)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		store := apitest.NewMeasurements(mesh("mesh"))
		tables := newTimetables(fleet.New(), catalogue.New(nil, store), slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- tables.run(ctx) }()
		synctest.Wait()
		f(tables.fleet, store)
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
	planned(t, func(f *fleet.Fleet, _ *apitest.Measurements) {
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
	planned(t, func(f *fleet.Fleet, _ *apitest.Measurements) {
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
	planned(t, func(f *fleet.Fleet, _ *apitest.Measurements) {
		var seen uint64
		fra, nyc := connect(f, "fra-1"), connect(f, "nyc-1")
		nyc.End("gone")
		time.Sleep(fleet.Forget)
		wantTables(t, fra, &seen, "nyc-1")
		time.Sleep(refresh + settle)
		wantTables(t, fra, &seen, "")
	})
}

func TestTimetablesFollowTheMeasurements(t *testing.T) {
	planned(t, func(f *fleet.Fleet, store *apitest.Measurements) {
		var seen uint64
		fra := connect(f, "fra-1")
		connect(f, "nyc-1").End("gone") // and is probed
		time.Sleep(settle)
		wantTables(t, fra, &seen, "nyc-1")
		change := func(put []*synmeshv1.Measurement, remove ...string) {
			t.Helper()
			if err := store.ChangeMeasurements(t.Context(), identity.Identity{}, put, remove); err != nil {
				t.Fatal(err)
			}
			time.Sleep(settle)
		}
		ends := mesh("more")
		ends.ExpireTime = timestamppb.New(time.Now().Add(10 * time.Second))
		change([]*synmeshv1.Measurement{ends})
		wantTables(t, fra, &seen, "nyc-1 nyc-1")
		change(nil, "mesh")
		wantTables(t, fra, &seen, "nyc-1")
		change(nil)
		wantTables(t, fra, &seen) // nothing has changed for anybody
		time.Sleep(10 * time.Second)
		wantTables(t, fra, &seen, "") // it has ended by itself, sooner than at a refresh
	})
}

// One that joins is told to those that probe it, and to nobody else.
func TestWhoIsNotConcernedIsNotToldAgain(t *testing.T) {
	planned(t, func(f *fleet.Fleet, _ *apitest.Measurements) {
		var sessions []*fleet.Session
		for i := range 200 {
			sessions = append(sessions, connect(f, fmt.Sprintf("fra-%03d", i)))
		}
		time.Sleep(settle)
		synctest.Wait()
		for _, s := range sessions {
			for len(s.Queue()) > 0 {
				<-s.Queue()
			}
		}
		connect(f, "nyc-1")
		time.Sleep(settle)
		synctest.Wait()
		told, probing := 0, 0
		for _, s := range sessions {
			if len(s.Queue()) == 0 {
				continue
			}
			told++
			for _, target := range (<-s.Queue()).GetTimetable().GetEntries()[0].GetSpec().GetTargets() {
				if target.GetName() == "nyc-1" {
					probing++
				}
			}
		}
		if told == 0 || told != probing || told > 100 {
			t.Errorf("%d of 200 agents were told anew; %d of them probe the new one", told, probing)
		}
	})
}
