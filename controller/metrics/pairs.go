package metrics

import (
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/synmesh/synmesh/controller/history"
	"github.com/synmesh/synmesh/probe"
)

const (
	// maxPairs is how many pairs of groups are told apart; each is about twenty series.
	maxPairs = 10_000
	// overflow is the name on both sides of what is one pair for all others.
	overflow = "(overflow)"
)

// between names a pair of groups.
type between struct{ from, to string }

// pair is what was measured from one group to another.
type pair struct {
	between
	since  time.Time
	labels []*dto.LabelPair
	rtts   rtts
	probes [probe.Error + 1]uint64 // by outcome
}

func (p *pair) add(f *history.Found) {
	p.probes[f.Outcome]++
	if f.Timed {
		p.rtts.add(f.RTT)
	}
}

// pairs are a prometheus.Collector.
type pairs struct {
	rtt, probes, count, more *prometheus.Desc
	limit                    int

	mu    sync.Mutex // of all below, and of what is in a pair
	known map[between]*pair
	list  []*pair // those known
	over  uint64  // results of the pair overflow
}

func newPairs(by string) *pairs {
	return &pairs{
		limit: maxPairs, known: make(map[between]*pair),
		rtt:    desc("rtt_seconds", "Round trips from SYN to answer, by the label "+by+" of the agents at both ends.", "from", "to"),
		probes: desc("probes_total", "Probes by outcome, and by the label "+by+" of the agents at both ends.", "from", "to", "outcome"),
		count:  desc("metrics_pairs", "Pairs of groups that are told apart."),
		more:   desc("metrics_overflow_results_total", "Results that were counted for the pair "+overflow+", for there were too many pairs."),
	}
}

// of returns the pair, or what takes its place when there are too many; tells if that is so. The
// caller holds mu.
func (p *pairs) of(b between) (_ *pair, over bool) {
	if found := p.known[b]; found != nil {
		return found, false
	}
	if over = len(p.known) >= p.limit; over {
		b = between{overflow, overflow}
		if found := p.known[b]; found != nil {
			return found, true
		}
	}
	made := &pair{between: b, since: time.Now(), labels: prometheus.MakeLabelPairs(p.rtt, []string{b.from, b.to})}
	p.known[b] = made
	p.list = append(p.list, made)
	return made, over
}

// Describe implements prometheus.Collector.
func (p *pairs) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{p.rtt, p.probes, p.count, p.more} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (p *pairs) Collect(to chan<- prometheus.Metric) {
	p.mu.Lock()
	list, over := slices.Clip(p.list), p.over
	p.mu.Unlock()
	to <- prometheus.MustNewConstMetric(p.count, prometheus.GaugeValue, float64(len(list)))
	to <- prometheus.MustNewConstMetric(p.more, prometheus.CounterValue, float64(over))
	for _, one := range list {
		p.mu.Lock()
		h, probes := one.rtts.histogram(), one.probes
		p.mu.Unlock()
		h.CreatedTimestamp = timestamppb.New(one.since)
		to <- &histogram{p.rtt, one.labels, h}
		for _, o := range probe.Outcomes() { // each is there with the first of the pair, from zero
			to <- prometheus.MustNewConstMetricWithCreatedTimestamp(p.probes, prometheus.CounterValue, float64(probes[o]), one.since, one.from, one.to, o.String())
		}
	}
}

// histogram is a prometheus.Metric.
type histogram struct {
	desc   *prometheus.Desc
	labels []*dto.LabelPair
	counts *dto.Histogram
}

// Desc implements prometheus.Metric.
func (h *histogram) Desc() *prometheus.Desc { return h.desc }

// Write implements prometheus.Metric.
func (h *histogram) Write(to *dto.Metric) error {
	to.Label, to.Histogram = h.labels, h.counts
	return nil
}
