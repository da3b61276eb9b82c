package controller

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/synmesh/synmesh/controller/api/apitest"
	"github.com/synmesh/synmesh/controller/fleet"
	"github.com/synmesh/synmesh/controller/registry"
	"github.com/synmesh/synmesh/internal/selector"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// noted is a fleet whose roster is kept; restart is a controller that starts again after some
// time, with what was kept.
type noted struct {
	*fleet.Fleet
	kept keeper
	stop func()
	log  strings.Builder
}

func (n *noted) start(t *testing.T) {
	t.Helper()
	n.Fleet = fleet.New()
	r, err := openRoster(n.Fleet, n.kept, slog.New(slog.NewTextHandler(&n.log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- r.run(ctx) }()
	n.stop = func() {
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
	}
}

func (n *noted) restart(t *testing.T, away time.Duration) {
	t.Helper()
	n.Drain("the controller is stopping")
	time.Sleep(2 * noteAfter) // some calls may end late
	n.stop()
	time.Sleep(away)
	n.start(t)
}

// list returns who is known, and who of them is connected.
func (n *noted) list() (all []string) {
	for _, a := range n.Agents(selector.Selector{}) {
		name := a.Name + " in " + a.Labels["dc"]
		if a.State == fleet.Connected {
			name += ", connected"
		}
		all = append(all, name)
	}
	return all
}

func (n *noted) want(t *testing.T, want ...string) {
	t.Helper()
	if got := n.list(); !slices.Equal(got, want) {
		t.Fatalf("known are %q, want %q", got, want)
	}
}

func (n *noted) join(name, dc string) *fleet.Session {
	return n.Connect(fleet.Agent{Name: name, Labels: map[string]string{"dc": dc}, Responder: "10.0.0.1:7401"}, &synmeshv1.SessionResponse{})
}

func TestAControllerThatStartsAgainKnowsItsAgents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &noted{kept: apitest.NewMembers(t).Registry}
		n.start(t)
		defer func() { n.stop() }()
		n.want(t)
		n.join("fra-1", "fra")
		time.Sleep(2 * noteAfter)
		n.join("fra-2", "fra").End("gone")
		time.Sleep(2 * noteAfter)
		n.restart(t, 2*fleet.Forget) // they have left because of us
		n.want(t, "fra-1 in fra")
		if a := n.Agents(selector.Selector{})[0]; a.Responder != "10.0.0.1:7401" || a.State != fleet.Disconnected {
			t.Errorf("known is %+v", a)
		}
		n.join("fra-1", "nyc") // it has moved
		n.join("fra-3", "fra").End("gone")
		time.Sleep(2 * noteAfter)
		n.restart(t, time.Minute)
		n.want(t, "fra-1 in nyc", "fra-3 in fra")
		n.restart(t, fleet.Forget-time.Minute)
		n.want(t, "fra-1 in nyc") // the other has been away for an hour
		time.Sleep(fleet.Forget + time.Second)
		n.want(t)
		n.SetGossiped([]fleet.Agent{{Name: "sin-1"}})
		n.join("fra-4", "fra")
		time.Sleep(2 * noteAfter)
		kept, err := n.kept.Seen()
		if err != nil || len(kept) != 1 || kept[0].Name != "fra-4" {
			t.Errorf("kept are %+v, %v", kept, err)
		}
	})
}

// full is a keeper without room.
type full struct{ keeper }

func (full) Remember([]registry.Seen, []string) error { return errors.New("no space left on device") }

func TestAFleetThatCannotBeWrittenDownGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := apitest.NewMembers(t)
		n := &noted{kept: full{m.Registry}}
		n.start(t)
		defer func() { n.stop() }()
		n.join("fra-1", "fra")
		time.Sleep(2 * noteAfter)
		n.want(t, "fra-1 in fra, connected")
		synctest.Wait()
		if !strings.Contains(n.log.String(), "no space left on device") {
			t.Errorf("the log says %q", n.log.String())
		}
		n.kept = m.Registry
		n.restart(t, 0)
		n.join("fra-2", "fra")
		time.Sleep(2 * noteAfter)
		n.restart(t, 0)
		n.want(t, "fra-2 in fra")
	})
}

// targets returns whom the next timetable has an agent probe.
func targets(a *apitest.Agent) (names []string) {
	for _, e := range a.Recv().GetTimetable().GetEntries() {
		for _, target := range e.GetSpec().GetTargets() {
			names = append(names, target.GetName())
		}
	}
	return names
}

// Who comes back first is not told that there is nobody to probe.
func TestTimetablesAreTheSameAfterARestart(t *testing.T) {
	cfg := config(t.TempDir())
	cfg.Measurements = []*synmeshv1.Measurement{mesh("mesh")}
	c := start(t, cfg)
	fra, _ := c.join(t, "fra-1")
	c.join(t, "nyc-1")
	c.join(t, "sin-1")
	before := targets(fra)
	for len(before) < 2 {
		before = targets(fra)
	}
	for all, err := c.registry.Seen(); len(all) < 3; all, err = c.registry.Seen() {
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(noteAfter / 100)
	}
	c.stop()
	again := start(t, cfg)
	again.agents = c.agents
	fra, _ = again.join(t, "fra-1")
	if after := targets(fra); !slices.Equal(after, before) {
		t.Errorf("after the restart it is told to probe %q, and before %q", after, before)
	}
}
