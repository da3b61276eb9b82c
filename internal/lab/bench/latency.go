//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

const (
	// watchedAgent is the name of the agent whose results are watched.
	watchedAgent = "watched"
	// watchedTargets is how many targets it probes, each once a second.
	watchedTargets = 100
	// loadedAgents and loadedRate are what the controller has to do besides.
	loadedAgents = 100
	loadedRate   = 100_000
	// syncRow is what rows are called that are about the disk alone.
	syncRow = "the disk alone, "
	// soon is how old results may be at the 99th percentile when a watcher has them.
	soon = 20 * time.Millisecond
)

// latencyRow is how old results were when a client had them.
type latencyRow struct {
	name          string
	compared      int
	p50, p99, max time.Duration
}

func newLatencyRow(name string, ages []time.Duration) (row latencyRow, err error) {
	if len(ages) == 0 {
		return row, fmt.Errorf("%s: no result has come", name)
	}
	slices.Sort(ages)
	last := len(ages) - 1
	return latencyRow{name, len(ages), ages[last/2], ages[last*99/100], ages[last]}, nil
}

// latency measures how long it takes from an answer on the wire until a client of the controller has the result.
func (b *suite) latency(ctx context.Context, p *page) (err error) {
	if b.bin == "" {
		return errors.New("latency: there is no probe-agent beside this program; `make build` makes it")
	}
	if err := b.calm(ctx); err != nil {
		return err
	}
	r, err := startReceiver(ctx, b.network.to, b.bin, withHTTP, loadedAgents)
	if err != nil {
		return fmt.Errorf("latency: %w", err)
	}
	defer func() { err = errors.Join(err, r.close()) }()
	stop, err := b.startWatched(ctx, r)
	if err != nil {
		return fmt.Errorf("latency: %w", err)
	}
	defer func() { err = errors.Join(err, stop()) }()
	if _, err := r.ages(ctx, "at first", warmUp/2); err != nil { // an agent that has just begun is collecting garbage
		return fmt.Errorf("latency: %w", err)
	}
	b.say("latency: of an idle controller, %v", b.latencyFor)
	rows, err := r.ages(ctx, "idle", b.latencyFor)
	if err != nil {
		return fmt.Errorf("latency: %w", err)
	}
	b.say("latency: of one that takes in %d results a second, %v", loadedRate, b.latencyFor)
	busy, taken, err := r.agesUnderLoad(ctx, b.latencyFor)
	if err != nil {
		return fmt.Errorf("latency: %w", err)
	}
	p.latency(append(rows, busy...), taken)
	return nil
}

// startWatched starts an enrolled agent on the other host.
func (b *suite) startWatched(ctx context.Context, r *receiver) (stop func() error, err error) {
	text, err := r.token(ctx, watchedAgent)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(r.at("token"), []byte(text), 0o600); err != nil {
		return nil, err
	}
	from, program := b.network.from, filepath.Join(b.bin, "probe-agent")
	controller := r.on.Addr4().String() + ":7400"
	if _, err := output(from, exec.CommandContext(ctx, program, "enroll", "--controller", controller, "--token-file", r.at("token"), "--state", r.at("state"))); err != nil {
		return nil, err
	}
	agent := exec.Command(program, "--controller", controller, "--state", r.at("state"))
	agent.Stdout, agent.Stderr = r.log, r.log
	if err := from.Start(agent); err != nil {
		return nil, err
	}
	stop = func() error {
		_ = agent.Process.Signal(syscall.SIGTERM) // it may have ended
		return agent.Wait()
	}
	err = eventually(ctx, "the agent is there", func(ctx context.Context) error {
		resp, err := synmeshv1.NewFleetServiceClient(r.operator).ListAgents(ctx, &synmeshv1.ListAgentsRequest{Selector: watchedAgent})
		if err == nil && len(resp.GetAgents()) == 0 {
			err = errors.New("it is not connected")
		}
		return err
	})
	if err != nil {
		return nil, errors.Join(err, stop())
	}
	return stop, nil
}

