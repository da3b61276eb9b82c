package historytest

import (
	"errors"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/synmesh/synmesh/controller/history"
	"github.com/synmesh/synmesh/controller/history/rollup"
	"github.com/synmesh/synmesh/internal/convert"
	"github.com/synmesh/synmesh/probe"
	synmeshv1 "github.com/synmesh/synmesh/proto/synmesh/v1"
)

// model is what a history should be: a list of reports, and a map of marks.
type model struct {
	list  []stored
	marks map[stream]uint64
}

type stream struct {
	agent string
	epoch uint64
}

type stored struct {
	id      string
	agent   string
	results []probe.Result
	at      time.Time      // stored then or later
	entry   *history.Entry // nil until it has been seen
}

func testModel(t *testing.T, s Subject) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "history-contract-")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		r, err := s.start(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := errors.Join(r.stop(), r.Close()); err != nil {
				t.Errorf("%v", err)
			}
		}()
		m := &model{marks: make(map[stream]uint64)}
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) { m.append(t, r) },
			"clock": func(t *rapid.T) {
				r.clock.add(time.Duration(rapid.Int64Range(-int64(time.Minute), int64(40*time.Minute)).Draw(t, "by")))
			},
			"settle": func(t *rapid.T) { r.settle(t) },
			"scan":   func(t *rapid.T) { m.scan(t, r) },
			"query":  func(t *rapid.T) { m.query(t, r) },
			"outcomes": func(t *rapid.T) {
				var after history.Cursor
				for _, s := range m.list {
					if s.entry != nil && rapid.IntRange(0, 3).Draw(t, "goes on") == 0 {
						after = s.entry.Cursor
					}
				}
				r.sameOutcomes(t, after)
			},
			"": func(t *rapid.T) {
				for id, want := range m.marks {
					if got, err := r.Sequence(id.agent, id.epoch); got != want || err != nil {
						t.Fatalf("mark of %v: %d, %v; not %d", id, got, err, want)
					}
				}
			},
		})
	})
}

var names = struct{ agents, sources, targets []string }{
	[]string{"a", "b", "ab"}, []string{"", "m", "measurements/mesh"}, []string{"x", "y", "xy"},
}

func drawResults(t *rapid.T, now time.Time, agent string) []probe.Result {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) probe.Result {
		r := probe.Result{
			Agent:     agent,
			Time:      now.Add(-time.Duration(rapid.Int64Range(0, int64(100*time.Minute)).Draw(t, "age"))),
			Source:    rapid.SampledFrom(names.sources).Draw(t, "source"),
			Target:    rapid.SampledFrom(names.targets).Draw(t, "target"),
			LocalPort: rapid.SampledFrom([]uint16{61000, 61001}).Draw(t, "port"),
			Outcome:   rapid.SampledFrom([]probe.Outcome{probe.Open, probe.Open, probe.Closed, probe.Timeout, probe.Error}).Draw(t, "outcome"),
			Attempts:  1, Stamp: probe.StampKernel,
			Lateness:  time.Duration(rapid.Int64Range(0, 1e6).Draw(t, "lateness")),
			HostDelay: time.Duration(rapid.Int64Range(0, 1e6).Draw(t, "host delay")),
		}
		if r.Outcome == probe.Error {
			r.Err = "no route"
		}
		if r.Outcome == probe.Open {
			r.SynAck = &probe.SynAck{Window: 64240, MSS: 1460, WindowScale: rapid.Int8Range(-1, 14).Draw(t, "scale"), TTL: 64}
			if rapid.IntRange(0, 5).Draw(t, "retried") == 0 {
				r.Attempts, r.Retry = 2, &probe.Retry{Answered: rapid.IntRange(0, 2).Draw(t, "answered"), Waited: time.Second}
			}
		}
		if r.Timed() {
			r.RTT = time.Duration(rapid.Int64Range(1, 1e9).Draw(t, "rtt"))
		}
		return r
	}), 0, 12).Draw(t, "results")
}

