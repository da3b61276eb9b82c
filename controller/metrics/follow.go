package metrics

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/synmesh/synmesh/controller/history"
	"github.com/synmesh/synmesh/internal/selector"
)

const (
	// every is how often it is looked for what has been stored; in between it gathers.
	every = time.Second
	// atOnce is how many reports are read before it is looked how many are left.
	atOnce = 10_000
	// maxBehind is how many reports may be left; more are skipped.
	maxBehind = 100_000
	// regroup is how often the agents are grouped anew, even if nobody has come.
	regroup = 30 * time.Second
)

// lag tells how many reports have been stored and not been read.
type lag struct{ begun, read uint64 }

func (l *lag) behind(stored uint64) uint64 {
	if done := l.begun + l.read; stored > done { // a report may be read before it is counted
		return stored - done
	}
	return 0
}

// follow counts what is stored from now on, until ctx ends.
func (m *Metrics) follow(ctx context.Context) error {
	m.lag.begun = m.cfg.History.Stats().Reports
	cursor := m.cfg.History.Latest()
	pause := time.NewTicker(m.every)
	defer pause.Stop()
	for {
		changed := m.cfg.History.Changed()
		for more := true; more && ctx.Err() == nil; {
			cursor, more = m.readOn(ctx, cursor)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// readOn counts some of what comes after the cursor; more tells whether there may be others.
func (m *Metrics) readOn(ctx context.Context, after history.Cursor) (_ history.Cursor, more bool) {
	latest := m.cfg.History.Latest()
	if n := m.lag.behind(m.cfg.History.Stats().Reports); n > m.maxBehind {
		m.skip(n)
		return latest, false
	}
	m.groups.refresh(m.cfg.Fleet)
	read := uint64(0)
	for o, err := range m.cfg.History.ScanOutcomes(ctx, after) {
		if err != nil {
			return m.failed(err, after, latest), false
		}
		m.count(&o)
		m.lag.read++
		after = o.Cursor
		if read++; read == m.atOnce {
			return after, true
		}
	}
	m.failing = false
	return after, false
}

func (m *Metrics) skip(n uint64) {
	m.lag.read += n
	m.skipped.Add(float64(n))
}

// failed goes on behind what cannot be read.
func (m *Metrics) failed(err error, after, latest history.Cursor) history.Cursor {
	if errors.Is(err, context.Canceled) || errors.Is(err, history.ErrClosed) {
		return after
	}
	if !m.failing {
		m.failing = true
		m.cfg.Logger.Warn("metrics: what was stored cannot be read; it is not counted", "reason", err)
	}
	m.skip(m.lag.behind(m.cfg.History.Stats().Reports))
	return latest
}

// count adds the results of a report.
func (m *Metrics) count(o *history.Outcomes) {
	m.pairs.mu.Lock()
	defer m.pairs.mu.Unlock()
	from := m.groups.find([]byte(o.Agent))
	for i := range o.Results {
		r := &o.Results[i]
		to := m.groups.find(r.Target)
		if to.from != from {
			to.from = from
			to.pair, to.over = m.pairs.of(between{from.name, to.name})
		}
		if to.over {
			m.pairs.over++
		}
		to.pair.add(r)
	}
}

// group is a value of a label.
type group struct {
	name string
	// The pair of it and the group of the agent that has reported last.
	from *group
	pair *pair
	over bool
}

// groups are those of the agents, by their names. Whoever is no agent, or does not
// have the label, is in the group of no name.
type groups struct {
	by      string
	of      map[string]*group
	none    group
	changed <-chan struct{}
	at      time.Time
}

func (g *groups) find(agent []byte) *group {
	if found := g.of[string(agent)]; found != nil {
		return found
	}
	return &g.none
}

func (g *groups) refresh(f Fleet) {
	if g.changed != nil && time.Since(g.at) < regroup {
		select {
		case <-g.changed:
		default:
			return
		}
	}
	g.changed, g.at = f.Changed(), time.Now()
	g.of, g.none = make(map[string]*group), group{}
	named := make(map[string]*group)
	for _, a := range f.Agents(selector.Selector{}) {
		v := strings.ToValidUTF8(a.Labels[g.by], "?")
		if v == "" {
			continue
		}
		if named[v] == nil {
			named[v] = &group{name: v}
		}
		g.of[a.Name] = named[v]
	}
}
