package controller

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/synmesh/synmesh/controller/api/apitest"
	"github.com/synmesh/synmesh/controller/metrics"
	"github.com/synmesh/synmesh/internal/identity"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// client returns a client of HTTP as Prometheus is one: it looks at the controller's name.
func (r *running) client(t *testing.T, who *identity.Credentials) *http.Client {
	t.Helper()
	config := &tls.Config{RootCAs: r.admin.Roots, ServerName: "controller-1"}
	if who != nil {
		config.Certificates = []tls.Certificate{*who.Certificate}
	}
	tr := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func (r *running) get(t *testing.T, c *http.Client, path string, accept ...string) (*http.Response, []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", "https://"+r.HTTPAddr().String()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range accept {
		req.Header.Set("Accept", a)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, body
}

func overHTTP(dir string) Config {
	cfg := config(dir)
	cfg.HTTP, cfg.Version = "127.0.0.1:0", "v1.2.3"
	return cfg
}

// scrape returns the metrics, as text or as protobuf.
func (r *running) scrape(t *testing.T, c *http.Client, accept string) map[string]*dto.MetricFamily {
	t.Helper()
	resp, body := r.get(t, c, "/metrics", accept)
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", resp.Status, body)
	}
	found := make(map[string]*dto.MetricFamily)
	for dec := expfmt.NewDecoder(strings.NewReader(string(body)), expfmt.ResponseFormat(resp.Header)); ; {
		var f dto.MetricFamily
		if err := dec.Decode(&f); err == io.EOF {
			return found
		} else if err != nil {
			t.Fatal(err)
		}
		found[f.GetName()] = &f
	}
}

func TestMetricsAreScrapedWithACertificate(t *testing.T) {
	r := start(t, overHTTP(t.TempDir()))
	a, _ := r.join(t, "fra-1")
	b, _ := r.join(t, "nyc-1")
	a.Recv()
	b.Recv()
	results := apitest.Results("measurements/mesh", "nyc-1", time.Now(), 10)
	c := r.client(t, r.admin)
	var families map[string]*dto.MetricFamily
	deadline := time.Now().Add(patience)
	for n := uint64(1); ; n++ {
		a.Report(apitest.Report(5, n, results))
		a.Acknowledged()
		families = r.scrape(t, c, string(expfmt.NewFormat(expfmt.TypeProtoDelim)))
		if families["synmesh_rtt_seconds"] != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no round trip is counted")
		}
	}
	h := families["synmesh_rtt_seconds"].GetMetric()
	if len(h) != 1 || h[0].GetHistogram().GetSampleCount() == 0 || h[0].GetHistogram().GetSampleCount()%10 != 0 || len(h[0].GetHistogram().GetPositiveSpan()) == 0 || len(h[0].GetHistogram().GetBucket()) == 0 {
		t.Errorf("the round trips are %v", h)
	}
	labels := make(map[string]string)
	for _, l := range h[0].GetLabel() {
		labels[l.GetName()] = l.GetValue()
	}
	if len(labels) != 2 || labels["from"] != "fra" || labels["to"] != "nyc" {
		t.Errorf("they are from %v", labels)
	}
	text := r.scrape(t, c, string(expfmt.NewFormat(expfmt.TypeTextPlain)))
	for name := range families {
		if text[name] == nil || !model.UTF8Validation.IsValidMetricName(name) {
			t.Errorf("%s is missing in the text", name)
		}
	}
	for name, who := range map[string]*identity.Credentials{"an agent": r.agents["fra-1"], "nobody": nil} {
		want := map[bool]int{true: http.StatusForbidden, false: http.StatusUnauthorized}[who != nil]
		if resp, body := r.get(t, r.client(t, who), "/metrics"); resp.StatusCode != want {
			t.Errorf("%s gets %s: %s", name, resp.Status, body)
		}
	}
}

