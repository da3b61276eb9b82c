package historytest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/synmesh/synmesh/controller/history"
	"github.com/synmesh/synmesh/probe"
)

func testQuery(t *testing.T, s Subject) {
	r := s.startFor(t)
	began := r.now()
	for i := range uint64(40) {
		timeout := r.result("m", "y", 0, 0)
		timeout.Outcome = probe.Timeout
		r.add(t, "a", reportOf(1, i+1, r.result("m", "x", 0, time.Duration(1000+i)), timeout))
		r.add(t, "b", reportOf(1, i+1, r.result("m", "x", 30*time.Minute, 5000), r.result("n", "x", 0, 1)))
		r.clock.add(5 * time.Minute)
		if i%16 == 15 {
			r.settle(t)
		}
	}
	for what, tt := range map[string]struct {
		q    history.Query
		want map[string]string
	}{
		"all": {history.Query{From: began.Add(-time.Hour), To: began.Add(4 * time.Hour)},
			map[string]string{"m a x 0": "40/0", "m a y 0": "0/40", "m b x 0": "40/0", "n b x 0": "40/0"}},
		"by the hour": {history.Query{Source: "m", From: began.Add(-time.Hour), To: began.Add(4 * time.Hour), Step: time.Hour},
			map[string]string{"m a x 0": "- 12/0 12/0 12/0 4/0", "m a y 0": "- 0/12 0/12 0/12 0/4", "m b x 0": "6/0 12/0 12/0 10/0 -"}},
		"of some": {history.Query{Agents: []string{"a", "c"}, Targets: []string{"x"}, From: began, To: began.Add(time.Hour), Step: 25 * time.Minute},
			map[string]string{"m a x 0": "5/0 5/0 2/0"}},
		"whole minutes": {history.Query{Agents: []string{"a"}, Targets: []string{"x"}, From: began.Add(30 * time.Second), To: began.Add(10*time.Minute + time.Second)},
			map[string]string{"m a x 0": "3/0"}},
		"by the second": {history.Query{Agents: []string{"a"}, Targets: []string{"x"}, From: began.Add(time.Second), To: began.Add(10*time.Minute + time.Second), Step: 599 * time.Second},
			map[string]string{"m a x 0": "1/0 1/0"}},
		"flows": {history.Query{Source: "n", From: began, To: began.Add(time.Hour), Flows: true},
			map[string]string{"n b x 61000": "12/0"}},
		"a flow": {history.Query{Source: "m", LocalPort: 61000, Targets: []string{"y"}, From: began, To: began.Add(30 * time.Minute)},
			map[string]string{"m a y 0": "0/6"}},
		"another flow": {history.Query{Source: "m", LocalPort: 61001, From: began, To: began.Add(time.Hour)}, map[string]string{}},
		"groups": {history.Query{From: began, To: began.Add(time.Hour), Group: func(s history.Series) (history.Series, bool) {
			return history.Series{Source: "all", Target: s.Target}, s.Agent != "b" || s.Source == "n"
		}}, map[string]string{"all  x 0": "24/0", "all  y 0": "0/12"}},
		"nothing": {history.Query{Source: "nobody", From: began, To: began.Add(time.Hour)}, map[string]string{}},
	} {
		if d := cmp.Diff(tt.want, r.counts(t, tt.q)); d != "" {
			t.Errorf("%s: %s", what, d)
		}
	}
	answers, err := r.Query(t.Context(), history.Query{Agents: []string{"a"}, Targets: []string{"x"}, From: began, To: began.Add(time.Hour)})
	if err != nil || len(answers) != 1 {
		t.Fatal(answers, err)
	}
	if s := answers[0].Steps[0]; s.Timed != 12 || s.Min != 1000 || s.Max != 1011 || s.Sum != 12*1000+66 {
		t.Errorf("%+v", s)
	}
}

// counts returns how many results of each answer were open and timed out, step by step.
func (r *running) counts(t *testing.T, q history.Query) map[string]string {
	t.Helper()
	answers, err := r.Query(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string)
	for _, a := range answers {
		text := ""
		for _, s := range a.Steps {
			if s == nil {
				text += " -"
			} else {
				text += fmt.Sprintf(" %d/%d", s.Counts[probe.Open], s.Counts[probe.Timeout])
			}
		}
		got[fmt.Sprintf("%s %s %s %d", a.Source, a.Agent, a.Target, a.LocalPort)] = text[1:]
	}
	return got
}

func testInvalidQueries(t *testing.T, s Subject) {
	r := s.startFor(t)
	now := r.now()
	for what, q := range map[string]history.Query{
		"no time":             {},
		"an empty time":       {From: now, To: now},
		"from behind to":      {From: now.Add(time.Second), To: now},
		"a negative step":     {From: now, To: now.Add(time.Hour), Step: -time.Minute},
		"too many steps":      {From: now, To: now.Add(100_001 * time.Minute), Step: time.Minute},
		"too many of seconds": {From: now, To: now.Add(100_001 * time.Second), Step: time.Second},
	} {
		if a, err := r.Query(t.Context(), q); !errors.Is(err, history.ErrInvalid) {
			t.Errorf("%s: %v, %v", what, a, err)
		}
	}
	if _, err := r.Query(t.Context(), history.Query{From: now, To: now.Add(100_000 * time.Minute), Step: time.Minute}); err != nil {
		t.Errorf("as many steps as there may be: %v", err)
	}
}

func testTooLarge(t *testing.T, s Subject) {
	r := s.startFor(t)
	var results []probe.Result
	for i := range 300 {
		results = append(results, r.result("m", fmt.Sprint("t", i), 0, 1))
	}
	for i := range uint64(2) {
		r.add(t, "a", reportOf(1, i+1, results...))
	}
	q := history.Query{From: r.now().Add(-900 * time.Minute), To: r.now().Add(90_000 * time.Minute), Step: time.Minute}
	if a, err := r.Query(t.Context(), q); !errors.Is(err, history.ErrTooLarge) {
		t.Errorf("%d answers, %v", len(a), err)
	}
}
