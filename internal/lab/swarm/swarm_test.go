//go:build linux

package swarm_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/synmesh/synmesh/controller/history"
	"github.com/synmesh/synmesh/internal/convert"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// heartbeat is how often agents tell how they are.
const heartbeat = 5 * time.Second

func TestASwarm(t *testing.T) {
	s := size{agents: 50, spread: time.Second, watch: time.Second, rates: []float64{5}}
	if os.Getenv("SYNMESH_TORTURE") != "" {
		s = size{agents: 1000, spread: 30 * time.Second, watch: 20 * time.Second, rates: []float64{1, 10}}
	}
	b := newBench(t, s)
	b.startController()
	b.Logf("%d agents have enrolled after %v", s.agents, b.enrol())
	b.startAgents(nil, 0, s.agents)
	b.Logf("all hold a session after %v", b.gathered())
	b.clocks()
	b.watch("idle", s.watch)
	b.clocks()
	b.runAll()
	b.runAll()
	b.hurry()
	for _, rate := range s.rates {
		b.report(rate)
	}
	b.runAll()
	b.killController()
	b.runAll()
	b.balance()
}

// gathered returns how long it takes until all agents hold a session.
func (b *bench) gathered() time.Duration {
	b.Helper()
	return b.until("all agents hold a session", func(ctx context.Context) bool { return b.connected(ctx) == b.size.agents })
}

// clocks waits until each agent has compared its clock with the controller's, and looks
// how well: none may be further off than it says.
func (b *bench) clocks() {
	b.Helper()
	var agents []*synmeshv1.Agent
	b.until("all clocks are known", func(ctx context.Context) bool {
		agents = b.listed(ctx)
		return len(agents) == b.size.agents && !slices.ContainsFunc(agents, func(a *synmeshv1.Agent) bool { return a.GetClockOffset() == nil })
	})
	var off, told []time.Duration
	for i, a := range agents { // in the order of their names, which is that of their numbers
		wrong, within := a.GetClockOffset().AsDuration()-ahead(i), a.GetClockError().AsDuration()
		if wrong.Abs() > within {
			b.Errorf("the clock of %s is ahead by %v, and it says %v, give or take %v", a.GetName(), ahead(i), a.GetClockOffset().AsDuration(), within)
		}
		off, told = append(off, wrong.Abs()), append(told, within)
	}
	b.Logf("clocks are off by %s, and said to be so by less than %s", spread(off), spread(told))
}

// spread tells of some times, which it sorts.
func spread(all []time.Duration) string {
	slices.Sort(all)
	at := func(percent int) time.Duration { return all[(len(all)-1)*percent/100].Round(time.Microsecond) }
	return fmt.Sprintf("%v (median), %v (99 %%), %v (most)", at(50), at(99), at(100))
}

// targets is how many an agent has of a mesh. Of one or two it might be left with none:
// the plan holds targets to twice what an agent may spend.
const targets = 10

// report has a mesh measured with so many results a second of each agent, looks
// that each reports, and at what price.
func (b *bench) report(rate float64) {
	b.Helper()
	start, _ := b.produced(b.Context())
	_, err := synmeshv1.NewMeasurementServiceClient(b.operator).ApplyMeasurements(b.Context(), &synmeshv1.ApplyMeasurementsRequest{
		Measurements: []*synmeshv1.Measurement{{Name: "mesh", Destination: &synmeshv1.Measurement_Mesh{Mesh: &synmeshv1.Mesh{}},
			Interval: durationpb.New(time.Duration(targets / rate * float64(time.Second))), Budget: rate}}})
	b.must(err)
	b.until("all agents report", func(ctx context.Context) bool {
		now, _ := b.produced(ctx)
		return len(now) == b.size.agents && !slices.ContainsFunc(slices.Collect(maps.Keys(now)), func(name string) bool { return now[name] <= start[name] })
	})
	time.Sleep(heartbeat) // until each has told of this rate, and not of what was before
	// Agents tell every five seconds, so that over a multiple of that nothing is counted in or left out.
	before, _ := b.produced(b.Context())
	took := b.watch("with reports", (b.size.watch+heartbeat-1)/heartbeat*heartbeat)
	after, backlog := b.produced(b.Context())
	var all uint64
	for name, n := range after {
		if n <= before[name] {
			b.Errorf("%s has reported nothing in %v", name, took)
		}
		all += n - before[name]
	}
	b.Logf("%.0f results a second were reported, %d are on their way", float64(all)/took.Seconds(), backlog)
}

// produced returns how many results each agent has told of, and how many of all those
// are not acknowledged.
func (b *bench) produced(ctx context.Context) (all map[string]uint64, backlog uint64) {
	all = make(map[string]uint64)
	for _, a := range b.listed(ctx) {
		all[a.GetName()] = a.GetProduced()
		backlog += a.GetBacklog()
	}
	return all, backlog
}

