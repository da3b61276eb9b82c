package controller

import (
	"context"
	"log/slog"
	"maps"
	"time"

	"github.com/synmesh/synmesh/controller/fleet"
	"github.com/synmesh/synmesh/controller/registry"
	"github.com/synmesh/synmesh/internal/selector"
)

// noteAfter is how long changes of the fleet are gathered before they are written down.
const noteAfter = time.Second

// roster keeps on disk which agents are known, and what they said of themselves. A controller that
// starts again plans with all of them: who comes back first is told to go on as before, and
// not that there is nobody to probe.
type roster struct {
	fleet *fleet.Fleet
	kept  keeper
	log   *slog.Logger
	notes map[string]registry.Seen // on disk
}

// keeper is where the notes are; see registry.Registry.
type keeper interface {
	Seen() ([]registry.Seen, error)
	Remember(seen []registry.Seen, forget []string) error
}

// openRoster makes known to the fleet who was there before.
func openRoster(f *fleet.Fleet, kept keeper, log *slog.Logger) (*roster, error) {
	seen, err := kept.Seen()
	if err != nil {
		return nil, err
	}
	r := &roster{fleet: f, kept: kept, log: log, notes: make(map[string]registry.Seen, len(seen))}
	var agents []fleet.Agent
	for _, s := range seen {
		r.notes[s.Name] = s
		last := s.Left
		if last.IsZero() {
			// Its session ended with the controller, which may have been away for long.
			last = time.Now()
		}
		agents = append(agents, fleet.Agent{
			Name: s.Name, Labels: s.Labels, Version: s.Version, Responder: s.Responder, Stamping: s.Stamping, LastSeen: last})
	}
	f.Recall(agents)
	return r, nil
}

// run writes down what changes, until ctx ends.
func (r *roster) run(ctx context.Context) error {
	for {
		changed := r.fleet.Changed()
		r.note()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
		gather := time.NewTimer(noteAfter)
		select {
		case <-gather.C:
		case <-ctx.Done():
			gather.Stop()
			return nil
		}
	}
}

// note writes down how the fleet is, as far as that is news.
func (r *roster) note() {
	agents := r.fleet.Agents(selector.Selector{})
	if r.fleet.Draining() {
		return // they leave because of us, and will come back
	}
	gone := maps.Clone(r.notes)
	var news []registry.Seen
	for _, a := range agents {
		if a.State == fleet.Gossiped {
			continue
		}
		s := noteOf(a)
		before, known := gone[a.Name]
		delete(gone, a.Name)
		if !known || !same(s, before) {
			news = append(news, s)
		}
	}
	if len(news)+len(gone) == 0 {
		return
	}
	var forget []string
	for name := range gone {
		forget = append(forget, name)
	}
	if err := r.kept.Remember(news, forget); err != nil {
		r.log.Error("which agents there are cannot be written down; after a restart the plan will lack some until they are back", "reason", err)
		return
	}
	for _, name := range forget {
		delete(r.notes, name)
	}
	for _, s := range news {
		r.notes[s.Name] = s
	}
}

func noteOf(a fleet.Agent) registry.Seen {
	s := registry.Seen{Name: a.Name, Labels: a.Labels, Version: a.Version, Responder: a.Responder, Stamping: a.Stamping}
	if a.State != fleet.Connected {
		s.Left = a.LastSeen.UTC()
	}
	return s
}

func same(a, b registry.Seen) bool {
	return maps.Equal(a.Labels, b.Labels) && a.Version == b.Version && a.Responder == b.Responder &&
		a.Stamping == b.Stamping && a.Left.Equal(b.Left)
}
