package metrics

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/synmesh/synmesh/controller/fleet"
	"github.com/synmesh/synmesh/controller/history"
	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

func TestProbesAreCountedForPairsOfGroups(t *testing.T) {
	b := measure(t, nil)
	b.begin()
	b.report("fra-1", found("nyc-1", 120), found("nyc-1", 800), found("nyc-1", timedOut), found("db.fra:5432", 50))
	b.report("fra-2", found("nyc-1", 3_000), found("nyc-1", unreachable), found("fra-1", failed))
	b.report("lost-1", found("nyc-1", 1))
	b.report("gone-1", found("lost-1", 2_000_000))
	b.readAll(nil)
	f := b.gather()
	for _, tt := range []struct {
		from, to, outcome string
		want              float64
	}{
		{"fra", "nyc", "open", 3}, {"fra", "nyc", "timeout", 1}, {"fra", "nyc", "unreachable", 1}, {"fra", "nyc", "closed", 0},
		{"fra", "", "open", 1}, {"fra", "fra", "error", 1}, {"fra", "fra", "open", 0}, {"", "nyc", "open", 1}, {"", "", "open", 1},
	} {
		if got := value(f["synmesh_probes_total"], "from", tt.from, "to", tt.to, "outcome", tt.outcome); got != tt.want {
			t.Errorf("%+v: got %v", tt, got)
		}
	}
	if n := len(f["synmesh_probes_total"].GetMetric()); n != 5*len(probe.Outcomes()) {
		t.Errorf("there are %d series of probes, of 5 pairs", n)
	}
	if n := value(f["synmesh_metrics_pairs"]); n != 5 {
		t.Errorf("there are %v pairs", n)
	}
	h := series(f["synmesh_rtt_seconds"], "from", "fra", "to", "nyc").GetHistogram()
	if h.GetSampleCount() != 3 || math.Abs(h.GetSampleSum()-0.00392) > 1e-12 {
		t.Errorf("%d round trips of %v s, want 3 of 0.00392", h.GetSampleCount(), h.GetSampleSum())
	}
	below := make(map[float64]uint64)
	for _, c := range h.GetBucket() {
		below[c.GetUpperBound()] = c.GetCumulativeCount()
	}
	if below[.0001] != 0 || below[.00025] != 1 || below[.001] != 2 || below[.005] != 3 || len(h.GetPositiveDelta()) != 3 || h.GetSchema() != 3 {
		t.Errorf("the buckets are %v, and native %v", below, h)
	}
}

// A round trip counts where there is one only: not if it is not known which SYN was answered.
func TestWhatHasNoRoundTripIsInNoHistogram(t *testing.T) {
	b := measure(t, nil)
	b.begin()
	r := found("nyc-1", 100)
	r.Attempts, r.Retry = 2, &probe.Retry{}
	if r.Timed() {
		t.Fatal("this has a round trip")
	}
	r.RTT = 0
	b.report("fra-1", r, found("nyc-1", timedOut), found("nyc-1", failed))
	b.readAll(nil)
	f := b.gather()
	if n := series(f["synmesh_rtt_seconds"], "from", "fra", "to", "nyc").GetHistogram().GetSampleCount(); n != 0 {
		t.Errorf("%d round trips", n)
	}
	if n := value(f["synmesh_probes_total"], "from", "fra", "to", "nyc", "outcome", "open"); n != 1 {
		t.Errorf("%v open", n)
	}
}

func TestAnotherLabelMakesOtherGroups(t *testing.T) {
	b := measure(t, func(c *Config) { c.By = "rack" })
	b.begin()
	b.report("fra-1", found("fra-2", 1))
	b.readAll(nil)
	if n := value(b.gather()["synmesh_probes_total"], "from", "fra-1", "to", "fra-2", "outcome", "open"); n != 1 {
		t.Errorf("got %v", n)
	}
}

func TestAnAgentIsInTheGroupThatItHasNow(t *testing.T) {
	b := measure(t, nil)
	b.begin()
	b.report("fra-1", found("nyc-1", 1))
	cursor := b.readAll(nil)
	b.fleet.Connect(fleet.Agent{Name: "fra-1", Labels: map[string]string{"dc": "am\xff"}}, &synmeshv1.SessionResponse{})
	b.report("fra-1", found("nyc-1", 1))
	b.readAll(cursor)
	f := b.gather()["synmesh_probes_total"]
	for _, from := range []string{"fra", "am?"} {
		if n := value(f, "from", from, "to", "nyc", "outcome", "open"); n != 1 {
			t.Errorf("from %s: %v", from, n)
		}
	}
}