func (m *model) append(t *rapid.T, r *running) {
	id := stream{rapid.SampledFrom(names.agents).Draw(t, "agent"), rapid.Uint64Range(1, 2).Draw(t, "epoch")}
	sequence := uint64(max(1, int(m.marks[id])+rapid.IntRange(-1, 3).Draw(t, "step")))
	report := reportOf(id.epoch, sequence, drawResults(t, r.now(), id.agent)...)
	if err := convert.CheckReport(report); err != nil {
		t.Fatalf("the test makes what no agent would send: %v", err)
	}
	fresh, err := r.Append(t.Context(), id.agent, report)
	if err != nil || fresh != (sequence > m.marks[id]) {
		t.Fatalf("%v, %d after %d: stored %v, %v", id, sequence, m.marks[id], fresh, err)
	}
	if fresh {
		m.marks[id] = sequence
		m.list = append(m.list, stored{idOf(id.agent, report), id.agent, rows(id.agent, report), r.now(), nil})
	}
}

// rows returns the results of a report in the order of their series, as far as every history keeps them.
func rows(agent string, report *synmeshv1.Report) (list []probe.Result) {
	for r := range convert.Rows(agent, report) {
		c := *r
		c.Time = c.Time.Truncate(time.Microsecond).UTC()
		c.Lateness, c.HostDelay = c.Lateness.Truncate(time.Microsecond), c.HostDelay.Truncate(time.Microsecond)
		if r.SynAck != nil {
			said := *r.SynAck
			c.SynAck = &said
		}
		list = append(list, c)
	}
	slices.SortStableFunc(list, func(a, b probe.Result) int {
		if a.Source != b.Source {
			return len(a.Source) - len(b.Source)
		}
		return slices.Compare([]byte(a.Target), []byte(b.Target))
	})
	return list
}

func (m *model) scan(t *rapid.T, r *running) {
	f := history.Filter{
		Agent:  rapid.SampledFrom(append(names.agents, "", "")).Draw(t, "agent"),
		Source: rapid.SampledFrom(append(names.sources, "", "")).Draw(t, "source"),
		Target: rapid.SampledFrom(append(names.targets, "", "")).Draw(t, "target"),
	}
	var from, to time.Time
	var after history.Cursor
	first, last := 0, len(m.list)
	known := slices.IndexFunc(m.list, func(s stored) bool { return s.entry == nil })
	if known < 0 {
		known = len(m.list)
	}
	if known > 0 {
		pick := func(what string) int { return rapid.IntRange(0, known-1).Draw(t, what) }
		if rapid.Bool().Draw(t, "bounded below") {
			first = pick("from")
			from = m.list[first].entry.Stored
		}
		if rapid.Bool().Draw(t, "bounded above") {
			last = pick("to")
			to = m.list[last].entry.Stored
		}
		if rapid.Bool().Draw(t, "goes on") {
			i := pick("after")
			after, first = m.list[i].entry.Cursor, max(first, i+1)
		}
	}
	for e, err := range r.ScanSeries(t.Context(), f, from, to, after) {
		if err != nil {
			t.Fatalf("%v", err)
		}
		for first < last && f.Agent != "" && m.list[first].agent != f.Agent {
			first++
		}
		if first >= last {
			t.Fatalf("%s comes behind the end", idOf(e.Agent, e.Report))
		}
		m.list[first].is(t, e, f)
		first++
	}
	for ; first < last; first++ {
		if f.Agent == "" || m.list[first].agent == f.Agent {
			t.Fatalf("%s does not come", m.list[first].id)
		}
	}
}

// is sees that an entry is what was stored.
func (s *stored) is(t *rapid.T, e history.Entry, f history.Filter) {
	if got := idOf(e.Agent, e.Report); got != s.id || e.Stored.Before(s.at.Truncate(0)) && s.entry == nil {
		t.Fatalf("%s, stored at %v, comes where %s should, of %v", got, e.Stored, s.id, s.at)
	}
	if s.entry != nil && (s.entry.Cursor.Compare(e.Cursor) != 0 || !s.entry.Stored.Equal(e.Stored)) {
		t.Fatalf("the cursor or time of %s changes", s.id)
	}
	want := slices.DeleteFunc(slices.Clone(s.results), func(r probe.Result) bool {
		return f.Source != "" && f.Source != r.Source || f.Target != "" && f.Target != r.Target
	})
	if d := cmp.Diff(want, rows(e.Agent, e.Report), cmpopts.EquateComparable(probe.Result{}.Remote), cmpopts.EquateEmpty()); d != "" {
		t.Fatalf("%s: %s", s.id, d)
	}
	s.entry = &e
}

