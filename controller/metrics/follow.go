package metrics

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/synmesh/synmesh/controller/history"
	"github.com/synmesh/synmesh/internal/convert"
	"github.com/synmesh/synmesh/internal/selector"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
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
	for e, err := range m.cfg.History.ScanSeries(ctx, history.Filter{}, time.Time{}, time.Time{}, after) {
		if err != nil {
			return m.failed(err, after, latest), false
		}
		m.count(&e)
		m.lag.read++
		after = e.Cursor
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

// count adds the results of a report. Most of them come in few blocks, each of one target.
func (m *Metrics) count(e *history.Entry) {
	from := m.groups.of[e.Agent]
	var one synmeshv1.Report
	for i, b := range e.Report.GetBlocks() {
		p, over := m.pairs.of(between{from, m.groups.of[b.GetTarget()]})
		if over {
			m.pairs.more.Add(float64(len(b.GetOutcomes())))
		}
		one.Blocks = e.Report.GetBlocks()[i : i+1]
		for r := range convert.Rows(e.Agent, &one) {
			p.add(r)
		}
	}
}

// groups are the values of a label, by the agents' names. Whoever is no agent, or does not
// have it, is in the group of no name.
type groups struct {
	by      string
	of      map[string]string
	changed <-chan struct{}
	at      time.Time
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
	g.of = make(map[string]string)
	for _, a := range f.Agents(selector.Selector{}) {
		if v := a.Labels[g.by]; v != "" {
			g.of[a.Name] = strings.ToValidUTF8(v, "?")
		}
	}
}
