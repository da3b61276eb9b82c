// Package fleet knows the agents: who they are, who holds a session, and how
// to tell them something. The session is what counts; what gossip tells is only
// shown.
package fleet

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/synmesh/synmesh/internal/selector"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// State says how an agent is known.
type State uint8

// The states.
const (
	Connected    State = iota + 1 // it holds a session
	Disconnected                  // it had one
	Gossiped                      // gossip tells of it, and it never had one
)

// Agent is what is known of an agent.
type Agent struct {
	Name      string
	Labels    map[string]string
	Version   string
	Responder string // address:port; empty: it cannot be probed
	Stamping  string
	State     State
	Connect   time.Time // when the session began
	LastSeen  time.Time
	Dropped   uint64 // results, since its epoch began
	Backlog   uint64 // results, at its last heartbeat
}

// Forget is how long an agent is known after its session has ended.
const Forget = time.Hour

// queueLen is how many messages may wait for a slow agent before its session is ended.
const queueLen = 256

// Fleet is safe for concurrent use.
type Fleet struct {
	mu       sync.Mutex
	agents   map[string]*member
	sessions uint64 // begun
	gossiped []Agent
	changed  chan struct{}
}

type member struct {
	Agent
	session *Session // nil while disconnected
}

// New returns a Fleet of nobody.
func New() *Fleet {
	return &Fleet{agents: make(map[string]*member), changed: make(chan struct{})}
}

// Session is how an agent is told something. It ends with the stream that it stands for.
type Session struct {
	// ID is unique among the sessions of a controller's life.
	ID    uint64
	fleet *Fleet
	name  string
	queue chan *synmeshv1.SessionResponse
	done  chan struct{}
	once  sync.Once
	why   string
}

// Connect begins the session of an agent, with the first message for it. If it
// had a session, that one ends: an agent that comes back has lost its old
// stream, whether or not we know it yet.
func (f *Fleet) Connect(a Agent, first *synmeshv1.SessionResponse) *Session {
	s := &Session{fleet: f, name: a.Name, queue: make(chan *synmeshv1.SessionResponse, queueLen), done: make(chan struct{})}
	s.queue <- first
	a.State, a.Connect = Connected, time.Now()
	a.LastSeen = a.Connect
	f.mu.Lock()
	f.sessions++
	s.ID = f.sessions
	old := f.agents[a.Name]
	f.agents[a.Name] = &member{a, s}
	f.notify()
	f.mu.Unlock()
	if old != nil && old.session != nil {
		old.session.End("a newer session of this agent has begun; if two agents have this name, rename one")
	}
	return s
}

// Send queues a message and returns at once. If the agent takes so little that
// the queue is full, its session ends; it will come back.
func (s *Session) Send(m *synmeshv1.SessionResponse) {
	select {
	case <-s.done:
	case s.queue <- m:
	default:
		s.End("the agent takes its messages too slowly")
	}
}

// Queue yields what has been sent, in order.
func (s *Session) Queue() <-chan *synmeshv1.SessionResponse { return s.queue }

// Done is closed when the session has ended.
func (s *Session) Done() <-chan struct{} { return s.done }

// Why returns the reason of the end. It is for after Done.
func (s *Session) Why() string { return s.why }

// End ends the session; only the first time counts.
func (s *Session) End(why string) {
	s.once.Do(func() {
		s.why = why
		close(s.done)
		s.fleet.mu.Lock()
		defer s.fleet.mu.Unlock()
		if m := s.fleet.agents[s.name]; m != nil && m.session == s {
			m.session, m.State, m.LastSeen = nil, Disconnected, time.Now()
			s.fleet.notify()
		}
	})
}

// Heard notes that the agent is alive, and what it says of itself; nil if nothing.
func (s *Session) Heard(h *synmeshv1.Heartbeat) {
	s.fleet.mu.Lock()
	defer s.fleet.mu.Unlock()
	m := s.fleet.agents[s.name]
	if m == nil || m.session != s {
		return
	}
	m.LastSeen = time.Now()
	if h != nil {
		m.Dropped, m.Backlog = h.GetDropped(), h.GetBacklog()
	}
}

// Drain ends all sessions.
func (f *Fleet) Drain(why string) {
	f.mu.Lock()
	var sessions []*Session
	for _, m := range f.agents {
		if m.session != nil {
			sessions = append(sessions, m.session)
		}
	}
	f.mu.Unlock()
	for _, s := range sessions {
		s.End(why)
	}
}

// SetGossiped tells who gossip tells of.
func (f *Fleet) SetGossiped(agents []Agent) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gossiped = agents
}

// Agents returns the agents that match, in the order of their names.
func (f *Fleet) Agents(match selector.Selector) []Agent {
	f.mu.Lock()
	defer f.mu.Unlock()
	var found []Agent
	add := func(a Agent) {
		if match.Matches(a.Name, a.Labels) {
			a.Labels = maps.Clone(a.Labels)
			found = append(found, a)
		}
	}
	for name, m := range f.agents {
		if m.session == nil && time.Since(m.LastSeen) > Forget {
			delete(f.agents, name)
			continue
		}
		add(m.Agent)
	}
	for _, a := range f.gossiped {
		if f.agents[a.Name] == nil {
			a.State = Gossiped
			add(a)
		}
	}
	slices.SortFunc(found, func(a, b Agent) int { return cmp.Compare(a.Name, b.Name) })
	return found
}

// Session returns the agent's session, or nil if it has none.
func (f *Fleet) Session(name string) *Session {
	f.mu.Lock()
	defer f.mu.Unlock()
	if m := f.agents[name]; m != nil {
		return m.session
	}
	return nil
}

// Changed returns a channel that is closed at the next change of who is
// connected. Take it before looking at Agents.
func (f *Fleet) Changed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed
}

func (f *Fleet) notify() {
	close(f.changed)
	f.changed = make(chan struct{})
}
