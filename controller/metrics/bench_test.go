package metrics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/synmesh/synmesh/controller/api/apitest"
	"github.com/synmesh/synmesh/controller/fleet"
	"github.com/synmesh/synmesh/controller/history"
	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// BenchmarkCount is what a result costs that has been read from the disk.
func BenchmarkCount(b *testing.B) {
	const groups, targets = 50, 1000
	m := newCounting(groups, targets)
	o := history.Outcomes{Agent: "agent-0"}
	o.Add(apitest.Report(1, 1, meshResults(targets)))
	b.ReportAllocs()
	for b.Loop() {
		m.count(&o)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/targets, "ns/result")
}

// newCounting makes Metrics of a fleet in so many groups, which can only count.
func newCounting(groups, agents int) *Metrics {
	f := fleet.New()
	for i := range agents {
		a := fleet.Agent{Name: fmt.Sprint("agent-", i), Labels: map[string]string{"dc": fmt.Sprint("dc-", i%groups)}}
		f.Connect(a, &synmeshv1.SessionResponse{})
	}
	m := &Metrics{cfg: Config{Fleet: f}, pairs: newPairs("dc"), atOnce: atOnce, maxBehind: maxBehind}
	m.groups.by = "dc"
	m.groups.refresh(f)
	return m
}

// BenchmarkRead is what a result costs with all that reading it takes: of reports as agents of a
// mesh send them, with a result for each of their thousand targets, and of those that tell of few.
func BenchmarkRead(b *testing.B) {
	for _, targets := range []int{1000, 50} {
		b.Run(fmt.Sprintf("targets=%d", targets), func(b *testing.B) { benchmarkRead(b, targets) })
	}
}

func benchmarkRead(b *testing.B, targets int) {
	store, err := history.Open(history.Config{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- store.Run(ctx) }()
	defer func() {
		cancel()
		if err := errors.Join(<-ran, store.Close()); err != nil {
			b.Error(err)
		}
	}()
	const agents, reports, each = 10, 300, 1000
	m := newCounting(50, 1000)
	m.cfg.History = store
	for i := range reports {
		var results []probe.Result
		for range each / targets {
			results = append(results, meshResults(targets)...)
		}
		r := apitest.Report(1, uint64(i/agents+1), results)
		if _, err := store.Append(b.Context(), fmt.Sprint("agent-", i%agents), r); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		var after history.Cursor
		for more := true; more; {
			after, more = m.readOn(b.Context(), after)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(reports*each), "ns/result")
}

// meshResults are of a second, one for each target.
func meshResults(targets int) (list []probe.Result) {
	for i := range targets {
		r := apitest.Results("measurements/mesh", fmt.Sprint("agent-", i), time.Now(), 1)[0]
		r.Remote = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 61256)
		r.RTT = time.Duration((0.1 + rand.ExpFloat64()) * float64(10*time.Millisecond))
		r.Lateness, r.HostDelay = time.Duration(rand.IntN(100_000)), time.Duration(rand.IntN(50_000))
		r.SynAck = &probe.SynAck{Window: 64240, MSS: 1460, WindowScale: 7, SACKPermitted: true, Timestamps: true, TTL: 64}
		list = append(list, r)
	}
	return list
}

// BenchmarkScrape is what a page of a thousand pairs costs, and how large it is.
func BenchmarkScrape(b *testing.B) {
	p := newPairs("dc")
	registry := prometheus.NewRegistry()
	registry.MustRegister(p)
	for i := range 1000 {
		one, _ := p.of(between{"fra", fmt.Sprint("dc-", i)})
		for range 1000 {
			one.add(&history.Found{Outcome: probe.Open, Timed: true, RTT: time.Duration(rand.ExpFloat64() * 1e7)})
		}
	}
	m := &Metrics{registry: registry, cfg: Config{Logger: slog.New(slog.DiscardHandler)}}
	size := 0
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		size = w.Body.Len()
	}
	b.ReportMetric(float64(size)/1000, "B/pair")
}
