// Package api is the controller's gRPC server: what all services share, such
// as validation, recovery and keepalive. Each service has a folder of its own.
package api

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"time"

	"buf.build/go/protovalidate"
	validate "github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/protovalidate"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"

	"github.com/synmesh/synmesh/controller/api/access"
	"github.com/synmesh/synmesh/controller/api/agents"
	"github.com/synmesh/synmesh/controller/api/backups"
	"github.com/synmesh/synmesh/controller/api/enrolments"
	"github.com/synmesh/synmesh/controller/api/fleets"
	"github.com/synmesh/synmesh/controller/api/identities"
	"github.com/synmesh/synmesh/controller/api/measurements"
	"github.com/synmesh/synmesh/controller/api/results"
	"github.com/synmesh/synmesh/controller/api/runs"
	"github.com/synmesh/synmesh/controller/catalogue"
	"github.com/synmesh/synmesh/controller/feed"
	"github.com/synmesh/synmesh/controller/fleet"
	"github.com/synmesh/synmesh/controller/plan"
	"github.com/synmesh/synmesh/internal/gossip"
	"github.com/synmesh/synmesh/internal/identity"
)

// maxMessage is the largest message that is taken, in bytes.
const maxMessage = 1 << 20

// readBuffer is what each connection keeps for reading, in bytes.
const readBuffer = 4 << 10

// handshakeWithin is how long a client may take until it is connected.
const handshakeWithin = 20 * time.Second

// maxStreams is how many calls a connection may have under way.
const maxStreams = 100

// stopWithin is how long calls under way get to end when the server stops.
const stopWithin = 3 * time.Second

// Registry is all that is asked of the registry.
type Registry interface {
	access.Registry
	enrolments.Registry
	identities.Registry
}

// History is all that the services ask of the history.
type History interface {
	agents.History
	results.History
}

// Config has no optional fields.
type Config struct {
	Fleet     *fleet.Fleet
	Feed      *feed.Feed
	History   History
	Catalogue *catalogue.Catalogue
	Plan      func() *plan.Plan
	// Identity is the controller's own certificate, and Registry who else belongs
	// to the fleet, whose certificates lead to Roots.
	Identity identity.Source
	Registry Registry
	Roots    []*x509.Certificate
	// Files, Sign and Follow are what agents need to gossip; see enrolments.Config.
	Files  func() (map[string][]byte, error)
	Sign   func(gossip.Peer) (gossip.Announcement, error)
	Follow func(ctx context.Context, agent, version string) (next string, files map[string][]byte, err error)
	Keys   identities.Keys
	// Backup writes a copy of all that the controller keeps.
	Backup backups.Taker
	Logger *slog.Logger
}

// Server is the gRPC server with all services.
type Server struct {
	grpc    *grpc.Server
	health  *health.Server
	fleet   *fleet.Fleet
	agents  *agents.Service
	results *results.Service
	guard   *access.Guard
	relay   *identity.Relay
	calls   *calls
}

// New returns a Server that does not listen yet.
func New(c Config) (*Server, error) {
	v, err := protovalidate.New()
	if err != nil {
		return nil, fmt.Errorf("prepare validation: %w", err)
	}
	recovered := recovery.WithRecoveryHandlerContext(func(_ context.Context, p any) error {
		c.Logger.Error("a request made the controller panic", "panic", p, "stack", string(debug.Stack()))
		return status.Error(codes.Internal, "the controller failed on this request; its log says where")
	})
	guard, relay, calls := access.New(c.Registry, c.Logger), identity.NewRelay(), &calls{}
	s := &Server{fleet: c.Fleet, health: health.NewServer(), guard: guard, relay: relay, calls: calls, grpc: grpc.NewServer(
		grpc.Creds(relay.Credentials(identity.ServerCredentials(c.Identity))),
		grpc.ChainUnaryInterceptor(calls.unary, guard.Unary, recovery.UnaryServerInterceptor(recovered), validate.UnaryServerInterceptor(v)),
		grpc.ChainStreamInterceptor(calls.stream, guard.Stream, recovery.StreamServerInterceptor(recovered), validate.StreamServerInterceptor(v)),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.ForceServerCodecV2(agents.NewCodec()),
		// Of thousands of sessions few have anything under way, and TLS has its own buffers.
		grpc.ReadBufferSize(readBuffer),
		// Who is not known yet, or does nothing, gets little of our memory.
		grpc.ConnectionTimeout(handshakeWithin), grpc.MaxConcurrentStreams(maxStreams),
		grpc.WaitForHandlers(true), // also where Stop cuts them off
		// Without this, gRPC hangs up on clients that ping more often than every 5 minutes.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}),
	)}
	s.agents = agents.Register(s.grpc, agents.Config{Admit: guard.Admit, Fleet: c.Fleet, Feed: c.Feed, History: c.History, Logger: c.Logger})
	runs.Register(s.grpc, runs.Config{Fleet: c.Fleet, Feed: c.Feed, Logger: c.Logger})
	s.results = results.Register(s.grpc, c.History, c.Fleet)
	fleets.Register(s.grpc, c.Fleet)
	measurements.Register(s.grpc, measurements.Config{Catalogue: c.Catalogue, Plan: c.Plan, Fleet: c.Fleet})
	enrolments.Register(s.grpc, enrolments.Config{Registry: c.Registry, Roots: c.Roots, Files: c.Files, Sign: c.Sign, Follow: c.Follow})
	identities.Register(s.grpc, identities.Config{Registry: c.Registry, Roots: c.Roots, Keys: c.Keys})
	backups.Register(s.grpc, c.Backup)
	grpc_health_v1.RegisterHealthServer(s.grpc, s.health)
	reflection.Register(s.grpc)
	return s, nil
}

// Relay is the way in for who came by HTTP.
func (s *Server) Relay() *identity.Relay { return s.relay }

// Check tells whether the one who calls may have what is not served by gRPC; see access.Guard.
func (s *Server) Check(ctx context.Context, what string) error { return s.guard.Check(ctx, what) }

// Run serves until ctx ends, lets calls under way end for a moment, and returns
// when nothing of them is left.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	stopped := make(chan struct{})
	unhook := context.AfterFunc(ctx, func() {
		defer close(stopped)
		s.health.Shutdown()
		s.stop()
	})
	relayed := make(chan error, 1)
	go func() { relayed <- s.grpc.Serve(s.relay) }()
	err := s.grpc.Serve(l)
	if unhook() {
		close(stopped)
		s.grpc.Stop()
	}
	<-stopped
	<-relayed // it ends as the server does
	s.guard.Wait()
	s.agents.Wait()
	if errors.Is(err, grpc.ErrServerStopped) {
		err = nil
	}
	return err
}

func (s *Server) stop() {
	s.results.Stop()
	s.fleet.Drain("the controller is stopping; connect again later")
	graceful := make(chan struct{})
	go func() {
		defer close(graceful)
		s.grpc.GracefulStop()
	}()
	t := time.NewTimer(stopWithin)
	defer t.Stop()
	select {
	case <-graceful:
	case <-t.C:
		s.grpc.Stop()
		<-graceful
	}
}
