// Package selector is the grammar in which operators pick agents: by name and
// by labels. It uses the standard library only and does no I/O.
//
// Start with Parse and Selector.Matches; ParseLabels and CheckLabels say what
// labels may look like. Terms are joined by commas, and all of them must hold:
//
//	dc=fra, dc==fra      the agent has the label dc, and its value is fra
//	dc!=fra              it has another value, or the agent has no label dc
//	dc in (fra,nyc)      the agent has the label dc with one of these values
//	dc notin (fra,nyc)   it has none of these values, or the agent has no label dc
//	fra-1                the agent is called fra-1, or has a label of that key
//	!fra-1               neither
//	name=fra-1           the agent is called fra-1: the key name stands for that
//
// As in Kubernetes, != and notin hold where the label is missing.
package selector

import (
	"slices"
	"strings"
)

// NameKey is the key that stands for the agent's name. No label may have it.
const NameKey = "name"

// Selector picks agents. The zero value picks all of them. Selectors that were
// parsed from the same terms in another order or spelling are deeply equal.
type Selector struct {
	terms []term // sorted by their text, each once
}

// term is one condition.
type term struct {
	key    string
	op     operator
	values []string // sorted, each once; none for exists and absent
}

type operator uint8

const (
	exists operator = iota
	absent
	in
	notIn
)

// Matches tells whether the selector picks the agent of that name and with
// these labels. A label whose key is NameKey is not looked at.
func (s Selector) Matches(name string, labels map[string]string) bool {
	for _, t := range s.terms {
		if !t.holds(name, labels) {
			return false
		}
	}
	return true
}

// String writes the selector in its one canonical form, which Parse reads
// back. The zero Selector is the empty string.
func (s Selector) String() string {
	texts := make([]string, len(s.terms))
	for i, t := range s.terms {
		texts[i] = t.String()
	}
	return strings.Join(texts, ",")
}

func (t term) holds(name string, labels map[string]string) bool {
	value, has := labels[t.key]
	if t.op == exists || t.op == absent {
		return (has || t.key == name) == (t.op == exists)
	}
	if t.key == NameKey {
		value, has = name, true
	}
	return (has && slices.Contains(t.values, value)) == (t.op == in)
}

func (t term) String() string {
	switch {
	case t.op == exists:
		return t.key
	case t.op == absent:
		return "!" + t.key
	case t.op == in && len(t.values) == 1:
		return t.key + "=" + t.values[0]
	case t.op == notIn && len(t.values) == 1:
		return t.key + "!=" + t.values[0]
	case t.op == in:
		return t.key + " in (" + strings.Join(t.values, ",") + ")"
	default:
		return t.key + " notin (" + strings.Join(t.values, ",") + ")"
	}
}

// canonical sorts the terms and drops those said twice.
func canonical(terms []term) Selector {
	slices.SortFunc(terms, func(a, b term) int { return strings.Compare(a.String(), b.String()) })
	return Selector{slices.CompactFunc(terms, func(a, b term) bool { return a.String() == b.String() })}
}
