package runs

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/synmesh/synmesh/controller/fleet"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

func TestARunBeginsWhenTheLastAgentCanHaveHeardOfIt(t *testing.T) {
	known := func(delay time.Duration) fleet.Agent {
		return fleet.Agent{Health: fleet.Health{ClockKnown: true, ClockError: delay, ClockOffset: time.Hour}}
	}
	for _, tt := range []struct {
		name   string
		agents []fleet.Agent
		want   time.Duration
	}{
		{"at once if nothing is known", []fleet.Agent{{}}, telling},
		{"after the delay of the farthest", []fleet.Agent{known(time.Millisecond), known(80 * time.Millisecond), {}}, 80*time.Millisecond + 3*telling},
		{"when all of many can have been told", slices.Repeat([]fleet.Agent{known(200 * time.Microsecond)}, 1000), 150*time.Millisecond + 200*time.Microsecond},
		{"but no agent keeps the others waiting for long", []fleet.Agent{known(0), known(time.Hour)}, maxMargin},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := margin(tt.agents); got != tt.want {
				t.Errorf("it begins after %v, want %v", got, tt.want)
			}
		})
	}
}

func TestAllAgentsAreToldTheSameTime(t *testing.T) {
	bubble(t, func(b *bench) {
		var players []*player
		var names []string
		for i := range 5 {
			p := b.join(fmt.Sprintf("fra-%d", i))
			p.session.Heard(&synmeshv1.Heartbeat{ClockOffset: durationpb.New(time.Hour), ClockError: durationpb.New(time.Duration(i) * 10 * time.Millisecond)})
			players, names = append(players, p), append(names, p.name)
		}
		began := time.Now()
		v := b.start("", spec(1, "db.fra:5432"), names...)
		for _, p := range players {
			at := (<-p.session.Queue()).GetStartRun().GetStartTime().AsTime()
			if in := at.Sub(began); in != 40*time.Millisecond+5*telling {
				t.Errorf("%s is told to begin after %v", p.name, in)
			}
		}
		v.leave()
		for _, p := range players {
			if got := strings.Join(p.told(), ", "); got != "cancel "+v.run {
				t.Errorf("%s was told %q", p.name, got)
			}
		}
	})
}
