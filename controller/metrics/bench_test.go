package metrics

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/synmesh/synmesh/controller/api/apitest"
	"github.com/synmesh/synmesh/controller/history"
)

// BenchmarkCount is what a result costs that has been read from the disk.
func BenchmarkCount(b *testing.B) {
	m := &Metrics{pairs: newPairs("dc"), groups: groups{of: map[string]string{}}}
	const targets, each = 50, 20
	m.groups.of["from"] = "fra"
	e := history.Entry{Agent: "from", Report: apitest.Report(1, 1, nil)}
	for i := range targets {
		rs := apitest.Results("measurements/mesh", fmt.Sprint("to-", i), time.Now(), each)
		for j := range rs {
			rs[j].RTT = time.Duration(rand.ExpFloat64() * float64(10*time.Millisecond))
		}
		e.Report.Blocks = append(e.Report.Blocks, apitest.Report(1, 1, rs).GetBlocks()...)
		m.groups.of[fmt.Sprint("to-", i)] = fmt.Sprint("dc-", i)
	}
	b.ReportAllocs()
	for b.Loop() {
		m.count(&e)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(targets*each), "ns/result")
}

// BenchmarkScrape is what a page of a thousand pairs costs, and how large it is.
func BenchmarkScrape(b *testing.B) {
	p := newPairs("dc")
	registry := prometheus.NewRegistry()
	for _, c := range p.collectors() {
		registry.MustRegister(c)
	}
	for i := range 1000 {
		one, _ := p.of(between{"fra", fmt.Sprint("dc-", i)})
		for range 1000 {
			one.rtt.Observe(rand.ExpFloat64() / 100)
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