func (m *model) query(t *rapid.T, r *running) {
	q := history.Query{
		Source:    rapid.SampledFrom(append(names.sources, "")).Draw(t, "source"),
		Agents:    rapid.SliceOfNDistinct(rapid.SampledFrom(names.agents), 0, 2, rapid.ID).Draw(t, "agents"),
		Targets:   rapid.SliceOfNDistinct(rapid.SampledFrom(names.targets), 0, 2, rapid.ID).Draw(t, "targets"),
		From:      r.now().Add(-time.Duration(rapid.Int64Range(1, int64(5*time.Hour)).Draw(t, "back"))),
		Step:      rapid.SampledFrom([]time.Duration{0, time.Minute, 7 * time.Minute, time.Hour, 90 * time.Second}).Draw(t, "step"),
		Flows:     rapid.Bool().Draw(t, "flows"),
		LocalPort: rapid.SampledFrom([]uint16{0, 0, 0, 61001}).Draw(t, "port"),
	}
	if rapid.Bool().Draw(t, "grouped") {
		q.Group = func(s history.Series) (history.Series, bool) {
			return history.Series{Agent: s.Agent}, s.Target != "xy"
		}
	}
	q.To = q.From.Add(time.Duration(rapid.Int64Range(1, int64(5*time.Hour)).Draw(t, "long")))
	answers, err := r.Query(t.Context(), q)
	if err != nil {
		t.Fatalf("%+v: %v", q, err)
	}
	got := make(map[flow][]string)
	for _, a := range answers {
		id := flow{a.Series, a.LocalPort}
		if got[id] != nil {
			t.Fatalf("%v is answered twice", id)
		}
		for _, s := range a.Steps {
			got[id] = append(got[id], text(s))
		}
	}
	if d := cmp.Diff(m.answers(q), got); d != "" {
		t.Fatalf("%+v: %s", q, d)
	}
}

type flow struct {
	history.Series
	Port uint16
}

// text returns a summary as text that is the same for the same results.
func text(s *rollup.Summary) string {
	if s == nil {
		return "-"
	}
	return string(rollup.Append(nil, []rollup.Slot{{Summary: *s}}))
}

// answers is what a query should give.
func (m *model) answers(q history.Query) map[flow][]string {
	from, to := q.From, q.To
	if !q.Flows && q.LocalPort == 0 && q.Step%time.Minute == 0 {
		from, to = from.Truncate(time.Minute), to.Add(time.Minute-1).Truncate(time.Minute)
	}
	step := q.Step
	if step == 0 {
		step = to.Sub(from)
	}
	sums := make(map[flow][]*rollup.Summary)
	for _, s := range m.list {
		for _, r := range s.results {
			if r.Time.Before(from) || !r.Time.Before(to) || q.Source != "" && q.Source != r.Source ||
				len(q.Agents) > 0 && !slices.Contains(q.Agents, r.Agent) || len(q.Targets) > 0 && !slices.Contains(q.Targets, r.Target) {
				continue
			}
			id := flow{Series: history.Series{Source: r.Source, Agent: r.Agent, Target: r.Target}}
			wanted := q.LocalPort == 0 || q.LocalPort == r.LocalPort
			if q.Group != nil {
				var in bool
				id.Series, in = q.Group(id.Series)
				wanted = wanted && in
			}
			if !wanted {
				continue
			}
			if q.Flows {
				id.Port = r.LocalPort
			}
			if sums[id] == nil {
				sums[id] = make([]*rollup.Summary, (to.Sub(from)+step-1)/step)
			}
			into := &sums[id][r.Time.Sub(from)/step]
			if *into == nil {
				*into = &rollup.Summary{}
			}
			(*into).Add(r.Outcome, r.RTT, r.Timed())
		}
	}
	want := make(map[flow][]string)
	for id, list := range sums {
		for _, s := range list {
			want[id] = append(want[id], text(s))
		}
	}
	return want
}
