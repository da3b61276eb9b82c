package results

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/synmesh/synmesh/controller/api/apitest"
	"github.com/synmesh/synmesh/controller/fleet"
	"github.com/synmesh/synmesh/controller/history"
	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// stored is the service with a history on disk.
type stored struct {
	store   *history.Store
	fleet   *fleet.Fleet
	service *Service
	client  synmeshv1.ResultServiceClient
	stop    func() // ends all of it, once
}

// onDisk opens a history and serves it.
func onDisk(t testing.TB, cfg history.Config) *stored {
	t.Helper()
	store, err := history.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	b := &stored{store: store, fleet: fleet.New()}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- store.Run(ctx) }()
	b.stop = sync.OnceFunc(func() {
		b.service.Stop()
		cancel()
		if err := errors.Join(<-ended, store.Close()); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(b.stop)
	b.client = synmeshv1.NewResultServiceClient(apitest.Dial(t, func(r grpc.ServiceRegistrar) { b.service = Register(r, store, b.fleet) }))
	return b
}

func (b *stored) append(t testing.TB, agent string, sequence uint64, results []probe.Result) {
	t.Helper()
	if ok, err := b.store.Append(t.Context(), agent, apitest.Report(1, sequence, results)); err != nil || !ok {
		t.Fatal(ok, err)
	}
}

// at is a time that the archive keeps as it is.
func at() time.Time { return time.Now().Truncate(time.Millisecond) }

func watch(t testing.TB, c synmeshv1.ResultServiceClient, req *synmeshv1.WatchRequest) (grpc.ServerStreamingClient[synmeshv1.WatchResponse], context.CancelFunc) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	stream, err := c.Watch(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	return stream, cancel
}

func receive(t testing.TB, stream grpc.ServerStreamingClient[synmeshv1.WatchResponse]) *synmeshv1.WatchResponse {
	t.Helper()
	m, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestAWatchBeginsNow(t *testing.T) {
	b := onDisk(t, history.Config{Dir: t.TempDir()})
	b.append(t, "fra-1", 1, apitest.Results(mesh, "nyc-1", at(), 3))
	stream, leave := watch(t, b.client, &synmeshv1.WatchRequest{})
	first := receive(t, stream)
	if len(first.GetResults()) != 0 || first.GetCursor() == "" || first.GetGap() {
		t.Fatalf("the first response is %v, want one with nothing but a cursor", first)
	}
	leave()
	b.append(t, "fra-1", 2, apitest.Results(mesh, "nyc-1", at(), 2))
	stream, _ = watch(t, b.client, &synmeshv1.WatchRequest{Cursor: first.GetCursor()})
	if m := receive(t, stream); len(m.GetResults()) != 2 || m.GetGap() {
		t.Errorf("from the cursor on come %d results, want the 2 that were stored since", len(m.GetResults()))
	}
	b.append(t, "nyc-1", 1, apitest.Results(mesh, "fra-1", at(), 1))
	if m := receive(t, stream); len(m.GetResults()) != 1 || m.GetResults()[0].GetAgent() != "nyc-1" {
		t.Errorf("got %v", m)
	}
}

// watcher goes away and comes back at random, and collects what it is given.
type watcher struct {
	filter *synmeshv1.SeriesFilter
	cursor string
	got    []string
	parts  int // responses that ended within a report
}

// until reads until it has so many results.
func (w *watcher) until(t *testing.T, rnd *rand.Rand, c synmeshv1.ResultServiceClient, n int) {
	for len(w.got) < n {
		ctx, cancel := context.WithCancel(t.Context())
		stream, err := c.Watch(ctx, &synmeshv1.WatchRequest{Filter: w.filter, Cursor: w.cursor})
		for left := rnd.IntN(12); err == nil && left >= 0 && (w.cursor == "" || len(w.got) < n); left-- {
			var m *synmeshv1.WatchResponse
			if m, err = stream.Recv(); err != nil {
				break
			}
			if m.GetGap() || proto.Size(m) > maxMessage {
				t.Errorf("a response of %d bytes, gap %v", proto.Size(m), m.GetGap())
			}
			w.got, w.cursor = append(w.got, names(m.GetResults())...), m.GetCursor()
			if strings.Count(w.cursor, ".") == 2 {
				w.parts++
			}
		}
		cancel()
		if err != nil {
			t.Errorf("after %d of %d results: %v", len(w.got), n, err)
			return
		}
	}
}

// Whoever goes on from the last cursor gets every result once, in the order of its agent, though reports come from
// many agents meanwhile, some larger than a message, files are archived, and the controller starts again.
func TestWatchersGetEachResultOnce(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	cfg := history.Config{Dir: t.TempDir(), Rotation: 40 * time.Millisecond}
	watchers := []*watcher{
		{}, {filter: &synmeshv1.SeriesFilter{Source: "runs/a"}}, {filter: &synmeshv1.SeriesFilter{Agents: "agent-2"}},
		{filter: &synmeshv1.SeriesFilter{Source: mesh, Targets: []string{"x:1"}}},
	}
	want := make([][]string, len(watchers))
	sequences := make([]uint64, 5)
	for life := range 3 {
		b := onDisk(t, cfg)
		for _, w := range watchers {
			if w.cursor == "" {
				stream, leave := watch(t, b.client, &synmeshv1.WatchRequest{Filter: w.filter})
				w.cursor = receive(t, stream).GetCursor()
				leave()
			}
		}
		var mu sync.Mutex
		var reporting, watching sync.WaitGroup
		for a := range sequences {
			rnd := rand.New(rand.NewPCG(seed, uint64(10*life+a)))
			reporting.Go(func() {
				for range 15 {
					sequences[a]++
					results := someResults(rnd, sequences[a])
					b.append(t, fmt.Sprintf("agent-%d", a), sequences[a], results)
					mu.Lock()
					for i, w := range watchers {
						want[i] = append(want[i], namesOf(fmt.Sprintf("agent-%d", a), results, w.filter)...)
					}
					mu.Unlock()
					time.Sleep(time.Duration(rnd.IntN(4)) * time.Millisecond) // the files are to have some age
				}
			})
		}
		early := make([]int, len(watchers))
		for i, w := range watchers { // some of it while it comes in, the rest in the next life
			early[i] = len(w.got) + 1
			rnd := rand.New(rand.NewPCG(seed, uint64(100*life+i)))
			watching.Go(func() { w.until(t, rnd, b.client, early[i]) })
		}
		reporting.Wait()
		watching.Wait()
		if life == 2 {
			for i, w := range watchers {
				w.until(t, rand.New(rand.NewPCG(seed, uint64(i))), b.client, len(want[i]))
			}
		}
		b.stop()
	}
	for i, w := range watchers {
		slices.Sort(w.got)
		slices.Sort(want[i])
		if !slices.Equal(w.got, want[i]) {
			t.Errorf("watcher %d got %d results, want %d", i, len(w.got), len(want[i]))
		}
	}
	if files, err := filepath.Glob(filepath.Join(cfg.Dir, "raw-*.db")); err != nil || len(files) == 0 {
		t.Errorf("nothing was archived, %v: the test does not see what it is about", err)
	}
	if watchers[0].parts == 0 {
		t.Error("no response ended within a report: the test does not see what it is about")
	}
}

// someResults are a report's; one in 15 has more than a message takes.
func someResults(rnd *rand.Rand, sequence uint64) (all []probe.Result) {
	begin := at().Add(time.Duration(sequence) * time.Hour) // so that no two are alike
	for _, series := range []string{"runs/a x:1", mesh + " x:1", mesh + " nyc-1", "runs/a x:1"} {
		source, target, _ := strings.Cut(series, " ")
		n := rnd.IntN(30)
		if sequence%15 == 8 && target == "nyc-1" {
			n = 5000
		}
		all = append(all, apitest.Results(source, target, begin, n)...)
		begin = begin.Add(time.Minute)
	}
	return all
}

func namesOf(agent string, results []probe.Result, f *synmeshv1.SeriesFilter) (all []string) {
	for _, r := range results {
		if (f.GetSource() == "" || f.GetSource() == r.Source) && (f.GetAgents() == "" || f.GetAgents() == agent) &&
			(len(f.GetTargets()) == 0 || slices.Contains(f.GetTargets(), r.Target)) {
			all = append(all, fmt.Sprintf("%s %s %s %d", agent, r.Source, r.Target, r.Time.UnixNano()))
		}
	}
	return all
}

// A watcher that does not read holds nobody up, and gets everything later.
func TestAStalledWatcherHoldsNobodyUp(t *testing.T) {
	b := onDisk(t, history.Config{Dir: t.TempDir()})
	stream, _ := watch(t, b.client, &synmeshv1.WatchRequest{})
	receive(t, stream)
	const reports, results = 300, 200
	for i := range uint64(reports) {
		b.append(t, "fra-1", i+1, apitest.Results(mesh, "nyc-1", at().Add(time.Duration(i)*time.Second), results))
	}
	seen := make(map[string]bool)
	for len(seen) < reports*results {
		m := receive(t, stream)
		if size := proto.Size(m); size > maxPart+1000 {
			t.Fatalf("a message of %d bytes", size)
		}
		for _, n := range names(m.GetResults()) {
			if seen[n] {
				t.Fatalf("%s came twice", n)
			}
			seen[n] = true
		}
	}
}

func TestAWatchFilters(t *testing.T) {
	b := onDisk(t, history.Config{Dir: t.TempDir()})
	for _, name := range []string{"fra-1", "nyc-1"} {
		b.fleet.Connect(fleet.Agent{Name: name, Labels: map[string]string{"dc": name[:3]}}, &synmeshv1.SessionResponse{})
	}
	for i, tt := range []struct {
		filter *synmeshv1.SeriesFilter
		want   string
	}{
		{&synmeshv1.SeriesFilter{}, "fra-1>db:1 fra-1>nyc-1 gone>fra-1 nyc-1>db:1 nyc-1>fra-1"},
		{&synmeshv1.SeriesFilter{Source: "runs/a"}, ""},
		{&synmeshv1.SeriesFilter{Agents: "dc=fra"}, "fra-1>db:1 fra-1>nyc-1"},
		{&synmeshv1.SeriesFilter{Agents: "gone"}, "gone>fra-1"},
		{&synmeshv1.SeriesFilter{Agents: "dc!=fra"}, "gone>fra-1 nyc-1>db:1 nyc-1>fra-1"},
		{&synmeshv1.SeriesFilter{Targets: []string{"db:1", "nobody"}}, "fra-1>db:1 nyc-1>db:1"},
		{&synmeshv1.SeriesFilter{TargetAgents: "dc=fra"}, "gone>fra-1 nyc-1>fra-1"},
		{&synmeshv1.SeriesFilter{TargetAgents: "dc!=fra"}, "fra-1>nyc-1"},
		{&synmeshv1.SeriesFilter{Targets: []string{"db:1"}, TargetAgents: "dc=nyc"}, "fra-1>db:1 fra-1>nyc-1 nyc-1>db:1"},
		{&synmeshv1.SeriesFilter{LocalPort: 61000}, "fra-1>db:1 fra-1>nyc-1 gone>fra-1 nyc-1>db:1 nyc-1>fra-1"},
		{&synmeshv1.SeriesFilter{LocalPort: 61001}, ""},
	} {
		begin := at()
		stream, leave := watch(t, b.client, &synmeshv1.WatchRequest{Filter: tt.filter})
		cursor := receive(t, stream).GetCursor()
		leave()
		sequence := uint64(i + 1)
		b.append(t, "fra-1", sequence, append(apitest.Results(mesh, "db:1", begin, 1), apitest.Results(mesh, "nyc-1", begin, 1)...))
		b.append(t, "nyc-1", sequence, append(apitest.Results(mesh, "db:1", begin, 1), apitest.Results(mesh, "fra-1", begin, 1)...))
		b.append(t, "gone", sequence, apitest.Results(mesh, "fra-1", begin, 1))
		export, err := b.client.Export(t.Context(), &synmeshv1.ExportRequest{Filter: tt.filter, Cursor: cursor})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for {
			m, err := export.Recv()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range m.GetResults() {
				got = append(got, r.GetAgent()+">"+r.GetTarget())
			}
		}
		slices.Sort(got)
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%v: got %v, want %s", tt.filter, got, tt.want)
		}
	}
}

func TestWhatIsNoFilterOrCursorIsRefused(t *testing.T) {
	b := onDisk(t, history.Config{Dir: t.TempDir()})
	ahead := mark{history.CursorAt(time.Now().Add(time.Hour)), allRows}.String()
	for _, tt := range []struct {
		req  *synmeshv1.WatchRequest
		code codes.Code
		want string
	}{
		{&synmeshv1.WatchRequest{Cursor: "x"}, codes.InvalidArgument, `cursor "x" is none of ours; use the cursor of the last response as it came`},
		{&synmeshv1.WatchRequest{Cursor: ahead + ".-1"}, codes.InvalidArgument, "none of ours"},
		{&synmeshv1.WatchRequest{Cursor: ahead + "."}, codes.InvalidArgument, "none of ours"},
		{&synmeshv1.WatchRequest{Cursor: "1."}, codes.InvalidArgument, "none of ours"},
		{&synmeshv1.WatchRequest{Cursor: "1..5"}, codes.InvalidArgument, "none of ours"},
		{&synmeshv1.WatchRequest{Cursor: ahead}, codes.FailedPrecondition, "begin without a cursor"},
		{&synmeshv1.WatchRequest{Filter: &synmeshv1.SeriesFilter{Agents: "=="}}, codes.InvalidArgument, "filter.agents: selector"},
		{&synmeshv1.WatchRequest{Filter: &synmeshv1.SeriesFilter{TargetAgents: "a b"}}, codes.InvalidArgument, "filter.target_agents: selector"},
	} {
		stream, _ := watch(t, b.client, tt.req)
		_, err := stream.Recv()
		if s := status.Convert(err); s.Code() != tt.code || !strings.Contains(s.Message(), tt.want) {
			t.Errorf("%v: got %v, want %s", tt.req, err, tt.want)
		}
	}
}

func TestAWatchOfNothingIsNotSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := serve(t)
		stream, _ := watch(t, b.client, &synmeshv1.WatchRequest{})
		for range 5 {
			began := time.Now()
			if m := receive(t, stream); m.GetCursor() == "" || time.Since(began) > 10*time.Second {
				t.Fatalf("after %v came %v", time.Since(began), m)
			}
		}
	})
}

