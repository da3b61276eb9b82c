package results

import (
	"slices"
	"strings"

	"github.com/synmesh/synmesh/controller/api/fault"
	"github.com/synmesh/synmesh/controller/history"
	"github.com/synmesh/synmesh/internal/selector"
	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// selection is what a SeriesFilter asks for, by the labels of the time it was made.
type selection struct {
	source          string
	targets         []string
	port            uint16
	agents, targetA *selector.Selector // nil: not asked for
	labels          map[string]map[string]string
}

// newSelection understands a filter; nil is everything.
func (s *Service) newSelection(f *synmeshv1.SeriesFilter) (*selection, error) {
	sel := &selection{source: f.GetSource(), targets: f.GetTargets(), port: uint16(f.GetLocalPort())}
	for _, which := range []struct {
		name, text string
		into       **selector.Selector
	}{{"agents", f.GetAgents(), &sel.agents}, {"target_agents", f.GetTargetAgents(), &sel.targetA}} {
		if which.text == "" {
			continue
		}
		parsed, err := selector.Parse(which.text)
		if err != nil {
			return nil, fault.Invalid("filter.%s: %w", which.name, err)
		}
		*which.into = &parsed
	}
	sel.labels = s.labels()
	return sel, nil
}

// labels returns those that the agents have now.
func (s *Service) labels() map[string]map[string]string {
	all := make(map[string]map[string]string)
	for _, a := range s.fleet.Agents(selector.Selector{}) {
		all[a.Name] = a.Labels
	}
	return all
}

func (s *selection) wantsAgent(name string) bool {
	return s.agents == nil || s.agents.Matches(name, s.labels[name])
}

func (s *selection) wantsTarget(name string) bool {
	if len(s.targets) == 0 && s.targetA == nil {
		return true
	}
	return slices.Contains(s.targets, name) || s.targetA != nil && s.isAgent(name) && s.targetA.Matches(name, s.labels[name])
}

// isAgent tells whether a target is an agent's name; those of others have a port.
func (s *selection) isAgent(target string) bool {
	_, known := s.labels[target]
	return known || !strings.Contains(target, ":")
}

func (s *selection) wantsSeries(id history.Series) bool {
	return (s.source == "" || s.source == id.Source) && s.wantsAgent(id.Agent) && s.wantsTarget(id.Target)
}

func (s *selection) wantsPort(port uint16) bool { return s.port == 0 || s.port == port }

func (s *selection) wants(r *probe.Result) bool {
	return s.wantsPort(r.LocalPort) && s.wantsSeries(history.Series{Source: r.Source, Agent: r.Agent, Target: r.Target})
}

// filter is the selection without the port, for one reader.
func (s *selection) filter() history.Filter {
	f := history.Filter{Source: s.source}
	if s.agents != nil {
		f.Agents = history.NewNames(s.wantsAgent)
	}
	if len(s.targets) > 0 || s.targetA != nil {
		f.Targets = history.NewNames(s.wantsTarget)
	}
	return f
}
