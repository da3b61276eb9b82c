package plan

import "github.com/synmesh/synmesh/controller/fleet"

// Status says how a measurement is carried out. Rates are probes a second.
type Status struct {
	Agents        int // connected, that do it
	Pairs         int // of such an agent and a target
	PossiblePairs int // more than Pairs if a budget does not allow all
	Rate          float64
	MaxAgentRate  float64
	MaxTargetRate float64
}

// Status returns that of a measurement; nothing if it is not planned.
func (p *Plan) Status(name string) Status {
	var s Status
	for _, a := range p.assignments {
		if a.Name != name {
			continue
		}
		most := 0
		for i, agent := range p.agents {
			if agent.State != fleet.Connected {
				continue
			}
			n := len(a.chosen[i])
			if n > 0 {
				s.Agents++
			}
			s.Pairs += n
			s.PossiblePairs += a.possible[i]
			most = max(most, n)
		}
		s.Rate, s.MaxAgentRate = a.rate(s.Pairs), a.rate(most)
		var into int32
		for _, n := range a.incoming {
			into = max(into, n)
		}
		s.MaxTargetRate = a.rate(int(into))
	}
	return s
}