func TestWhoHasMissedSomethingIsTold(t *testing.T) {
	b := serve(t)
	for i := range uint64(3) {
		b.put(time.Now(), i+1, "fra-1", 1, "runs/a x:1")
	}
	old := mark{b.history.Entries()[0].Cursor, allRows}.String()
	b.history.Forget(2)
	stream, _ := watch(t, b.client, &synmeshv1.WatchRequest{Cursor: old})
	if m := receive(t, stream); !m.GetGap() || len(m.GetResults()) != 1 {
		t.Errorf("got %v", m)
	}
	b.put(time.Now(), 4, "fra-1", 1, "runs/a x:1")
	if m := receive(t, stream); m.GetGap() || len(m.GetResults()) != 1 {
		t.Errorf("got %v", m)
	}
}

// deaf is a stream that nobody reads.
type deaf struct {
	grpc.ServerStreamingServer[synmeshv1.WatchResponse]
	ctx context.Context
}

func (d deaf) Context() context.Context            { return d.ctx }
func (d deaf) Send(*synmeshv1.WatchResponse) error { return nil }

func TestAWatchEndsWithItsCallOrTheController(t *testing.T) {
	b := onDisk(t, history.Config{Dir: t.TempDir()})
	ctx, cancel := context.WithCancel(t.Context())
	late, done := context.WithDeadline(t.Context(), time.Now().Add(20*time.Millisecond))
	defer done()
	ends := map[codes.Code]chan error{codes.Canceled: nil, codes.DeadlineExceeded: nil, codes.Unavailable: nil}
	for code, ctx := range map[codes.Code]context.Context{codes.Canceled: ctx, codes.DeadlineExceeded: late, codes.Unavailable: t.Context()} {
		ended := make(chan error, 1)
		ends[code] = ended
		go func() { ended <- b.service.Watch(&synmeshv1.WatchRequest{}, deaf{ctx: ctx}) }()
	}
	cancel()
	for _, code := range []codes.Code{codes.Canceled, codes.DeadlineExceeded, codes.Unavailable} {
		if code == codes.Unavailable {
			b.service.Stop()
		}
		if err := <-ends[code]; status.Code(err) != code {
			t.Errorf("got %v, want %v", err, code)
		}
	}
}

