package metrics

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/synmesh/synmesh/probe"
)

const (
	// maxPairs is how many pairs of groups are told apart; each is about twenty series.
	maxPairs = 10_000
	// overflow is the name on both sides of what is one pair for all others.
	overflow = "(overflow)"
	// maxBuckets is how many buckets a native histogram may have before it becomes coarser.
	maxBuckets = 100
)

// rttBuckets are the classic ones, in seconds: from a neighbour's to the other side of the world.
var rttBuckets = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1}

// between names a pair of groups.
type between struct{ from, to string }

// pair is what was measured from one group to another.
type pair struct {
	rtt    prometheus.Observer
	probes [probe.Error + 1]prometheus.Counter // by outcome
}

func (p *pair) add(r *probe.Result) {
	p.probes[r.Outcome].Inc()
	if r.Timed() {
		p.rtt.Observe(r.RTT.Seconds())
	}
}

// pairs has one goroutine that adds.
type pairs struct {
	rtt    *prometheus.HistogramVec
	probes *prometheus.CounterVec
	more   prometheus.Counter // results of the pair overflow
	known  map[between]*pair
	count  atomic.Int64 // of known
	limit  int
}

func newPairs(by string) *pairs {
	return &pairs{
		limit: maxPairs, known: make(map[between]*pair),
		rtt: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "synmesh_rtt_seconds", Help: "Round trips from SYN to answer, by the label " + by + " of the agents at both ends.",
			Buckets: rttBuckets, NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: maxBuckets, NativeHistogramMinResetDuration: time.Hour,
		}, []string{"from", "to"}),
		probes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "synmesh_probes_total", Help: "Probes by outcome, and by the label " + by + " of the agents at both ends.",
		}, []string{"from", "to", "outcome"}),
		more: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "synmesh_metrics_overflow_results_total", Help: "Results that were counted for the pair " + overflow + ", for there were too many pairs.",
		}),
	}
}

func (p *pairs) collectors() []prometheus.Collector {
	return []prometheus.Collector{p.rtt, p.probes, p.more, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "synmesh_metrics_pairs", Help: "Pairs of groups that are told apart.",
	}, func() float64 { return float64(p.count.Load()) })}
}

// of returns the pair, or what takes its place when there are too many; tells if that is so.
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
	made := &pair{rtt: p.rtt.WithLabelValues(b.from, b.to)}
	for _, o := range probe.Outcomes() { // so that each is there with its first sample, from zero
		made.probes[o] = p.probes.WithLabelValues(b.from, b.to, o.String())
	}
	p.known[b] = made
	p.count.Store(int64(len(p.known)))
	return made, over
}