// ages has the agent probe for some time, and tells how old its results are for who has asked for
// them, and for who watches.
func (r *receiver) ages(ctx context.Context, when string, length time.Duration) ([]latencyRow, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	st, err := synmeshv1.NewRunServiceClient(r.operator).Run(ctx, &synmeshv1.RunRequest{Spec: watchedSpec(length), Selector: watchedAgent})
	if err != nil {
		return nil, err
	}
	m, err := st.Recv()
	if err != nil {
		return nil, err
	}
	run := m.GetStarted().GetRun()
	var asked, watched, synced []time.Duration
	var g errgroup.Group
	watching, leave := context.WithCancel(ctx)
	g.Go(func() (err error) {
		watched, err = r.watch(watching, run)
		return err
	})
	g.Go(func() (err error) {
		synced, err = syncs(watching, r.at("synced"))
		return err
	})
	for {
		m, err = st.Recv()
		if err != nil {
			break
		}
		asked = appendAges(asked, time.Now(), m.GetResults().GetResults())
		if why := m.GetAgentEnded().GetError(); why != "" {
			err = fmt.Errorf("the agent did not do all of it: %s", why)
			break
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	leave()
	if err := errors.Join(err, g.Wait()); err != nil {
		return nil, err
	}
	var rows []latencyRow
	for _, of := range []struct {
		what string
		ages []time.Duration
	}{{"Run, ", asked}, {"Watch, ", watched}, {syncRow, synced}} {
		row, err := newLatencyRow(of.what+when, of.ages)
		if err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// syncs tells how long the disk takes for a small write all the while, until the context ends.
func syncs(ctx context.Context, name string) (took []time.Duration, err error) {
	f, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(name)) }()
	every := time.NewTicker(50 * time.Millisecond)
	defer every.Stop()
	block := make([]byte, 4<<10)
	for {
		began := time.Now()
		if _, err := f.Write(block); err != nil {
			return nil, err
		}
		if err := f.Sync(); err != nil {
			return nil, err
		}
		took = append(took, time.Since(began))
		select {
		case <-every.C:
		case <-ctx.Done():
			return took, nil
		}
	}
}

// watchedSpec is what the agent is asked for.
func watchedSpec(length time.Duration) *synmeshv1.ProbeSpec {
	spec := &synmeshv1.ProbeSpec{Count: int64(max(length/time.Second, 1)), Interval: durationpb.New(time.Second), Timeout: durationpb.New(time.Second), Flows: 1}
	for i, a := 0, firstTarget; i < watchedTargets; i, a = i+1, a.Next() {
		spec.Targets = append(spec.Targets, &synmeshv1.Target{Name: fmt.Sprintf("%s:%d", a, port)})
	}
	return spec
}

// watch tells how old the results of a run are that come by Watch, until the context ends.
func (r *receiver) watch(ctx context.Context, source string) (ages []time.Duration, err error) {
	st, err := synmeshv1.NewResultServiceClient(r.operator).Watch(ctx, &synmeshv1.WatchRequest{Filter: &synmeshv1.SeriesFilter{Source: source}})
	if err != nil {
		return nil, err
	}
	for {
		m, err := st.Recv()
		if status.Code(err) == codes.Canceled {
			return ages, nil
		}
		if err != nil {
			return nil, err
		}
		ages = appendAges(ages, time.Now(), m.GetResults())
	}
}

// appendAges appends how long ago the answers came in.
func appendAges(ages []time.Duration, now time.Time, results []*synmeshv1.Result) []time.Duration {
	for _, one := range results {
		if one.GetOutcome() == synmeshv1.Outcome_OUTCOME_OPEN {
			ages = append(ages, now.Sub(one.GetTime().AsTime().Add(one.GetRtt().AsDuration())))
		}
	}
	return ages
}

// agesUnderLoad is ages while other agents report; taken is how they fared.
func (r *receiver) agesUnderLoad(ctx context.Context, length time.Duration) (rows []latencyRow, taken intakeRow, err error) {
	enough, stop := context.WithCancel(ctx)
	defer stop()
	var g errgroup.Group
	g.Go(func() (err error) {
		taken, err = r.run(ctx, func(context.Context) (context.Context, context.CancelFunc) { return enough, stop }, supply{rate: loadedRate})
		return err
	})
	select {
	case <-time.After(warmUp / 2):
		rows, err = r.ages(ctx, "busy", length)
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	stop()
	return rows, taken, errors.Join(err, g.Wait())
}
