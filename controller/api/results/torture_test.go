package results

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/synmesh/synmesh/controller/api/apitest"
	"github.com/synmesh/synmesh/controller/fleet"
	"github.com/synmesh/synmesh/controller/history"
	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// long is how long a file of the intake takes reports, and two rounds.
const long = 20 * time.Second

// load is a fleet of agents that probe each other, and those who read what it finds.
type load struct {
	*stored
	t      *testing.T
	dir    string
	agents int
	took   []*synmeshv1.Report // for each agent, a report of ten results of each of its series
	next   []uint64
}

func newLoad(t *testing.T, agents int) *load {
	dir := t.TempDir()
	// A file of the intake is archived while each thing is measured: that takes memory, too.
	l := &load{stored: onDisk(t, history.Config{Dir: dir, Rotation: long}), t: t, dir: dir, agents: agents, next: make([]uint64, agents)}
	for a := range agents {
		l.fleet.Connect(fleet.Agent{Name: l.name(a), Labels: map[string]string{"dc": fmt.Sprint(a % 10)}}, &synmeshv1.SessionResponse{})
		l.took = append(l.took, l.report(time.Now(), 10))
	}
	return l
}

func (l *load) name(a int) string { return fmt.Sprintf("agent-%03d", a) }

func (l *load) report(at time.Time, n int) *synmeshv1.Report {
	var all []probe.Result
	for target := range l.agents {
		all = append(all, apitest.Results(mesh, l.name(target), at, n)...)
	}
	return apitest.Report(1, 1, all)
}

