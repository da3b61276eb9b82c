package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// series is one line of a summary.
type series struct {
	agent, target string
	flow          uint16 // the source port, if there are several
}

// runReport gathers what a run finds and shows it. The progress display reads
// it while results come in.
type runReport struct {
	app      *app
	limits   []threshold
	flows    bool                    // each is summed up by itself
	ports    bool                    // what counts is which ports are open
	writer   rowWriter[probe.Result] // for formats that go out one by one
	progress *progress               // nil if nobody watches

	mu      sync.Mutex
	name    string
	agents  []string
	sums    map[series]*probe.Summary
	results []probe.Result // for formats that are one document
	faults  []string       // of agents that did not do all
	failed  error          // of writing
}

func newRunReport(a *app, f *runFlags, limits []threshold) *runReport {
	return &runReport{app: a, limits: limits, flows: f.flows > 1, ports: f.ports(), sums: make(map[series]*probe.Summary), writer: newResultWriter(a.out, a.output)}
}

// begin is called once the run is under way.
func (r *runReport) begin(name string, agents []string) {
	r.mu.Lock()
	r.name, r.agents = name, agents
	r.mu.Unlock()
	if terminal(r.app.err) && (!terminal(r.app.out) || r.app.output == asTable || r.app.output == asWide) {
		r.progress = startProgress(r.app.err, r.table)
	}
}

func (r *runReport) add(res *probe.Result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := series{agent: res.Agent, target: res.Target}
	if r.flows {
		key.flow = res.LocalPort
	}
	if r.sums[key] == nil {
		r.sums[key] = &probe.Summary{}
	}
	r.sums[key].Add(res)
	switch r.app.output {
	case asJSON, asYAML:
		r.results = append(r.results, *res)
	case asJSONL, asCSV:
		if err := r.writer.write(res); err != nil && r.failed == nil {
			r.failed = err
		}
	}
}

// ended notes what an agent did not do.
func (r *runReport) ended(e *synmeshv1.RunAgentEnded) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.GetError() != "" {
		r.faults = append(r.faults, fmt.Sprintf("agent %s: %s", e.GetAgent(), e.GetError()))
	}
	if e.GetMissing() > 0 {
		r.faults = append(r.faults, fmt.Sprintf("agent %s: %d of its results were lost on the way", e.GetAgent(), e.GetMissing()))
	}
}

// finish shows what is to be shown at the end, and returns how it went.
func (r *runReport) finish(ctx context.Context, err error) error {
	r.progress.stop()
	if len(r.sums) > 0 || err == nil {
		if e := r.show(); err == nil {
			err = e
		}
	}
	for _, f := range r.faults {
		fmt.Fprintln(r.app.err, f)
	}
	switch {
	case ctx.Err() != nil:
		return &exit{code: exitInterrupted}
	case err != nil:
		return err
	case r.failed != nil:
		return fmt.Errorf("write results: %w", r.failed)
	case len(r.faults) > 0:
		return &exit{code: exitAgents}
	}
	return r.judge()
}

func (r *runReport) show() error {
	switch r.app.output {
	case asTable, asWide:
		return print(r.app.out, r.table())
	case asJSON, asYAML:
		if r.results == nil {
			r.results = []probe.Result{}
		}
		return printValue(r.app.out, r.app.output, r.results)
	case asName:
		_, err := fmt.Fprintln(r.app.out, cmp.Or(r.name, "here"))
		return err
	}
	return nil
}

// judge tells whether thresholds were broken, or nothing was answered.
func (r *runReport) judge() error {
	answered, broken := 0, false
	for _, key := range r.order() {
		s := r.sums[key]
		answered += s.Answered()
		for _, t := range r.limits {
			if t.broken(s) {
				broken = true
				fmt.Fprintf(r.app.err, "threshold broken: %s from %s to %s\n", t.text, key.agent, key.target)
			}
		}
	}
	if answered == 0 {
		return &exit{exitBroken, fmt.Errorf("no probe was answered%s", r.why())}
	}
	if broken {
		return &exit{code: exitBroken}
	}
	return nil
}

// why tells the outcomes where no probe was answered.
func (r *runReport) why() string {
	var parts []string
	for _, o := range []probe.Outcome{probe.Timeout, probe.Unreachable, probe.Error} {
		n := 0
		for _, s := range r.sums {
			n += s.Count(o)
		}
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %v", n, o))
		}
	}
	if parts == nil {
		return ""
	}
	return ": " + strings.Join(parts, ", ")
}

func (r *runReport) order() []series {
	return slices.SortedFunc(maps.Keys(r.sums), func(a, b series) int {
		return cmp.Or(cmp.Compare(a.agent, b.agent), compareTargets(a.target, b.target), cmp.Compare(a.flow, b.flow))
	})
}

// table is the summary so far, a line for each agent and target.
func (r *runReport) table() *table {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ports {
		return r.portTable()
	}
	t := &table{left: 2, alarm: make(map[int]bool)}
	t.header = []string{"AGENT", "TARGET"}
	if r.flows {
		t.header = append(t.header, "FLOW")
	}
	t.header = append(t.header, "SENT", "OPEN")
	wide := r.app.output == asWide
	if wide {
		t.header = append(t.header, "CLOSED", "UNREACHABLE", "TIMEOUT", "ERROR")
	}
	t.header = append(t.header, "LOSS", "MIN", "P50", "P90", "P99", "MAX", "JITTER")
	if wide {
		t.header = append(t.header, "SYN COOKIES")
	}
	for i, key := range r.order() {
		s := r.sums[key]
		row := []string{key.agent, key.target}
		if r.flows {
			row = append(row, fmt.Sprint(key.flow))
		}
		row = append(row, fmt.Sprint(s.Sent()), fmt.Sprint(s.Count(probe.Open)))
		if wide {
			for _, o := range probe.Outcomes()[1:] {
				row = append(row, fmt.Sprint(s.Count(o)))
			}
		}
		row = append(row, loss(s))
		for _, q := range []float64{0, 0.5, 0.9, 0.99, 1} {
			row = append(row, ifAny(s.Timed(), s.Quantile(q)))
		}
		row = append(row, ifAny(s.Timed()-1, s.Jitter()))
		if wide {
			row = append(row, s.Cookies())
		}
		t.rows = append(t.rows, row)
		t.alarm[i] = s.Answered() < s.Sent()
	}
	return t
}

func loss(s *probe.Summary) string {
	if s.Sent() == s.Count(probe.Error) {
		return "-"
	}
	return percent(s.Loss())
}

// ifAny shows the duration if it is drawn from anything.
func ifAny(n int, d time.Duration) string {
	if n <= 0 {
		return "-"
	}
	return milliseconds(d)
}
