package history

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/synmesh/synmesh/controller/history/rollup"
	"github.com/synmesh/synmesh/probe"
)

// maxSummaries bounds the summaries of an answer; each takes about a kilobyte.
const maxSummaries = 250_000

// ErrTooLarge says that an answer would take too much memory.
var ErrTooLarge = errors.New("answer too large")

// tally gathers what answers a query, or a part of that.
type tally struct {
	plan   *queryPlan
	pace   pace
	asked  int // how often it might go on
	found  map[place][]*rollup.Summary
	series map[string]*member // by key, as far as it has been asked; nil if it is not wanted
	agents *Names             // that are wanted
	made   *atomic.Int64      // summaries, of all tallies of the query
}

// place is what is summed up together.
type place struct {
	Series
	port uint16 // of the flow, if these are asked for
}

// member is a series, as far as a tally is concerned.
type member struct {
	as   Series
	list []*rollup.Summary // of all flows
}

func newTally(s *Store, p *queryPlan, made *atomic.Int64) *tally {
	t := &tally{plan: p, pace: pace{store: s}, found: make(map[place][]*rollup.Summary), series: make(map[string]*member), made: made}
	if p.WantsAgent != nil {
		t.agents = NewNames(p.WantsAgent)
	}
	return t
}

// mayGoOn is called with every series: it lets the intake go first now and then, and says if there is too much.
func (t *tally) mayGoOn(ctx context.Context) error {
	const seldom = 16 // looking at the clock takes as long as many a record
	if t.asked++; t.asked%seldom == 1 {
		if err := t.pace.giveWay(ctx); err != nil {
			return err
		}
	}
	return t.check()
}

// wantsAgent tells whether the agent that a key begins with may be asked for.
func (t *tally) wantsAgent(key []byte) bool {
	return len(key) == 0 || len(key) < 1+int(key[0]) || t.agents.has(key[1:1+int(key[0])])
}

// member returns the series of a key, which is without its tail, or nil if it is not asked for.
func (t *tally) member(key []byte) *member {
	m, known := t.series[string(key)]
	if known {
		return m
	}
	if id, _, ok := parseKey(withTail(key, 0)); ok && t.wantsAgent(key) && t.plan.sources.has(id) {
		as := id
		if t.plan.Group != nil {
			as, ok = t.plan.Group(id)
		}
		if ok {
			m = &member{as: as}
		}
	}
	t.series[string(key)] = m
	return m
}

// steps returns the summaries of a series, or of one of its flows.
func (t *tally) steps(m *member, port uint16) []*rollup.Summary {
	if m.list != nil {
		return m.list
	}
	at := place{Series: m.as}
	if t.plan.Flows {
		at.port = port
	}
	list := t.found[at]
	if list == nil {
		list = make([]*rollup.Summary, t.plan.steps)
		t.made.Add(int64(t.plan.steps) / 64) // they take room, too
		t.found[at] = list
	}
	if !t.plan.Flows {
		m.list = list
	}
	return list
}

func (t *tally) wantsPort(port uint16) bool { return t.plan.LocalPort == 0 || t.plan.LocalPort == port }

// at returns the summary of a step, of none if need be.
func (t *tally) at(list []*rollup.Summary, step int) *rollup.Summary {
	if list[step] == nil {
		list[step] = &rollup.Summary{}
		t.made.Add(1)
	}
	return list[step]
}

// sumRun adds summaries, as of rollup.Append, of what is in some time to the steps; each is of the length.
func (t *tally) sumRun(list []*rollup.Summary, run []byte, span times, length int64) error {
	together := func(first, last int64) bool {
		return t.plan.stepOf(first*length) == t.plan.stepOf(last*length)
	}
	return rollup.Decode(run, span.from/length, span.to/length, together, func(slot *rollup.Slot) bool {
		t.at(list, t.plan.stepOf(slot.At*length)).Merge(&slot.Summary)
		return true
	})
}

// check returns an error if there is too much.
func (t *tally) check() error {
	if n := t.made.Load(); n > maxSummaries {
		return fmt.Errorf("%w: more than %d series, or flows, and steps; ask for longer steps, a shorter time or fewer series", ErrTooLarge, maxSummaries)
	}
	return nil
}

// add adds a result.
func (t *tally) add(r *probe.Result) {
	ns := r.Time.UnixMicro() * int64(time.Microsecond) // as the archive has it
	if !t.plan.span.contains(ns) || !t.agents.has([]byte(r.Agent)) || t.check() != nil {
		return
	}
	m := t.member(seriesKey(r.Agent, r.Source, r.Target))
	if m == nil || !t.wantsPort(r.LocalPort) {
		return
	}
	t.at(t.steps(m, r.LocalPort), t.plan.stepOf(ns)).Add(r.Outcome, r.RTT, r.Timed())
}

// merge adds what another has gathered.
func (t *tally) merge(o *tally) {
	for at, list := range o.found {
		into := t.found[at]
		if into == nil {
			t.found[at] = list
			continue
		}
		for i, s := range list {
			switch {
			case s == nil:
			case into[i] == nil:
				into[i] = s
			default:
				into[i].Merge(s)
			}
		}
	}
}

func (t *tally) answers() []Answer {
	list := make([]Answer, 0, len(t.found))
	for at, steps := range t.found {
		for _, s := range steps {
			if s != nil {
				list = append(list, Answer{at.Series, at.port, steps})
				break
			}
		}
	}
	return list
}