func TestTheAPIIsServedAsJSON(t *testing.T) {
	r := start(t, overHTTP(t.TempDir()))
	a, _ := r.join(t, "fra-1")
	a.Recv()
	a.Report(apitest.Report(5, 1, apitest.Results("runs/a", "db.fra:5432", time.Now(), 3)))
	a.Acknowledged()
	c := r.client(t, r.admin)
	for _, tt := range []struct {
		path  string
		code  int
		words []string
	}{
		{"/v1/whoami", 200, []string{`/user/admin/operator"`, `"role":"ROLE_ADMIN"`}},
		{"/v1/agents?selector=dc%3Dfra", 200, []string{`"name":"fra-1"`, `"labels":{"dc":"fra"}`, `"state":"AGENT_STATE_CONNECTED"`, `"drops":[]`, `"backlog":"0"`}},
		{"/v1/agents/fra-1/timetable", 200, []string{`"timetable":`}},
		{"/v1/members", 200, []string{`"agent":"fra-1"`}},
		{"/v1/measurements", 200, []string{`"measurements":[]`}},
		{"/v1/measurements/mesh", 404, []string{`"code":5`}},
		{"/v1/results?source=runs/a", 200, []string{`"outcome":"OUTCOME_OPEN"`, `"rtt":"0.000003s"`}},
		{"/v1/results?pageSize=100000", 400, []string{`"code":3`, "page_size"}},
	} {
		resp, body := r.get(t, c, tt.path)
		if !json.Valid(body) || resp.StatusCode != tt.code {
			t.Errorf("%s: %s: %s", tt.path, resp.Status, body)
		}
		flat := strings.ReplaceAll(strings.ReplaceAll(string(body), `": `, `":`), `, "`, `,"`) // protojson likes to vary
		for _, w := range tt.words {
			if !strings.Contains(flat, w) {
				t.Errorf("%s: there is no %s in %s", tt.path, w, flat)
			}
		}
	}
}

func TestAControllerStopsWithAStreamOverHTTP(t *testing.T) {
	r := start(t, overHTTP(t.TempDir()))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "POST", "https://"+r.HTTPAddr().String()+"/v1/runs", strings.NewReader(
		`{"spec":{"targets":[{"name":"a:1"}],"count":"0","interval":"1s","timeout":"1s","flows":1}}`))
	if err != nil {
		t.Fatal(err)
	}
	a, _ := r.join(t, "fra-1")
	a.Recv()
	resp, err := r.client(t, r.admin).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	if lines.Scan(); !strings.Contains(lines.Text(), "started") {
		t.Fatalf("the first line is %s, %q", resp.Status, lines.Text())
	}
	r.stop()
	for lines.Scan() {
		if strings.Contains(lines.Text(), `"started"`) {
			t.Errorf("a line is %q", lines.Text())
		}
	}
	if conn, err := net.Dial("tcp", r.HTTPAddr().String()); err == nil {
		_ = conn.Close()
		t.Error("the port is still open")
	}
}

// What a call over the relay carries is nothing on the port.
func TestATicketOfTheRelayIsNoneOnThePort(t *testing.T) {
	r := start(t, overHTTP(t.TempDir()))
	agent := apitest.Enrol(t, r.Addr().String(), r.admin, "fra-1")
	ctx := metadata.AppendToOutgoingContext(t.Context(), "synmesh-relay-ticket", "x")
	_, err := synmeshv1.NewFleetServiceClient(apitest.DialAs(t, r.Addr().String(), agent)).ListAgents(ctx, &synmeshv1.ListAgentsRequest{})
	if s := status.Convert(err); s.Code() != codes.PermissionDenied || !strings.Contains(s.Message(), "you are agent/fra-1") {
		t.Errorf("got %v", err)
	}
}

func TestNewSaysWhatIsWrongWithHTTP(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	cfg := overHTTP(t.TempDir())
	cfg.HTTP = taken.Addr().String()
	if _, err := New(cfg); err == nil || !strings.HasPrefix(err.Error(), "HTTP: ") || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("got %v", err)
	}
	cfg = config(t.TempDir())
	cfg.OTLP = &metrics.OTLP{Endpoint: "collector"}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "is no HOST:PORT") || c.HTTPAddr() != nil {
		t.Errorf("got %v", err)
	}
}
