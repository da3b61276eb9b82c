package policy

import (
	"cmp"
	"slices"

	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/probe/resolve"
)

// nowhere stands for a host whose name has no address. It must never have one
// (RFC 7686 section 2), and Go does not ask for it: a name could lead somewhere
// by the time that it is looked up again, where nobody has judged it.
const nowhere = "unresolved.onion"

// pin returns the Spec with the addresses that were found in the place of
// names, and why names have none, by target.
func pin(s probe.Spec, found []resolve.Address) (probe.Spec, map[string]string) {
	s.Targets = slices.Clone(s.Targets)
	unknown := make(map[string]string)
	for i := range s.Targets {
		t := &s.Targets[i]
		if found[i].Err != nil {
			t.Host, unknown[t.Name] = nowhere, found[i].Err.Error()
		} else {
			t.Host = found[i].Remote.Addr().String()
		}
	}
	return s, unknown
}

// spread puts the targets in an order in which those of one host lie as far
// apart as they can, and so do those that are one: engines probe the targets in
// turn, and would otherwise send all of a host's share in one go. The order
// stays where it makes no difference.
func spread(targets []probe.Target) {
	spreadBy(targets, endpointOf)
	spreadBy(targets, func(t probe.Target) string { return endpointOf(t).host })
}

func spreadBy[K comparable](targets []probe.Target, key func(probe.Target) K) {
	number, order := make(map[K]int), make(map[K]int)
	for _, t := range targets {
		k := key(t)
		if number[k]++; number[k] == 1 {
			order[k] = len(order)
		}
	}
	type place struct {
		target probe.Target
		at     float64 // of the way from the first to the last
	}
	places := make([]place, len(targets))
	seen := make(map[K]int)
	for i, t := range targets {
		k := key(t)
		phase := (float64(order[k]) + 0.5) / float64(len(order)) // so that those with few targets do not meet
		places[i] = place{t, (float64(seen[k]) + phase) / float64(number[k])}
		seen[k]++
	}
	slices.SortStableFunc(places, func(a, b place) int { return cmp.Compare(a.at, b.at) })
	for i, p := range places {
		targets[i] = p.target
	}
}
