// Package fleet knows the agents: who they are, who holds a session, and how
// to tell them something. The session is what counts; what gossip tells is only
// shown.
package fleet

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/synmesh/synmesh/internal/selector"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// State says how an agent is known.
type State uint8

// The states.
const (
	Connected    State = iota + 1 // it holds a session
	Disconnected                  // it had one, maybe with the controller before a restart
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
	Health    // as its last heartbeat told
}

// Health is what an agent says of itself.
type Health struct {
	Produced uint64 // results it has taken in, in the life of its spool's folder
	Dropped  uint64 // of them, for all reasons together
	Drops    []*synmeshv1.DropCount
	Backlog  uint64 // of them, those that are not acknowledged
	// ClockOffset is by how much its clock is ahead of this host's, give or take ClockError; if ClockKnown.
	ClockOffset, ClockError time.Duration
	ClockKnown              bool
	Refused                 []*synmeshv1.Refusal // of its timetable
}

// Forget is how long an agent is known after its session has ended.
const Forget = time.Hour

// Return is the time over which agents that are sent away come back.
const Return = 30 * time.Second

// drainWithin is how long agents get to finish what is under way.
const drainWithin = 2 * time.Second

// Newer is why a session ends when the same agent begins another. An agent that
// is told this while its stream is well is not the only one with its certificate.
const Newer = "a newer session of this agent has begun; two hosts must not share a state folder"

// queueLen is how many messages may wait for a slow agent before its session is ended.
const queueLen = 256

// Fleet is safe for concurrent use.
type Fleet struct {
	mu       sync.Mutex
	agents   map[string]*member
	sessions uint64 // begun
	gossiped []Agent
	draining bool
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
		old.session.End(Newer)
	}
	return s
}

// Recall makes agents known that had sessions with a controller before this one, as if these had
// ended; when, LastSeen says. It is for before the first session.
func (f *Fleet) Recall(agents []Agent) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range agents {
		a.State = Disconnected
		f.agents[a.Name] = &member{a, nil}
	}
	f.notify()
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
		m.Health = Health{
			Produced: h.GetProduced(), Dropped: h.GetDropped(), Drops: h.GetDrops(), Backlog: h.GetBacklog(), Refused: h.GetRefused(),
			ClockOffset: h.GetClockOffset().AsDuration(), ClockError: h.GetClockError().AsDuration(), ClockKnown: h.GetClockOffset() != nil,
		}
	}
}

// Drain asks all agents to end their sessions when what is under way is stored,
// gives them a moment, and ends the sessions that are left. No more begin.
func (f *Fleet) Drain(why string) {
	f.mu.Lock()
	f.draining = true
	var sessions []*Session
	for _, m := range f.agents {
		if m.session != nil {
			sessions = append(sessions, m.session)
		}
	}
	f.mu.Unlock()
	for _, s := range sessions {
		s.Send(&synmeshv1.SessionResponse{Message: &synmeshv1.SessionResponse_Drain{
			Drain: &synmeshv1.Drain{Reason: why, RetryDelay: durationpb.New(rand.N(Return))}}})
	}
	late := time.NewTimer(drainWithin)
	defer late.Stop()
	for i, s := range sessions {
		select {
		case <-s.Done():
			continue
		case <-late.C:
		}
		for _, s := range sessions[i:] {
			s.End(why)
		}
		return
	}
}

// Draining tells whether no more sessions are to begin.
func (f *Fleet) Draining() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.draining
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