func TestAnExportHasItsTimeAndCanBeResumed(t *testing.T) {
	b := serve(t)
	now := time.Now()
	for i := range 6 {
		b.put(now.Add(time.Duration(i-10)*time.Minute), uint64(i+1), "fra-1", 1500, "runs/a x:1", "runs/b x:1")
	}
	req := &synmeshv1.ExportRequest{StartTime: timestamppb.New(now.Add(-9 * time.Minute)), EndTime: timestamppb.New(now.Add(-6 * time.Minute))}
	var got []string
	for rounds := 0; ; rounds++ { // one response each
		ctx, cancel := context.WithCancel(t.Context())
		stream, err := b.client.Export(ctx, req)
		if err != nil {
			t.Fatal(err)
		}
		m, err := stream.Recv()
		cancel()
		if err == io.EOF {
			if rounds < 3 {
				t.Errorf("%d responses", rounds)
			}
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got, req.Cursor = append(got, names(m.GetResults())...), m.GetCursor()
	}
	var want []string
	for _, e := range b.history.Entries()[1:4] {
		for _, source := range []string{"runs/a", "runs/b"} {
			want = append(want, namesOf("fra-1", apitest.Results(source, "x:1", e.Stored, 1500), nil)...)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %d results, want %d", len(got), len(want))
	}
}
