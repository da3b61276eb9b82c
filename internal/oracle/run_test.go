//go:build linux

package oracle_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/synmesh/synmesh/agent/session"
	"github.com/synmesh/synmesh/agent/spool"
	"github.com/synmesh/synmesh/controller/api/agents"
	"github.com/synmesh/synmesh/controller/api/runs"
	"github.com/synmesh/synmesh/controller/feed"
	"github.com/synmesh/synmesh/controller/fleet"
	"github.com/synmesh/synmesh/controller/history"
	"github.com/synmesh/synmesh/internal/convert"
	"github.com/synmesh/synmesh/internal/selector"
	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// gated is a history that has every report wait.
type gated struct {
	*history.Store
	gate func() error
}

// AppendEncoded implements agents.History.
func (g gated) AppendEncoded(ctx context.Context, agent string, r history.Encoded) (bool, error) {
	if err := g.gate(); err != nil {
		return false, err
	}
	return g.Store.AppendEncoded(ctx, agent, r)
}

// producing are the tasks of an agent that finds a result every millisecond, of the run and of a
// measurement, until it is stopped. Each is told by its round trip.
type producing struct {
	noTasks
	spool  *spool.Spool
	enough chan struct{}
	stop   func() // closes enough
	going  sync.WaitGroup
	made   atomic.Int64 // of the run
}

// StartRun implements session.Tasks.
func (p *producing) StartRun(m *synmeshv1.StartRun, _ time.Time) {
	p.going.Go(func() {
		r := probe.Result{Target: "db.fra:5432", Outcome: probe.Open, Attempts: 1, Stamp: probe.StampKernel, LocalPort: 61000}
		for {
			select {
			case <-p.enough:
				p.spool.EndRun(&synmeshv1.RunEnd{Run: m.GetRun(), Produced: uint64(p.made.Load())})
				return
			case <-time.After(time.Millisecond):
			}
			r.Source, r.Time, r.RTT = m.GetRun(), time.Now(), time.Duration(p.made.Add(1))
			p.spool.Add(&r)
			r.Source = "measurements/oracle"
			p.spool.Add(&r)
		}
	})
}

func (*producing) Connected()    {}
func (*producing) Disconnected() {}

// runOf is a run of one agent, with a history that is gated.
type runOf struct {
	*testing.T
	*producing
	stream grpc.ServerStreamingClient[synmeshv1.RunResponse]
	store  *history.Store
	name   string
	seen   map[time.Duration]bool
}

func begin(t *testing.T, gate func() error) *runOf {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	dir, log := t.TempDir(), slog.New(slog.DiscardHandler)
	store, err := history.Open(history.Config{Dir: filepath.Join(dir, "history"), Logger: log})
	must(err)
	s, err := spool.Open(spool.Config{Dir: filepath.Join(dir, "spool"), Logger: log})
	must(err)
	server, known, to := grpc.NewServer(grpc.ForceServerCodecV2(agents.NewCodec())), fleet.New(), feed.New()
	service := agents.Register(server, agents.Config{Admit: func(context.Context, string) error { return nil }, Fleet: known, Feed: to, History: gated{store, gate}, Logger: log})
	runs.Register(server, runs.Config{Fleet: known, Feed: to, Logger: log})
	address := filepath.Join(dir, "controller")
	l, err := net.Listen("unix", address)
	must(err)
	insecurely := grpc.WithTransportCredentials(insecure.NewCredentials())
	conn, err := grpc.NewClient("unix://"+address, insecurely)
	must(err)

	// What ends last is begun first.
	keep, release := context.WithCancel(context.Background())
	ctx, cancel := context.WithCancel(t.Context())
	p := &producing{spool: s, enough: make(chan struct{})}
	p.stop = sync.OnceFunc(func() { close(p.enough) })
	var kept, going errgroup.Group
	kept.Go(func() error { return store.Run(keep) })
	kept.Go(func() error { return s.Run(keep) })
	going.Go(func() error { return server.Serve(l) })
	going.Go(func() error {
		return session.Run(ctx, session.Config{Hello: &synmeshv1.Hello{Name: "fra-1"}, Controllers: func() []string { return []string{"unix://" + address} },
			DialOptions: []grpc.DialOption{insecurely}, Spool: s, Tasks: p, Spread: 100 * time.Millisecond, Logger: log})
	})
	t.Cleanup(func() {
		p.stop()
		p.going.Wait()
		cancel()
		must(conn.Close())
		server.Stop()
		must(going.Wait())
		service.Wait()
		release()
		must(kept.Wait())
		must(store.Close())
	})
	for deadline := time.Now().Add(patience); len(known.Agents(selector.Selector{})) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the agent is not connected after %v", patience)
		}
	}
	spec := &synmeshv1.ProbeSpec{Targets: []*synmeshv1.Target{{Name: "db.fra:5432"}}, Interval: durationpb.New(time.Second), Timeout: durationpb.New(time.Second), Flows: 1}
	within, done := context.WithTimeout(ctx, patience)
	t.Cleanup(done)
	stream, err := synmeshv1.NewRunServiceClient(conn).Run(within, &synmeshv1.RunRequest{Spec: spec})
	must(err)
	started, err := stream.Recv()
	must(err)
	return &runOf{T: t, producing: p, stream: stream, store: store, name: started.GetStarted().GetRun(), seen: make(map[time.Duration]bool)}
}

