package metrics

import (
	"bytes"
	"context"
	"iter"
	"log/slog"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"

	"github.com/synmesh/synmesh/controller/api"
	"github.com/synmesh/synmesh/controller/api/apitest"
	"github.com/synmesh/synmesh/controller/fleet"
	"github.com/synmesh/synmesh/controller/history"
	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long anything may take.
const patience = 10 * time.Second

// bench is a history in a folder, a fleet, and their metrics.
type bench struct {
	*testing.T
	*Metrics
	store     *history.Store
	fleet     *fleet.Fleet
	log       logBuffer
	sequences map[string]uint64
	scanError error
}

// ScanOutcomes implements History.
func (b *bench) ScanOutcomes(ctx context.Context, after history.Cursor) iter.Seq2[history.Outcomes, error] {
	if b.scanError != nil {
		return func(yield func(history.Outcomes, error) bool) { yield(history.Outcomes{}, b.scanError) }
	}
	return b.store.ScanOutcomes(ctx, after)
}

func (b *bench) Changed() <-chan struct{} { return b.store.Changed() }
func (b *bench) Latest() history.Cursor   { return b.store.Latest() }
func (b *bench) Stats() history.Stats     { return b.store.Stats() }

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) count(words string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), words)
}

// measure makes metrics of an empty history. What change does to their configuration is done before.
func measure(t *testing.T, change func(*Config)) *bench {
	t.Helper()
	b := &bench{T: t, fleet: fleet.New(), sequences: make(map[string]uint64)}
	var err error
	if b.store, err = history.Open(history.Config{Dir: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- b.store.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
		if err := b.store.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, name := range []string{"fra-1", "fra-2", "nyc-1", "lost-1"} {
		a := fleet.Agent{Name: name, Labels: map[string]string{"dc": strings.Split(name, "-")[0], "rack": name}}
		if name == "lost-1" {
			a.Labels = nil
		}
		b.fleet.Connect(a, &synmeshv1.SessionResponse{})
	}
	cfg := Config{
		Version: "v1.2.3", History: b, Usage: b.store.Usage, Fleet: b.fleet, Logger: slog.New(slog.NewTextHandler(&b.log, nil)),
		Calls: func() map[api.Call]uint64 {
			return map[api.Call]uint64{{Method: "/synmesh.v1.FleetService/ListAgents", Code: codes.PermissionDenied}: 3}
		},
		Overflows: func() uint64 { return 2 },
	}
	if change != nil {
		change(&cfg)
	}
	if b.Metrics, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	return b
}

// report stores results of an agent.
func (b *bench) report(agent string, results ...probe.Result) {
	b.Helper()
	b.sequences[agent]++
	if _, err := b.store.Append(b.Context(), agent, apitest.Report(1, b.sequences[agent], results)); err != nil {
		b.Fatal(err)
	}
}

// begin follows the history from now on, but only when readAll is called.
func (b *bench) begin() {
	b.lag.begun = b.store.Stats().Reports
}

// readAll counts what has been stored.
func (b *bench) readAll(after history.Cursor) history.Cursor {
	for more := true; more; {
		after, more = b.readOn(b.Context(), after)
	}
	return after
}

// found returns a result with a round trip of so many microseconds; below 1 it is an outcome.
func found(target string, us int) probe.Result {
	r := apitest.Results("measurements/mesh", target, time.Now(), 1)[0]
	r.RTT = time.Duration(us) * time.Microsecond
	if us < 1 {
		r.Outcome, r.RTT = probe.Outcome(-us), 0
	}
	return r
}

const (
	unreachable = -int(probe.Unreachable)
	timedOut    = -int(probe.Timeout)
	failed      = -int(probe.Error)
)

// gather returns the families by name.
func (b *bench) gather() map[string]*dto.MetricFamily {
	b.Helper()
	families, err := b.registry.Gather()
	if err != nil {
		b.Fatal(err)
	}
	m := make(map[string]*dto.MetricFamily)
	for _, f := range families {
		m[f.GetName()] = f
	}
	return m
}

// value returns that of the metric with these labels (names and values in turn), or NaN.
func value(f *dto.MetricFamily, labels ...string) float64 {
	m := series(f, labels...)
	switch {
	case m.GetCounter() != nil:
		return m.GetCounter().GetValue()
	case m.GetGauge() != nil:
		return m.GetGauge().GetValue()
	}
	return math.NaN()
}

// series returns the metric with these labels, or nil.
func series(f *dto.MetricFamily, labels ...string) *dto.Metric {
	for _, m := range f.GetMetric() {
		have := make(map[string]string)
		for _, l := range m.GetLabel() {
			have[l.GetName()] = l.GetValue()
		}
		right := len(have)*2 == len(labels)
		for i := 0; right && i < len(labels); i += 2 {
			v, ok := have[labels[i]]
			right = ok && v == labels[i+1]
		}
		if right {
			return m
		}
	}
	return nil
}
