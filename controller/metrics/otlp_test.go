package metrics

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	collector "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	otlp "go.opentelemetry.io/proto/otlp/metrics/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"
)

// sink is a collector on loopback, with TLS.
type sink struct {
	collector.UnimplementedMetricsServiceServer
	address, ca string

	mu       sync.Mutex
	metrics  map[string]*otlp.Metric // the newest of each name, without what is split
	resource map[string]string
	header   []string
	pushes   int
	got      chan struct{}
}

func (s *sink) Export(ctx context.Context, req *collector.ExportMetricsServiceRequest) (*collector.ExportMetricsServiceResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.header = metadata.ValueFromIncomingContext(ctx, "x-token")
	s.pushes++
	for _, r := range req.GetResourceMetrics() {
		for _, a := range r.GetResource().GetAttributes() {
			s.resource[a.GetKey()] = a.GetValue().GetStringValue()
		}
		for _, scope := range r.GetScopeMetrics() {
			for _, m := range scope.GetMetrics() {
				s.metrics[m.GetName()] = m
			}
		}
	}
	select {
	case s.got <- struct{}{}:
	default:
	}
	return &collector.ExportMetricsServiceResponse{}, nil
}

func (s *sink) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pushes
}

// newSink makes a certificate for loopback, and finds a port. Nobody listens yet.
func newSink(t *testing.T) *sink {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true,
		BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	s := &sink{ca: filepath.Join(t.TempDir(), "ca.pem"), metrics: make(map[string]*otlp.Metric), resource: make(map[string]string), got: make(chan struct{}, 1)}
	if err := os.WriteFile(s.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.address = l.Addr().String()
	server := grpc.NewServer(grpc.Creds(credentials.NewServerTLSFromCert(&tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key})))
	collector.RegisterMetricsServiceServer(server, s)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return s
}

