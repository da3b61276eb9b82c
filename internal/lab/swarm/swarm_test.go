//go:build linux

package swarm_test

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

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
	b.watch("idle", s.watch)
	b.runAll()
	b.runAll()
	b.hurry()
	for _, rate := range s.rates {
		b.report(rate)
	}
	b.runAll()
	b.killController()
	b.runAll()
}

// gathered returns how long it takes until all agents hold a session.
func (b *bench) gathered() time.Duration {
	b.Helper()
	return b.until("all agents hold a session", func(ctx context.Context) bool { return b.connected(ctx) == b.size.agents })
}

// report has a mesh measured with so many results a second of each agent, looks how
// many are stored, and at what price.
func (b *bench) report(rate float64) {
	b.Helper()
	_, err := synmeshv1.NewMeasurementServiceClient(b.operator).ApplyMeasurements(b.Context(), &synmeshv1.ApplyMeasurementsRequest{
		Measurements: []*synmeshv1.Measurement{{Name: "mesh", Destination: &synmeshv1.Measurement_Mesh{Mesh: &synmeshv1.Mesh{}},
			Interval: durationpb.New(time.Second), Budget: rate}}})
	b.must(err)
	produced := func(ctx context.Context) (all, backlog uint64, silent int) {
		for _, a := range b.listed(ctx) {
			all, backlog = all+a.GetProduced(), backlog+a.GetBacklog()
			if a.GetProduced() == 0 {
				silent++
			}
		}
		return all, backlog, silent
	}
	b.until("all agents report", func(ctx context.Context) bool { _, _, silent := produced(ctx); return silent == 0 })
	b.until("all agents have told of it", func(ctx context.Context) bool {
		return !slices.ContainsFunc(b.listed(ctx), func(a *synmeshv1.Agent) bool { return a.GetProduced() < uint64(rate) })
	})
	time.Sleep(heartbeat) // until each has told of this rate, and not of what was before
	// Agents tell every five seconds, so that over a multiple of that nothing is counted in or left out.
	first, _, _ := produced(b.Context())
	took := b.watch("with reports", (b.size.watch+heartbeat-1)/heartbeat*heartbeat)
	last, backlog, _ := produced(b.Context())
	b.Logf("%.0f results a second were reported, %d are on their way", float64(last-first)/took.Seconds(), backlog)
	if last == first {
		b.Error("no results came")
	}
}

// killController kills it, starts it again, and waits for the agents.
func (b *bench) killController() {
	b.Helper()
	b.end(b.controller, syscall.SIGKILL)
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
	var all []time.Time
	for _, at := range starts {
		all = append(all, at)
	}
	start := earliest(all)
	heard := b.diary.since("told", began)
	late := 0
	for _, at := range heard {
		if at.After(start) {
			late++
		}
	}
	b.Logf("run: the first agent began %v after it was asked for, when %d of %d had not heard of it (the last of them %v before that), and the last began %v later; results of the first after %v, of the last after %v; all had stopped %v after the client left",
		start.Sub(began), late, len(heard), start.Sub(latest(heard)), latest(all).Sub(start), first, last, latest(stopped).Sub(left))
	return latest(all).Sub(start)
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

func earliest(all []time.Time) time.Time { return slices.MinFunc(all, time.Time.Compare) }
func latest(all []time.Time) time.Time   { return slices.MaxFunc(all, time.Time.Compare) }