// past fills the last hour.
func (l *load) past() {
	var agents sync.WaitGroup
	for a := range l.agents {
		agents.Go(func() {
			for second := range 120 {
				l.put(a, l.report(time.Now().Add(-time.Duration(second)*30*time.Second), 1))
			}
		})
	}
	agents.Wait()
	for sequence := uint64(1); ; sequence++ { // until it is archived
		if _, err := l.store.Append(context.Background(), "last", apitest.Report(1, sequence, apitest.Results(mesh, "x:1", time.Now(), 1))); err != nil {
			l.t.Fatal(err)
		}
		intake, err := filepath.Glob(filepath.Join(l.dir, "intake-*.db"))
		raw, err2 := filepath.Glob(filepath.Join(l.dir, "raw-*.db"))
		if err != nil || err2 != nil {
			l.t.Fatal(err, err2)
		}
		if len(intake) == 1 && len(raw) > 0 {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func (l *load) put(a int, r *synmeshv1.Report) {
	l.next[a]++
	r.Sequence = l.next[a]
	if ok, err := l.store.Append(context.Background(), l.name(a), r); err != nil || !ok {
		l.t.Error(ok, err)
	}
}

// take appends for some time, a report of each agent every interval, or as many as it can if that is 0. It
// returns the results a second, the 99th percentile of what a report took, and the most memory in use meanwhile.
func (l *load) take(during, every time.Duration) (rate float64, p99 time.Duration, memory uint64) {
	began, before := time.Now(), l.store.Stats().Results
	var mu sync.Mutex
	var waits []time.Duration
	var agents sync.WaitGroup
	for a := range l.agents {
		agents.Go(func() {
			due := began.Add(every * time.Duration(a) / time.Duration(l.agents))
			for time.Since(began) < during {
				time.Sleep(time.Until(due))
				due = due.Add(every)
				asked := time.Now()
				l.put(a, l.took[a])
				mu.Lock()
				waits = append(waits, time.Since(asked))
				mu.Unlock()
			}
		})
	}
	done := make(chan struct{})
	go func() { agents.Wait(); close(done) }()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			memory = max(memory, m.HeapInuse+m.StackInuse)
			continue
		case <-done:
		}
		slices.Sort(waits)
		return float64(l.store.Stats().Results-before) / time.Since(began).Seconds(), waits[len(waits)*99/100], memory
	}
}

// unread is how messages are encoded for a client that counts answers, and keeps its memory out of what is measured.
type unread struct{ encoding.CodecV2 }

func (unread) Unmarshal(mem.BufferSlice, any) error { return nil }

// read has readers ask for an hour of one agent and for the matrix, once a second each, and watchers, of whom one
// does not read, until the context ends. It returns how many answers there were.
func (l *load) read(ctx context.Context, readers, watchers int) (answers, watched *atomic.Int64, wait func()) {
	answers, watched = new(atomic.Int64), new(atomic.Int64)
	var all sync.WaitGroup
	codec := grpc.ForceCodecV2(unread{encoding.GetCodecV2("proto")})
	failed := func(err error) {
		if c := status.Code(err); err != nil && c != codes.Canceled && c != codes.Unavailable {
			l.t.Error(err)
		}
	}
	for i := range readers {
		all.Go(func() {
			tick := time.NewTicker(time.Second)
			defer tick.Stop()
			for ctx.Err() == nil {
				_, err := l.client.Query(ctx, &synmeshv1.QueryRequest{Filter: &synmeshv1.SeriesFilter{Source: mesh, Agents: l.name(i)},
					Step: durationpb.New(time.Minute), Quantiles: []float64{0.5, 0.99}, PageSize: 100}, codec)
				failed(err)
				_, err = l.client.Matrix(ctx, &synmeshv1.MatrixRequest{Source: mesh, GroupBy: "dc", Window: durationpb.New(time.Hour)}, codec)
				failed(err)
				answers.Add(2)
				select {
				case <-tick.C:
				case <-ctx.Done():
				}
			}
		})
	}
	for i := range watchers {
		stream, err := l.client.Watch(ctx, &synmeshv1.WatchRequest{Filter: &synmeshv1.SeriesFilter{Agents: l.name(i), Targets: []string{l.name(0)}}})
		failed(err)
		all.Go(func() {
			for {
				m, err := stream.Recv()
				if err != nil {
					failed(err)
					return
				}
				watched.Add(int64(len(m.GetResults())))
			}
		})
	}
	_, err := l.client.Watch(ctx, &synmeshv1.WatchRequest{}) // it wants everything, and reads nothing
	failed(err)
	return answers, watched, all.Wait
}

// follow appends a result of a run now and then, and returns, once the context has ended, how
// long it took each from then to a watcher's hands.
func (l *load) follow(ctx context.Context) func() []time.Duration {
	const run = "runs/a"
	stream, err := l.client.Watch(ctx, &synmeshv1.WatchRequest{Filter: &synmeshv1.SeriesFilter{Source: run}})
	if err != nil {
		l.t.Error(err)
	}
	var delays []time.Duration
	var both sync.WaitGroup
	both.Go(func() {
		for {
			m, err := stream.Recv()
			if err != nil {
				return
			}
			for _, r := range m.GetResults() {
				delays = append(delays, time.Since(r.GetTime().AsTime()))
			}
		}
	})
	both.Go(func() {
		epoch := uint64(time.Now().UnixNano())
		for i := uint64(1); ctx.Err() == nil; i++ {
			if _, err := l.store.Append(ctx, "runner", apitest.Report(epoch, i, apitest.Results(run, "x:1", time.Now(), 1))); err != nil && ctx.Err() == nil {
				l.t.Error(err)
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
	return func() []time.Duration {
		both.Wait()
		slices.Sort(delays)
		return delays
	}
}

// figures are those of some rounds.
type figures struct {
	rates  []float64
	p99    time.Duration // of the worst
	memory uint64        // the most
}

func (f *figures) add(rate float64, p99 time.Duration, memory uint64) {
	f.rates = append(f.rates, rate)
	f.p99, f.memory = max(f.p99, p99), max(f.memory, memory)
}

func (f *figures) rate() (mean float64) {
	for _, r := range f.rates {
		mean += r / float64(len(f.rates))
	}
	return mean
}

// Twenty readers and a watcher that does not read: what becomes of the intake, and of memory? It is
// measured with and without them in turn, for what is archived meanwhile, and how full the disk's queue is, makes more of a difference.
func TestTortureReadersAndTheIntake(t *testing.T) {
	if os.Getenv("SYNMESH_TORTURE") == "" {
		t.Skip("set SYNMESH_TORTURE=1 for this")
	}
	const rounds = 3
	l := newLoad(t, 100)
	l.past()
	for _, every := range []time.Duration{time.Second, 0} {
		l.take(long/4, every) // so that all buffers are there
		ctx, leave := context.WithCancel(t.Context())
		delays := l.follow(ctx)
		_, _, memory := l.take(long, every) // before anybody asks, of whom something stays in memory
		leave()
		d := delays()
		t.Logf("a report of each agent every %v, and a run's result is in a watcher's hands after %v (p50), %v (p99)", every, d[len(d)/2], d[len(d)*99/100])
		var alone, beside figures
		var answers, watched int64
		for i := range 2 * rounds {
			if i%4 == 0 || i%4 == 3 {
				alone.add(l.take(long/2, every))
				continue
			}
			ctx, leave := context.WithCancel(t.Context())
			a, w, wait := l.read(ctx, 20, 5)
			beside.add(l.take(long/2, every))
			answers += a.Load()
			leave()
			wait()
			watched += w.Load()
		}
		t.Logf("a report of each agent every %v: %.0f results/s, p99 %v, %d MB; with readers %.0f (%+.1f %%), p99 %v, %d MB (%+d); %.0f answers/s, %d results watched", every,
			alone.rate(), alone.p99.Round(time.Microsecond), memory>>20, beside.rate(), 100*(beside.rate()/alone.rate()-1), beside.p99.Round(time.Microsecond),
			beside.memory>>20, int64(beside.memory>>20)-int64(memory>>20), float64(answers)/(rounds*long/2).Seconds(), watched)
		t.Logf("rates of the rounds, in thousands: %.0f; with readers: %.0f", thousands(alone.rates), thousands(beside.rates))
		if watched == 0 {
			t.Error("nothing was watched")
		}
	}
}

func thousands(rates []float64) (list []float64) {
	for _, r := range rates {
		list = append(list, r/1000)
	}
	return list
}