// read takes the next message of the run: none of its results has come before. At the end it
// returns nil.
func (r *runOf) read() *synmeshv1.RunResponse {
	r.Helper()
	m, err := r.stream.Recv()
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		r.Errorf("the run: %v", err)
		return nil
	}
	for _, one := range m.GetResults().GetResults() {
		if one.GetSource() != r.name || r.seen[one.GetRtt().AsDuration()] {
			r.Errorf("%v comes twice, or is not of %s", one, r.name)
		}
		r.seen[one.GetRtt().AsDuration()] = true
	}
	return m
}

// stored returns the results of the run that are stored; each is there once.
func (r *runOf) stored() map[time.Duration]bool {
	r.Helper()
	all := make(map[time.Duration]bool)
	for e, err := range r.store.Scan(r.Context(), time.Time{}, time.Time{}, nil) {
		if err != nil {
			r.Fatal(err)
		}
		for row := range convert.Rows(e.Agent, e.Report) {
			if row.Source == r.name && all[row.RTT] {
				r.Errorf("result %d is stored twice", row.RTT)
			}
			all[row.RTT] = all[row.RTT] || row.Source == r.name
		}
	}
	return all
}

func TestARunShowsResultsBeforeTheyAreStoredAndEndsWhenTheyAre(t *testing.T) {
	gate := make(chan struct{})
	free := sync.OnceFunc(func() { close(gate) })
	defer free()
	var waited atomic.Int64
	r := begin(t, func() error {
		<-gate
		time.Sleep(time.Duration(waited.Add(1)%4) * 5 * time.Millisecond) // a disk has its moods
		return nil
	})
	for len(r.seen) < 200 && r.read() != nil {
	}
	if n := len(r.stored()); n > 0 || len(r.seen) < 200 {
		t.Errorf("%d results were seen while nothing could be stored, and %d are", len(r.seen), n)
	}
	free()
	for before := len(r.seen); len(r.seen) < before+200 && r.read() != nil; {
	}
	r.stop()
	m := r.read()
	for m != nil && m.GetAgentEnded() == nil {
		m = r.read()
	}
	made := int(r.made.Load())
	if end := m.GetAgentEnded(); end == nil || end.GetError() != "" || end.GetMissing() > 0 || len(r.seen) != made {
		t.Errorf("%d results were seen of %d, and the run ended with %v", len(r.seen), made, end)
	}
	stored := r.stored()
	for rtt := range r.seen {
		if !stored[rtt] {
			t.Errorf("when the run had ended well, result %d was not stored", rtt)
		}
	}
}

func TestARunWhoseSessionIsLostSaysSoAndWhatWasSeenIsStored(t *testing.T) {
	const fails = 10
	var reports atomic.Int64
	r := begin(t, func() error {
		if reports.Add(1) == fails {
			return errors.New("there is no room")
		}
		return nil
	})
	m := r.read()
	for m != nil && m.GetAgentEnded() == nil {
		m = r.read()
	}
	r.stop()
	if end := m.GetAgentEnded(); !strings.Contains(end.GetError(), "it was lost") || len(r.seen) == 0 {
		t.Errorf("%d results were seen, and the run ended with %v", len(r.seen), end)
	}
	r.producing.going.Wait()
	for deadline := time.Now().Add(patience); r.spool.Status().Held > 0 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
	}
	stored := r.stored()
	for rtt := range time.Duration(r.made.Load()) {
		if !stored[rtt+1] {
			t.Errorf("result %d is not stored", rtt+1)
		}
	}
}