func writeHeaders(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "headers")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTheCollectorGetsWhatPrometheusGets(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-token=the environment's")
	s := newSink(t)
	b := measure(t, func(c *Config) {
		c.OTLP = &OTLP{Endpoint: s.address, CA: s.ca, Headers: writeHeaders(t, "# of the collector\nX-Token: a secret\n"), Name: "controller-1"}
	})
	b.begin()
	b.report("fra-1", found("nyc-1", 120), found("nyc-1", 800), found("nyc-1", timedOut))
	b.readAll(nil)
	b.push.once(t.Context())
	s.mu.Lock()
	defer s.mu.Unlock()
	if fmt.Sprint(s.header) != "[a secret]" {
		t.Errorf("the header is %q", s.header)
	}
	if r := s.resource; r["service.name"] != "synmesh-controller" || r["service.instance.id"] != "controller-1" || r["service.version"] != "v1.2.3" {
		t.Errorf("the resource is %v", r)
	}
	var timeouts float64
	for _, p := range s.metrics["synmesh_probes_total"].GetSum().GetDataPoints() {
		if strings.Contains(p.String(), "timeout") {
			timeouts += p.GetAsDouble()
		}
	}
	if timeouts != 1 {
		t.Errorf("%v timeouts have come", timeouts)
	}
	h := s.metrics["synmesh_rtt_seconds"].GetExponentialHistogram().GetDataPoints()
	if len(h) != 1 || h[0].GetCount() != 2 || h[0].GetScale() != 3 {
		t.Errorf("the round trips are %v", h)
	}
	for name := range b.gather() {
		if s.metrics[name] == nil {
			t.Errorf("%s has not come", name)
		}
	}
	if n := value(b.gather()["synmesh_otlp_pushes_total"], "outcome", "pushed"); n != 1 {
		t.Errorf("%v pushes are counted", n)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

func TestACollectorThatIsAwayHoldsUpNothing(t *testing.T) {
	s := newSink(t)
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	away := gone.Addr().String()
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	b := measure(t, func(c *Config) { c.OTLP = &OTLP{Endpoint: away, CA: s.ca} })
	for range 3 {
		b.push.once(t.Context())
	}
	if n := value(b.gather()["synmesh_otlp_pushes_total"], "outcome", "failed"); n != 3 {
		t.Errorf("%v failures are counted, want 3", n)
	}
	if n := b.log.count("cannot be pushed"); n != 1 {
		t.Errorf("it is logged %d times, want once", n)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

func TestACollectorThatIsNotTheOneIsToldNothing(t *testing.T) {
	s, other := newSink(t), newSink(t)
	b := measure(t, func(c *Config) { c.OTLP = &OTLP{Endpoint: s.address, CA: other.ca} })
	b.push.once(t.Context())
	if s.count() != 0 || value(b.gather()["synmesh_otlp_pushes_total"], "outcome", "failed") != 1 {
		t.Errorf("it got %d pushes", s.count())
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

func TestRunPushesAgainAndAgainAndOnceMoreAtTheEnd(t *testing.T) {
	s := newSink(t)
	b := measure(t, func(c *Config) { c.OTLP = &OTLP{Endpoint: s.address, CA: s.ca, Interval: time.Second} })
	b.push.interval, b.push.failing = 200*time.Millisecond, true
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- b.Metrics.Run(ctx) }()
	for range 3 {
		select {
		case <-s.got:
		case <-time.After(patience):
			t.Fatal("nothing is pushed")
		}
	}
	before := s.count()
	cancel()
	if err := <-ran; err != nil {
		t.Error(err)
	}
	if s.count() == before {
		t.Error("nothing is pushed at the end")
	}
	if b.push.failing || b.log.count("pushed again") != 1 {
		t.Error("the log does not say that it works again")
	}
}

func TestWhatIsWrongWithOTLPIsSaid(t *testing.T) {
	open := writeHeaders(t, "a: b\n")
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		o    OTLP
		want string
	}{
		{OTLP{Endpoint: "collector"}, `"collector" is no HOST:PORT`},
		{OTLP{Endpoint: ":4317"}, `":4317" is no HOST:PORT`},
		{OTLP{Endpoint: "https://collector:4317"}, `is no HOST:PORT`},
		{OTLP{Endpoint: "c:4317", Interval: time.Millisecond}, "a second is the least"},
		{OTLP{Endpoint: "c:4317", CA: "/nowhere/ca.pem"}, "/nowhere/ca.pem: no such file"},
		{OTLP{Endpoint: "c:4317", CA: open}, "has no certificate in PEM"},
		{OTLP{Endpoint: "c:4317", Headers: "/nowhere/headers"}, "/nowhere/headers: no such file"},
		{OTLP{Endpoint: "c:4317", Headers: open}, "chmod 0600 it"},
		{OTLP{Endpoint: "c:4317", Headers: writeHeaders(t, "a secret")}, "line 1 is not NAME: VALUE"},
	} {
		_, err := New(Config{OTLP: &tt.o, Logger: nil})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: got %v, want %q", tt.o, err, tt.want)
		}
	}
}

func TestBatchesHaveAllOfIt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var families []*dto.MetricFamily
		var want, got []string
		for i, n := range rapid.SliceOfN(rapid.IntRange(0, 20), 0, 8).Draw(t, "sizes") {
			f := &dto.MetricFamily{Name: proto.String(fmt.Sprint("family", i)), Help: proto.String("help"), Type: dto.MetricType_GAUGE.Enum()}
			for j := range n {
				f.Metric = append(f.Metric, &dto.Metric{Gauge: &dto.Gauge{Value: proto.Float64(float64(j))}})
				want = append(want, fmt.Sprint(f.GetName(), j))
			}
			families = append(families, f)
		}
		most := rapid.IntRange(1, 10).Draw(t, "most")
		full := true
		for batch := range batches(families, most) {
			if !full {
				t.Fatal("a batch that was not full is not the last")
			}
			size := 0
			for _, f := range batch {
				size += len(f.GetMetric())
				if len(f.GetMetric()) == 0 || f.GetHelp() != "help" || f.GetType() != dto.MetricType_GAUGE {
					t.Fatalf("%v is not what it was", f)
				}
				for _, m := range f.GetMetric() {
					got = append(got, fmt.Sprint(f.GetName(), m.GetGauge().GetValue()))
				}
			}
			if full = size == most; size > most {
				t.Fatalf("%d series, and %d is the most", size, most)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("got %v, want %v", got, want)
		}
	})
}
