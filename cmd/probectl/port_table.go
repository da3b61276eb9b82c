package main

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"

	"github.com/synmesh/synmesh/probe"
)

// manyPorts is how many ports of one host may be closed, or filtered, and
// still be listed one by one.
const manyPorts = 20

// states are what a port is called after its probes' outcomes, as nmap does.
// The first that occurred counts.
var states = []struct {
	outcome probe.Outcome
	word    string
}{
	{probe.Open, "open"}, {probe.Closed, "closed"}, {probe.Unreachable, "unreachable"},
	{probe.Timeout, "filtered"}, {probe.Error, "error"},
}

// host is what a port belongs to, seen from an agent.
type host struct{ agent, name string }

// portTable tells the ports of each host apart. The lock is held.
func (r *runReport) portTable() *table {
	t := &table{left: 4, header: []string{"AGENT", "HOST", "PORT", "STATE", "RTT"}, alarm: make(map[int]bool)}
	counts := make(map[host]map[string]int)
	for key, s := range r.sums {
		h := host{key.agent, hostOf(key.target)}
		if counts[h] == nil {
			counts[h] = make(map[string]int)
		}
		counts[h][stateOf(s)]++
	}
	summed := make(map[string]bool)
	for _, key := range r.order() {
		s, h := r.sums[key], host{key.agent, hostOf(key.target)}
		state := stateOf(s)
		if n := counts[h][state]; state != "open" && n > manyPorts {
			if id := fmt.Sprint(h, state); !summed[id] {
				summed[id] = true
				t.rows = append(t.rows, []string{h.agent, h.name, fmt.Sprintf("%d ports", n), state, "-"})
			}
			continue
		}
		t.alarm[len(t.rows)] = state == "error"
		t.rows = append(t.rows, []string{h.agent, h.name, portOf(key.target), state, ifAny(s.Timed(), s.Quantile(0.5))})
	}
	return t
}

func stateOf(s *probe.Summary) string {
	for _, state := range states {
		if s.Count(state.outcome) > 0 {
			return state.word
		}
	}
	return "unknown"
}

func hostOf(target string) string { return target[:max(0, strings.LastIndexByte(target, ':'))] }

func portOf(target string) string { return target[strings.LastIndexByte(target, ':')+1:] }

// compareTargets puts the ports of a host in the order of their numbers.
func compareTargets(a, b string) int {
	m, errA := strconv.Atoi(portOf(a))
	n, errB := strconv.Atoi(portOf(b))
	if errA != nil || errB != nil {
		return cmp.Compare(a, b)
	}
	return cmp.Or(cmp.Compare(hostOf(a), hostOf(b)), cmp.Compare(m, n))
}