// balance ends everything, and looks that each result of each agent is in the history,
// once, or was dropped and counted.
func (b *bench) balance() {
	b.Helper()
	_, err := synmeshv1.NewMeasurementServiceClient(b.operator).DeleteMeasurements(b.Context(), &synmeshv1.DeleteMeasurementsRequest{Names: []string{"mesh"}})
	b.must(err)
	time.Sleep(heartbeat) // until the last results are made
	ended := time.Now()
	due := make(map[string]uint64) // in the history
	b.until("all is stored", func(ctx context.Context) bool {
		heard := 0
		for _, a := range b.listed(ctx) {
			if a.GetBacklog() == 0 && a.GetLastSeenTime().AsTime().After(ended.Add(heartbeat)) {
				heard++
			}
			due[a.GetName()] = a.GetProduced() - a.GetDropped()
		}
		return heard == b.size.agents
	})
	b.stopAgents()
	b.stopController()
	store, err := history.Open(history.Config{Dir: filepath.Join(b.folder, "data", "history")})
	b.must(err)
	defer store.Close()
	stored, all := make(map[string]uint64), uint64(0)
	for e, err := range store.Scan(b.Context(), time.Time{}, time.Time{}, nil) {
		b.must(err)
		for range convert.Rows(e.Agent, e.Report) {
			stored[e.Agent]++
			all++
		}
	}
	for i := range b.size.agents {
		if name := nameOf(i); stored[name] != due[name] || due[name] == 0 {
			b.Errorf("of %s %d results are stored, and %d are due", name, stored[name], due[name])
		}
	}
	b.Logf("all of %d results are stored once", all)
}

// killController kills it, starts it again, and waits for the agents.
func (b *bench) killController() {
	b.Helper()
	b.must(b.controller.Process.Kill())
	_ = b.controller.Wait() // says that it was killed
	began := time.Now()
	b.startController()
	ready := time.Since(began)
	b.gathered()
	took := time.Since(began)
	b.Logf("the controller was killed; it answered again after %v, and had all sessions after %v", ready, took)
	if took > time.Minute {
		b.Errorf("the agents were not back within a minute")
	}
	b.watch("after the kill", b.size.watch)
}

// runAll has all agents measure until they are told to stop, and says how well they
// keep together. It returns how far apart they began.
func (b *bench) runAll() time.Duration {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	began := time.Now()
	stream, err := synmeshv1.NewRunServiceClient(b.operator).Run(ctx, &synmeshv1.RunRequest{Spec: &synmeshv1.ProbeSpec{
		Targets: []*synmeshv1.Target{{Name: runTarget, Address: runTarget}}, Interval: durationpb.New(time.Second), Timeout: durationpb.New(time.Second), Flows: 1}})
	b.must(err)
	var first, last time.Duration
	starts := make(map[string]time.Time)
	for len(starts) < b.size.agents {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			b.Fatalf("the run ended by itself after results of %d agents", len(starts))
		}
		b.must(err)
		if e := m.GetAgentEnded(); e != nil {
			b.Fatalf("%s has ended: %s", e.GetAgent(), e.GetError())
		}
		for _, r := range m.GetResults().GetResults() {
			if _, again := starts[r.GetAgent()]; again {
				continue
			}
			last = time.Since(began)
			if len(starts) == 0 {
				first = last
			}
			starts[r.GetAgent()] = r.GetTime().AsTime()
		}
	}
	left := time.Now()
	cancel()
	var stopped []time.Time
	b.until("all agents have stopped", func(context.Context) bool {
		stopped = b.diary.since("stopped", left)
		return len(stopped) == b.size.agents
	})
	all := slices.Collect(maps.Values(starts))
	start, behind := apart(all)
	_, due := apart(b.diary.since("due", began))
	heard := b.diary.since("told", began)
	late := 0
	for _, at := range heard {
		if at.After(start) {
			late++
		}
	}
	b.Logf("run: the first agent began %v after it was asked for, when %d of %d had not heard of it (the last of them %v before that), and the others %s later; they were to begin %s after the first that was; results of the first after %v, of the last after %v; all had stopped %v after the client left",
		start.Sub(began), late, len(heard), start.Sub(latest(heard)), spread(behind), spread(due), first, last, latest(stopped).Sub(left))
	return slices.Max(behind)
}

// apart returns the first of some times, and how much later each is.
func apart(all []time.Time) (first time.Time, later []time.Duration) {
	first = slices.MinFunc(all, time.Time.Compare)
	for _, at := range all {
		later = append(later, at.Sub(first))
	}
	return first, later
}

// hurry has all agents measure as fast as they may, to an end, and wants every result.
func (b *bench) hurry() {
	b.Helper()
	const count = 30
	began := time.Now()
	stream, err := synmeshv1.NewRunServiceClient(b.operator).Run(b.Context(), &synmeshv1.RunRequest{Spec: &synmeshv1.ProbeSpec{
		Targets: []*synmeshv1.Target{{Name: runTarget, Address: runTarget}}, Count: count,
		Interval: durationpb.New(100 * time.Millisecond), Timeout: durationpb.New(time.Second), Flows: 1}})
	b.must(err)
	got := make(map[string]int)
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		b.must(err)
		for _, r := range m.GetResults().GetResults() {
			got[r.GetAgent()]++
		}
		if e := m.GetAgentEnded(); e.GetError() != "" || e.GetMissing() > 0 {
			b.Errorf("%s: %d results are missing, and %q", e.GetAgent(), e.GetMissing(), e.GetError())
		}
	}
	for i := range b.size.agents {
		if n := got[nameOf(i)]; n != count {
			b.Errorf("%d results came of %s, want %d", n, nameOf(i), count)
		}
	}
	b.Logf("run of %d results of each agent, 10 a second: all were there after %v", count, time.Since(began))
}

func latest(all []time.Time) time.Time { return slices.MaxFunc(all, time.Time.Compare) }
