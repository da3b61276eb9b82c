package metrics

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"

	"github.com/synmesh/synmesh/controller/api"
	"github.com/synmesh/synmesh/controller/fleet"
	"github.com/synmesh/synmesh/controller/history"
	"github.com/synmesh/synmesh/internal/selector"
)

// DefaultBy is the label that groups agents if no other is asked for.
const DefaultBy = "dc"

const (
	// scrapes is how many may be under way.
	scrapes = 4
	// scrapeWithin is how long one may take.
	scrapeWithin = 30 * time.Second
)

// History is all that is asked of the history; see history.Store.
type History interface {
	Changed() <-chan struct{}
	Latest() history.Cursor
	ScanOutcomes(ctx context.Context, after history.Cursor) iter.Seq2[history.Outcomes, error]
	Stats() history.Stats
}

// Fleet knows the agents; see fleet.Fleet.
type Fleet interface {
	Agents(selector.Selector) []fleet.Agent
	Changed() <-chan struct{}
}

// Config says what is counted. All but By, Usage and OTLP must be given.
type Config struct {
	Version string
	// By is the label whose values are the groups; empty is DefaultBy.
	By      string
	History History
	// Usage tells what the history takes on its disk; nil if it has none.
	Usage func() (history.Usage, error)
	Fleet Fleet
	// Calls tells how calls have ended; see api.Server.
	Calls func() map[api.Call]uint64
	// Overflows tells how many readers of the feed were too slow; see feed.Feed.
	Overflows func() uint64
	// OTLP says where the numbers are pushed to; nil is nowhere.
	OTLP   *OTLP
	Logger *slog.Logger
}

// Metrics are the numbers.
type Metrics struct {
	cfg      Config
	registry *prometheus.Registry
	pairs    *pairs
	groups   groups // follow's own
	lag      lag    // follow's own
	skipped  prometheus.Counter
	failing  bool // the last scan failed
	push     *push

	every             time.Duration
	atOnce, maxBehind uint64
}

// New returns Metrics that stand at zero. Run must be called after it.
func New(c Config) (*Metrics, error) {
	if c.By == "" {
		c.By = DefaultBy
	}
	m := &Metrics{
		cfg: c, registry: prometheus.NewRegistry(), pairs: newPairs(c.By), groups: groups{by: c.By},
		every: every, atOnce: atOnce, maxBehind: maxBehind,
		skipped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "synmesh_metrics_skipped_reports_total",
			Help: "Reports, about, whose results are in no other metric of probes, for they came faster than they could be counted.",
		}),
	}
	own := []prometheus.Collector{&state{c}, m.pairs, m.skipped, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})}
	if c.OTLP != nil {
		var err error
		if m.push, err = newPush(*c.OTLP, m.registry, c.Version, c.Logger); err != nil {
			return nil, fmt.Errorf("OTLP: %w", err)
		}
		own = append(own, m.push.count)
	}
	for _, o := range own {
		if err := m.registry.Register(o); err != nil {
			return nil, errors.Join(err, m.Close())
		}
	}
	return m, nil
}

// Close is for when Run will not be called.
func (m *Metrics) Close() error { return m.push.close() }

// Handler serves the numbers in the formats of Prometheus.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(m.cfg.Logger.Handler(), slog.LevelWarn), ErrorHandling: promhttp.ContinueOnError,
		MaxRequestsInFlight: scrapes, Timeout: scrapeWithin,
	})
}

// Run counts, and pushes, until ctx ends.
func (m *Metrics) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return m.follow(ctx) })
	if m.push != nil {
		g.Go(func() error { return m.push.run(ctx) })
	}
	return g.Wait()
}
