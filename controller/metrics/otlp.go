package metrics

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	bridge "go.opentelemetry.io/contrib/bridges/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/resource"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

const (
	// DefaultInterval is between two pushes.
	DefaultInterval = time.Minute
	// pushWithin is how long a push may take, whatever the interval is.
	pushWithin = 30 * time.Second
	// maxPushed is how many series go in one message: collectors take 4 MiB.
	maxPushed = 1000
)

// OTLP says where the numbers are pushed to, by OTLP over gRPC and TLS.
type OTLP struct {
	// Endpoint is the collector's address, as host:port.
	Endpoint string
	// CA is a PEM file with the roots of the collector's certificate; empty: those of the host.
	CA string
	// Headers is a file with a line NAME: VALUE for each header to send; empty: none.
	Headers string
	// Interval is between two pushes; 0: DefaultInterval.
	Interval time.Duration
	// Name is that of this controller among others.
	Name string
}

// push hands the numbers to a collector. They are totals: what one push does not
// bring, the next does. So none waits for another.
type push struct {
	interval time.Duration
	gatherer prometheus.Gatherer
	exporter *otlpmetricgrpc.Exporter
	conn     *grpc.ClientConn
	resource *resource.Resource
	count    *prometheus.CounterVec
	log      *slog.Logger
	failing  bool
}

func newPush(c OTLP, from prometheus.Gatherer, version string, log *slog.Logger) (_ *push, err error) {
	if c.Interval == 0 {
		c.Interval = DefaultInterval
	}
	if c.Interval < time.Second {
		return nil, fmt.Errorf("an interval of %v is too short; a second is the least", c.Interval)
	}
	if host, port, err := net.SplitHostPort(c.Endpoint); err != nil || host == "" || port == "" {
		return nil, fmt.Errorf("%q is no HOST:PORT of a collector", c.Endpoint)
	}
	headers, err := readHeaders(c.Headers)
	if err != nil {
		return nil, err
	}
	roots, err := readRoots(c.CA)
	if err != nil {
		return nil, err
	}
	p := &push{
		interval: c.Interval, gatherer: from, log: log.With("collector", c.Endpoint),
		resource: resource.NewSchemaless(attribute.String("service.name", "synmesh-controller"),
			attribute.String("service.instance.id", c.Name), attribute.String("service.version", version)),
		count: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "synmesh_otlp_pushes_total", Help: "Pushes to the collector, by how they ended.",
		}, []string{"outcome"}),
	}
	p.count.WithLabelValues("pushed")
	p.count.WithLabelValues("failed")
	p.conn, err = grpc.NewClient(c.Endpoint, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots})))
	if err != nil {
		return nil, err
	}
	// The next push is the retry.
	p.exporter, err = otlpmetricgrpc.New(context.Background(), otlpmetricgrpc.WithGRPCConn(p.conn), otlpmetricgrpc.WithHeaders(headers),
		otlpmetricgrpc.WithTimeout(pushWithin), otlpmetricgrpc.WithRetry(otlpmetricgrpc.RetryConfig{Enabled: false}))
	if err != nil {
		return nil, errors.Join(err, p.conn.Close())
	}
	return p, nil
}

// close closes the connection, if there is one.
func (p *push) close() error {
	if p == nil {
		return nil
	}
	return errors.Join(p.exporter.Shutdown(context.Background()), p.conn.Close())
}

// run pushes until ctx ends, and once more then.
func (p *push) run(ctx context.Context) error {
	tick := time.NewTicker(p.interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			p.once(ctx)
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			p.once(last)
			return p.close()
		}
	}
}

// once pushes all there is. The log tells when that begins to fail, and when it works again.
func (p *push) once(ctx context.Context) {
	within, cancel := context.WithTimeout(ctx, min(p.interval, pushWithin))
	defer cancel()
	err := p.all(within)
	switch {
	case ctx.Err() != nil: // cut off; that says nothing of the collector
		return
	case err != nil && !p.failing:
		p.log.Warn("the metrics cannot be pushed; each push brings all that was missed", "reason", err)
	case err == nil && p.failing:
		p.log.Info("the metrics are pushed again")
	}
	p.failing = err != nil
	if err != nil {
		p.count.WithLabelValues("failed").Inc()
	} else {
		p.count.WithLabelValues("pushed").Inc()
	}
}

func (p *push) all(ctx context.Context) error {
	families, err := p.gatherer.Gather()
	if err != nil {
		return err
	}
	for batch := range batches(families, maxPushed) {
		from := prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) { return batch, nil })
		scopes, err := bridge.NewMetricProducer(bridge.WithGatherer(from)).Produce(ctx)
		if err != nil {
			return err
		}
		if err := p.exporter.Export(ctx, &metricdata.ResourceMetrics{Resource: p.resource, ScopeMetrics: scopes}); err != nil {
			return err
		}
	}
	return nil
}

// batches yields the families so that none of its lists has more series than most.
func batches(families []*dto.MetricFamily, most int) iter.Seq[[]*dto.MetricFamily] {
	return func(yield func([]*dto.MetricFamily) bool) {
		var batch []*dto.MetricFamily
		room := most
		for _, f := range families {
			for rest := f.GetMetric(); len(rest) > 0; {
				n := min(len(rest), room)
				batch = append(batch, &dto.MetricFamily{Name: f.Name, Help: f.Help, Type: f.Type, Unit: f.Unit, Metric: rest[:n]})
				rest, room = rest[n:], room-n
				if room > 0 {
					continue
				}
				if !yield(batch) {
					return
				}
				batch, room = nil, most
			}
		}
		if len(batch) > 0 {
			yield(batch)
		}
	}
}
