package history

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/synmesh/synmesh/controller/history/rollup"
)

// Query says what is to be summed up.
type Query struct {
	// Source, Agents and Targets say of which series; empty: of all.
	Source          string
	Agents, Targets []string
	// From (inclusive) and To (exclusive) are by the agents' clocks. Unless single results
	// are read for it, From is rounded down and To up to whole minutes.
	From, To time.Time
	// Step parts that time; the last part may be shorter. 0: it is one.
	Step time.Duration
	// Flows asks for each flow by itself. Like a step that is not in minutes, it
	// takes reading every result, of which there are those of Config.Retention.
	Flows bool
	// LocalPort is the flow that is asked for; 0: all. It takes what Flows does.
	LocalPort uint16
	// WantsAgent says which agents are wanted besides; nil: all. It may be called like Group, and spares
	// reading what is of others.
	WantsAgent func(name string) bool
	// Group says what a series is summed up as, if it is wanted at all; series that become the same are
	// summed up together. It may be called from several goroutines at a time. nil: each by itself.
	Group func(Series) (as Series, wanted bool)
}

// Answer is what there is of a series, as Query.Group names it, or of one of its flows.
type Answer struct {
	Series
	LocalPort uint16 // of the flow, if flows were asked for
	// Steps has an entry for each step, nil where there is no result.
	Steps []*rollup.Summary
}

// maxSteps bounds what a query may ask for.
const maxSteps = 100_000

// Query sums up results. It reads as little as the query allows: summaries of hours for what is in whole hours, of
// minutes for the rest, and of the newest minutes the results. Answers are in
// no order. Errors wrap ErrInvalid for a query that cannot be right, ErrTooLarge, ErrClosed, the context's
// error, or what the operating system said.
func (s *Store) Query(ctx context.Context, q Query) ([]Answer, error) {
	p, err := newQueryPlan(q)
	if err != nil {
		return nil, fmt.Errorf("history: %w query: %w", ErrInvalid, err)
	}
	// Files that are archived or merged meanwhile are gone; what was in them is elsewhere.
	for range 10 {
		var answers []Answer
		if answers, err = s.answer(ctx, p); err == nil {
			return answers, nil
		}
		if !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrClosed) && !errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
			break
		}
	}
	return nil, fmt.Errorf("history: query: %w", err)
}

// queryPlan says which tier answers for which times.
type queryPlan struct {
	Query
	span     times
	step     int64
	steps    int
	finest   tier
	segments []segment
	sources  wantedSeries
}

type segment struct {
	tier tier
	times
}

func newQueryPlan(q Query) (*queryPlan, error) {
	from, to := int64(nanoseconds(q.From)), int64(nanoseconds(q.To))
	if !q.From.Before(q.To) {
		return nil, fmt.Errorf("from %s to %s: it ends before it begins", q.From.UTC().Format(time.RFC3339), q.To.UTC().Format(time.RFC3339))
	}
	if q.Step < 0 {
		return nil, fmt.Errorf("a step of %v: it cannot be negative", q.Step)
	}
	p := &queryPlan{Query: q, step: int64(q.Step), steps: 1, sources: newWantedSeries(q)}
	finest := minutes
	if q.LocalPort != 0 || q.Flows || q.Step%time.Minute != 0 {
		finest = raw
	} else {
		minute := int64(time.Minute)
		from, to = from-from%minute, min(to, maxTime)+minute-1
		to -= to % minute
	}
	p.span = times{from, to}
	if q.Step > 0 {
		if n := (to - from + p.step - 1) / p.step; n > maxSteps {
			return nil, fmt.Errorf("%d steps of %v; ask for %d at most", n, q.Step, maxSteps)
		} else {
			p.steps = int(n)
		}
	} else {
		p.step = to - from
	}
	p.finest = finest
	p.segments = p.split(p.span, finest)
	return p, nil
}

// split finds the coarsest tier for every time.
func (p *queryPlan) split(t times, finest tier) []segment {
	hour := int64(time.Hour)
	first, last := t.from+(hour-t.from%hour)%hour, t.to-t.to%hour
	aligned := p.steps == 1 || p.step%hour == 0 && t.from%hour == 0
	if finest == raw || !aligned || first >= last {
		return []segment{{finest, t}}
	}
	list := []segment{{hours, times{first, last}}}
	for _, edge := range []times{{t.from, first}, {last, t.to}} {
		if edge.from < edge.to {
			list = append(list, segment{finest, edge})
		}
	}
	return list
}

// stepOf returns the step that a time is in.
func (p *queryPlan) stepOf(at int64) int { return int((at - p.span.from) / p.step) }

// wantedSeries says quickly whether a series is wanted.
type wantedSeries struct {
	source          string
	agents, targets map[string]bool // nil: all
}

func newWantedSeries(q Query) wantedSeries {
	set := func(list []string) map[string]bool {
		if len(list) == 0 {
			return nil
		}
		m := make(map[string]bool, len(list))
		for _, s := range list {
			m[s] = true
		}
		return m
	}
	return wantedSeries{q.Source, set(q.Agents), set(q.Targets)}
}

func (w *wantedSeries) has(s Series) bool {
	return (w.source == "" || w.source == s.Source) && (w.agents == nil || w.agents[s.Agent]) && (w.targets == nil || w.targets[s.Target])
}

// prefixes returns what the keys of the series wanted begin with; one that is empty if that is not known.
func (w *wantedSeries) prefixes() (list [][]byte) {
	const most = 256
	for agent := range w.agents {
		if w.source == "" || w.targets == nil || len(w.agents)*len(w.targets) > most {
			list = append(list, agentKey(agent))
			continue
		}
		for target := range w.targets {
			list = append(list, seriesKey(agent, w.source, target))
		}
	}
	if list == nil {
		return [][]byte{nil}
	}
	return list
}