func TestTooManyPairsAreOne(t *testing.T) {
	b := measure(t, nil)
	b.pairs.limit = 2
	b.begin()
	for _, target := range []string{"fra-1", "nyc-1", "x:1", "fra-1"} {
		b.report("fra-1", found(target, 10), found(target, 20))
		b.report("nyc-1", found(target, 10))
	}
	b.readAll(nil)
	f := b.gather()
	if n := len(f["synmesh_rtt_seconds"].GetMetric()); n != 3 {
		t.Errorf("%d series", n)
	}
	total := 0.0
	for _, m := range f["synmesh_probes_total"].GetMetric() {
		total += m.GetCounter().GetValue()
	}
	over := value(f["synmesh_probes_total"], "from", overflow, "to", overflow, "outcome", "open")
	if total != 12 || over != 6 || value(f["synmesh_metrics_overflow_results_total"]) != over {
		t.Errorf("%v of %v results overflow, want 6 of 12; the counter says %v", over, total, value(f["synmesh_metrics_overflow_results_total"]))
	}
}

func TestWhatComesTooFastIsSkippedAndCounted(t *testing.T) {
	b := measure(t, nil)
	b.atOnce, b.maxBehind = 3, 10
	b.begin()
	var cursor history.Cursor
	stored := 0
	store := func(n int) {
		for range n {
			b.report("fra-1", found("nyc-1", 1))
		}
		stored += n
	}
	check := func(read, skipped float64) {
		t.Helper()
		cursor = b.readAll(cursor)
		f := b.gather()
		if r, s := value(f["synmesh_probes_total"], "from", "fra", "to", "nyc", "outcome", "open"), value(f["synmesh_metrics_skipped_reports_total"]); r != read || s != skipped || r+s != float64(stored) {
			t.Errorf("of %d reports %v are read and %v skipped, want %v and %v", stored, r, s, read, skipped)
		}
	}
	store(10)
	check(10, 0)
	store(11)
	check(10, 11)
	store(7)
	check(17, 11)
}

func TestWhatCannotBeReadIsSkippedAndLoggedOnce(t *testing.T) {
	b := measure(t, nil)
	b.begin()
	var cursor history.Cursor
	b.scanError = errors.New("the disk is gone")
	for range 3 {
		b.report("fra-1", found("nyc-1", 1))
		cursor = b.readAll(cursor)
	}
	b.scanError = nil
	b.report("fra-1", found("nyc-1", 1))
	b.readAll(cursor)
	f := b.gather()
	if n := value(f["synmesh_probes_total"], "from", "fra", "to", "nyc", "outcome", "open"); n != 1 {
		t.Errorf("%v results are counted, want that after", n)
	}
	if n := value(f["synmesh_metrics_skipped_reports_total"]); n != 3 {
		t.Errorf("%v reports are skipped, want 3", n)
	}
	if n := b.log.count("the disk is gone"); n != 1 {
		t.Errorf("it is logged %d times", n)
	}
}

func TestRunCountsWhatIsStoredFromThenOn(t *testing.T) {
	b := measure(t, nil)
	b.every = time.Millisecond
	b.report("fra-1", found("nyc-1", 1))
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- b.Metrics.Run(ctx) }()
	deadline := time.Now().Add(patience)
	for n := 0.0; !(n > 0); {
		b.report("fra-1", found("nyc-1", 1))
		n = value(b.gather()["synmesh_probes_total"], "from", "fra", "to", "nyc", "outcome", "open")
		if time.Now().After(deadline) {
			t.Fatal("nothing is counted")
		}
	}
	cancel()
	if err := <-ran; err != nil {
		t.Error(err)
	}
	if n := value(b.gather()["synmesh_probes_total"], "from", "fra", "to", "nyc", "outcome", "open"); n >= float64(b.store.Stats().Reports) {
		t.Errorf("what was there before is counted: %v", n)
	}
}

