package history

// Filter says of which series something is wanted. What is empty is not asked
// for, so that the zero value wants everything.
type Filter struct {
	Source, Agent, Target string
	// Agents and Targets say which other names will do; nil: all.
	Agents, Targets *Names
}

// WantsSeries tells whether a series is wanted.
func (f Filter) WantsSeries(s Series) bool {
	return f.Wants(s.Agent) && (f.Source == "" || f.Source == s.Source) && (f.Target == "" || f.Target == s.Target) && f.Targets.has([]byte(s.Target))
}

// Wants tells whether an agent's series may be.
func (f Filter) Wants(agent string) bool {
	return (f.Agent == "" || f.Agent == agent) && f.Agents.has([]byte(agent))
}

// Names are the names for which a question is answered with yes. They remember the
// answers, and so serve one reader at a time.
type Names struct {
	ask   func(name string) bool
	known map[string]bool
}

// maxNames bounds how many answers are remembered.
const maxNames = 1 << 16

// NewNames returns those names for which ask says yes, which is asked about each of them seldom.
func NewNames(ask func(name string) bool) *Names {
	return &Names{ask, make(map[string]bool)}
}

func (n *Names) has(name []byte) bool {
	if n == nil {
		return true
	}
	yes, known := n.known[string(name)]
	if !known {
		if len(n.known) >= maxNames {
			clear(n.known)
		}
		text := string(name)
		yes = n.ask(text)
		n.known[text] = yes
	}
	return yes
}

// appendWanted appends a report without blocks that are not wanted, as far as that can be told
// without decoding it. Most reports have blocks of a thousand series, and few readers want them all.
func (f *Filter) appendWanted(dst, report []byte) []byte {
	if f.Source == "" && f.Target == "" && f.Targets == nil {
		return append(dst, report...)
	}
	start := len(dst)
	for rest := report; len(rest) > 0; {
		var top field
		next, ok := top.next(rest)
		if !ok {
			return append(dst[:start], report...)
		}
		if top.key != 3<<3|bytesType || f.mayWant(top.bytes) {
			dst = append(dst, rest[:len(rest)-len(next)]...)
		}
		rest = next
	}
	return dst
}

// mayWant tells whether a block may be wanted. Whoever encodes writes its names once, before all else.
func (f *Filter) mayWant(b []byte) bool {
	var source, target []byte
	for seen := 0; len(b) > 0 && seen < 2; {
		var part field
		var ok bool
		if b, ok = part.next(b); !ok {
			return true
		}
		switch part.key {
		case 1<<3 | bytesType:
			source = part.bytes
			seen++
		case 2<<3 | bytesType:
			target = part.bytes
			seen++
		}
	}
	return (f.Source == "" || f.Source == string(source)) && (f.Target == "" || f.Target == string(target)) && f.Targets.has(target)
}
