// Package agents serves AgentService: the sessions that agents hold.
package agents

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc"

	"github.com/synmesh/synmesh/controller/api/fault"
	"github.com/synmesh/synmesh/controller/feed"
	"github.com/synmesh/synmesh/controller/fleet"
	"github.com/synmesh/synmesh/controller/history"
	"github.com/synmesh/synmesh/internal/identity"
	"github.com/synmesh/synmesh/internal/selector"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// History keeps reports; see history.Store.
type History interface {
	AppendEncoded(ctx context.Context, agent string, r history.Encoded) (stored bool, err error)
	Sequence(agent string, epoch uint64) (uint64, error)
}

// Config has no optional fields.
type Config struct {
	// Admit tells whether the one who calls is the agent of that name, and may
	// have a session; see access.Guard.
	Admit   func(ctx context.Context, agent string) error
	Fleet   *fleet.Fleet
	Feed    *feed.Feed
	History History
	Logger  *slog.Logger
}

// Service is the service. Wait must be called after the server has stopped.
type Service struct {
	synmeshv1.UnimplementedAgentServiceServer
	Config
	streams  sync.WaitGroup // goroutines that receive from a stream, send on it, or store what came
	sessions atomic.Int64
	greeting greeting
	turns    turns
	epochs   beginnings
}

// helloWithin is how long a stream may go without a hello.
const helloWithin = 10 * time.Second

// Register adds the service to a server.
func Register(r grpc.ServiceRegistrar, c Config) *Service {
	s := &Service{Config: c, greeting: greeting{of: make(map[identity.Identity]int)}, turns: turns{of: make(map[string]*turn)}, epochs: beginnings{of: make(map[string]*rate.Limiter)}}
	synmeshv1.RegisterAgentServiceServer(r, s)
	return s
}

// Wait returns when nothing of any session goes on.
func (s *Service) Wait() { s.streams.Wait() }

type stream = grpc.BidiStreamingServer[synmeshv1.SessionRequest, synmeshv1.SessionResponse]

// Session implements synmeshv1.AgentServiceServer.
func (s *Service) Session(st stream) error {
	hello, session, turn, err := s.greet(st)
	if err != nil {
		return err
	}
	s.sessions.Add(1)
	defer s.sessions.Add(-1)
	log := s.Logger.With("agent", hello.GetName())
	log.Info("agent connected", "session", session.ID)
	defer func() {
		session.End("the stream has ended")
		s.Feed.Publish(feed.Event{Agent: hello.GetName(), Session: session.ID})
		log.Info("agent disconnected", "session", session.ID)
	}()

	// All end with the stream, and that with this method: an agent that does
	// not read holds up nobody who waits for the end of its session.
	ended := make(chan error, 2)
	r := newReporter(s, hello, session, log)
	s.streams.Go(func() { r.receive(st) })
	s.streams.Go(func() {
		defer turn.end()
		ended <- r.store(st.Context())
	})
	s.streams.Go(func() { ended <- send(st, session) })
	select {
	case err := <-ended:
		if err != nil {
			log.Warn("session failed", "reason", err)
		}
		return err
	case <-turn.asked:
		session.End(fleet.Newer)
	case <-session.Done():
	}
	return s.farewell(session, log)
}

// farewell says why a session has ended.
func (s *Service) farewell(session *fleet.Session, log *slog.Logger) error {
	log.Info("session ended", "reason", session.Why())
	err := fault.Unavailable("%s", session.Why())
	if session.Why() == fleet.Newer {
		err = fault.Superseded("%s", fleet.Newer)
	}
	if s.Fleet.Draining() {
		err = fault.Later(err, fleet.Return)
	}
	return err
}

// greet lets an agent in, up to its welcome. The turn is the caller's to end.
func (s *Service) greet(st stream) (*synmeshv1.Hello, *fleet.Session, *turn, error) {
	who := caller(st.Context())
	if !s.greeting.enter(who) {
		return nil, nil, nil, fault.Later(fault.Exhausted("%d sessions are just beginning, or %d of this agent; connect again later", maxGreeting, ownGreeting), fleet.Return)
	}
	defer s.greeting.leave(who)
	if s.Fleet.Draining() {
		return nil, nil, nil, fault.Later(fault.Unavailable("the controller is stopping; connect again later"), fleet.Return)
	}
	hello, err := s.hello(st)
	if err == nil {
		err = s.Admit(st.Context(), hello.GetName())
	}
	if err != nil {
		return nil, nil, nil, err
	}
	// What is not stored by the welcome, the agent may drop: so nothing may be on its way from a session before.
	turn, err := s.turns.take(st.Context(), hello.GetName())
	if err != nil {
		return nil, nil, nil, err
	}
	welcome, err := s.welcome(hello)
	if err != nil {
		turn.end()
		return nil, nil, nil, err
	}
	return hello, s.Fleet.Connect(
		fleet.Agent{Name: hello.GetName(), Labels: hello.GetLabels(), Version: hello.GetVersion(),
			Responder: hello.GetResponder(), Stamping: hello.GetStamping()},
		&synmeshv1.SessionResponse{Message: &synmeshv1.SessionResponse_Welcome{Welcome: welcome}}), turn, nil
}

// welcome tells an agent what is stored of its epochs.
func (s *Service) welcome(hello *synmeshv1.Hello) (*synmeshv1.Welcome, error) {
	welcome := &synmeshv1.Welcome{Credit: s.credit(), Previews: true}
	var err error
	welcome.Sequence, err = s.History.Sequence(hello.GetName(), hello.GetEpoch())
	for _, epoch := range hello.GetOlderEpochs() {
		var sequence uint64
		if err == nil {
			sequence, err = s.History.Sequence(hello.GetName(), epoch)
		}
		welcome.OlderSequences = append(welcome.OlderSequences, sequence)
	}
	if err != nil {
		return nil, fault.Unavailable("the history cannot be read (%w); connect again later", err)
	}
	return welcome, nil
}

// hello waits for the agent to introduce itself, but not for ever.
func (s *Service) hello(st stream) (*synmeshv1.Hello, error) {
	var first *synmeshv1.SessionRequest
	received := make(chan error, 1)
	s.streams.Go(func() {
		m, err := st.Recv()
		first = m
		received <- err
	})
	late := time.NewTimer(helloWithin)
	defer late.Stop()
	select {
	case err := <-received:
		if err != nil {
			return nil, err
		}
		return first.GetHello(), check(first.GetHello())
	case <-late.C:
		return nil, fault.Invalid("no hello came within %v; it is the first message of a session", helloWithin)
	}
}

// check looks at what validation by rules in the .proto files cannot.
func check(h *synmeshv1.Hello) error {
	if h == nil {
		return fault.Invalid("the first message of a session is a hello")
	}
	if err := selector.CheckLabels(h.GetLabels()); err != nil {
		return fault.Invalid("hello: %w", err)
	}
	if _, err := netip.ParseAddrPort(h.GetResponder()); h.GetResponder() != "" && err != nil {
		return fault.Invalid("hello: responder %q is not address:port", h.GetResponder())
	}
	return nil
}

// send passes on what the session is told, until the stream ends.
func send(st stream, session *fleet.Session) error {
	for {
		select {
		case m := <-session.Queue():
			if err := st.Send(m); err != nil {
				return ignoreEnd(st.Context(), err)
			}
		case <-st.Context().Done():
			return nil
		}
	}
}

// ignoreEnd returns nil for what is only the end of the stream.
func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil || errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