func TestTheControllersOwnNumbersAreThere(t *testing.T) {
	b := measure(t, nil)
	b.report("fra-1", found("nyc-1", 1), found("nyc-1", 2))
	if _, err := b.store.Append(t.Context(), "fra-1", &synmeshv1.Report{Epoch: 1, Sequence: 1}); err != nil {
		t.Fatal(err)
	}
	f := b.gather()
	for _, tt := range []struct {
		name   string
		want   float64
		labels []string
	}{
		{"synmesh_agents", 4, []string{"state", "connected"}},
		{"synmesh_agents", 0, []string{"state", "disconnected"}},
		{"synmesh_agents_backlog_results", 0, nil},
		{"synmesh_calls_total", 3, []string{"method", "/synmesh.v1.FleetService/ListAgents", "code", "PermissionDenied"}},
		{"synmesh_feed_overflows_total", 2, nil},
		{"synmesh_history_reports_total", 1, nil},
		{"synmesh_history_results_total", 2, nil},
		{"synmesh_history_duplicate_reports_total", 1, nil},
		{"synmesh_history_commits_total", 1, []string{"outcome", "stored"}},
		{"synmesh_history_commits_total", 0, []string{"outcome", "failed"}},
		{"synmesh_history_corrupt_records_total", 0, nil},
		{"synmesh_history_damaged_files_total", 0, nil},
		{"synmesh_history_bytes", 0, []string{"tier", "raw"}},
		{"synmesh_history_archive_lag_seconds", 0, nil},
	} {
		if got := value(f[tt.name], tt.labels...); got != tt.want {
			t.Errorf("%s %v is %v, want %v", tt.name, tt.labels, got, tt.want)
		}
	}
	if n := value(f["synmesh_history_bytes"], "tier", "intake"); n <= 0 {
		t.Errorf("the intake has %v bytes", n)
	}
	if m := f["synmesh_build_info"].GetMetric(); len(m) != 1 || !strings.Contains(fmt.Sprint(m[0]), "v1.2.3") {
		t.Errorf("got %v", m)
	}
	for _, name := range []string{"go_goroutines", "process_resident_memory_bytes"} {
		if f[name] == nil {
			t.Errorf("%s is missing", name)
		}
	}
}

func TestWhatAgentsDropAndRefuseIsSummedUp(t *testing.T) {
	b := measure(t, nil)
	dropping := func(counts ...uint64) *synmeshv1.Heartbeat {
		h := &synmeshv1.Heartbeat{}
		for reason, n := range counts {
			h.Drops = append(h.Drops, &synmeshv1.DropCount{Reason: synmeshv1.DropReason(reason), Results: n})
		}
		return h
	}
	h := dropping(0, 5, 2)
	h.Refused, h.Backlog = []*synmeshv1.Refusal{{Source: "measurements/a"}, {Source: "measurements/b"}}, 7
	b.fleet.Session("fra-1").Heard(h)
	h = dropping(1, 10, 0, 0, 0, 3, 4, 8) // the last two are of a later version
	h.Refused, h.Backlog = []*synmeshv1.Refusal{{Source: "measurements/a"}}, 1
	b.fleet.Session("nyc-1").Heard(h)
	b.fleet.Session("nyc-1").End("gone") // it has lost them all the same
	f := b.gather()
	for reason, want := range map[string]float64{"full": 15, "disk": 2, "rejected": 0, "corrupt": 0, "crash": 3, "other": 13} {
		if got := value(f["synmesh_agents_dropped_results"], "reason", reason); got != want {
			t.Errorf("%v results are dropped because of %s, want %v", got, reason, want)
		}
	}
	if n := len(f["synmesh_agents_dropped_results"].GetMetric()); n != 6 {
		t.Errorf("there are %d reasons", n)
	}
	for name, want := range map[string]float64{"synmesh_agents_refused_entries": 2, "synmesh_agents_backlog_results": 7} {
		if got := value(f[name]); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
}

func TestNamesFollowTheConventions(t *testing.T) {
	b := measure(t, nil)
	b.begin()
	b.report("fra-1", found("nyc-1", 1))
	b.readAll(nil)
	families, err := b.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestWithoutADiskThereIsNothingOfIt(t *testing.T) {
	b := measure(t, func(c *Config) { c.Usage = nil })
	if f := b.gather()["synmesh_history_bytes"]; f != nil {
		t.Errorf("got %v", f)
	}
	b = measure(t, func(c *Config) {
		c.Usage = func() (history.Usage, error) { return history.Usage{}, errors.New("the folder is gone") }
	})
	w := httptest.NewRecorder()
	b.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "synmesh_agents{") || b.log.count("the folder is gone") == 0 {
		t.Errorf("a folder that cannot be read hides the rest: %d", w.Code)
	}
}

// docs/metrics.md lists what there is, and nothing else.
func TestTheDocumentListsWhatThereIs(t *testing.T) {
	s := newSink(t)
	b := measure(t, func(c *Config) { c.OTLP = &OTLP{Endpoint: s.address, CA: s.ca} })
	b.begin()
	b.report("fra-1", found("nyc-1", 1))
	b.readAll(nil)
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := make(map[string]string)
	for _, m := range regexp.MustCompile("(?m)^\\| `(synmesh_[a-z_]+)` \\| ([a-z]+) \\|").FindAllStringSubmatch(string(text), -1) {
		listed[m[1]] = m[2]
	}
	for name, f := range b.gather() {
		if kind := strings.ToLower(f.GetType().String()); strings.HasPrefix(name, "synmesh_") && listed[name] != kind {
			t.Errorf("%s is a %s, and the document says %q", name, kind, listed[name])
		}
		delete(listed, name)
	}
	if len(listed) > 0 {
		t.Errorf("the document lists what is not there: %v", listed)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}
