package web

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/netutil"
	"google.golang.org/grpc"

	"github.com/synmesh/synmesh/internal/identity"
)

const (
	// headerWithin is how long a client may take for the handshake, and for the header of a request.
	headerWithin = 10 * time.Second
	// bodyWithin is how long it may take for the body.
	bodyWithin = 20 * time.Second
	// takeWithin is how long it may take to take what is written at once.
	takeWithin = 30 * time.Second
	// idleFor is how long a connection is kept without a request.
	idleFor = time.Minute
	// stopWithin is how long requests under way get to end when the server stops.
	stopWithin = 4 * time.Second

	maxHeader      = 16 << 10 // bytes
	maxBody        = 1 << 20  // bytes, as of a message of gRPC
	maxConnections = 1024
)

// Config has no optional fields.
type Config struct {
	// Identity is the controller's own certificate.
	Identity identity.Source
	// Relay leads to the gRPC server.
	Relay *identity.Relay
	// Check tells whether somebody may see the metrics; see access.Guard.Check.
	Check   func(ctx context.Context, what string) error
	Metrics http.Handler
	Logger  *slog.Logger
}

// Server serves HTTP.
type Server struct {
	cfg  Config
	conn *grpc.ClientConn
	http *http.Server
}

// New returns a Server that does not listen yet.
func New(c Config) (*Server, error) {
	conn, err := c.Relay.Connect()
	if err != nil {
		return nil, err
	}
	s := &Server{cfg: c, conn: conn}
	routes, err := s.routes()
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	s.http = &http.Server{
		Handler: routes, TLSConfig: identity.RequestTLS(c.Identity), ConnContext: withVisitor,
		// Of bodies, and of what is written, guarded has its own deadlines: a stream may last.
		ReadHeaderTimeout: headerWithin, IdleTimeout: idleFor, MaxHeaderBytes: maxHeader,
		HTTP2:    &http.HTTP2Config{MaxConcurrentStreams: maxRequests, SendPingTimeout: 20 * time.Second, PingTimeout: 10 * time.Second},
		ErrorLog: slog.NewLogLogger(c.Logger.Handler(), slog.LevelDebug),
	}
	return s, nil
}

// Run serves until ctx ends, lets requests under way end for a moment, and returns when
// nothing of them is left.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	stopped := make(chan struct{})
	unhook := context.AfterFunc(ctx, func() {
		defer close(stopped)
		s.stop()
	})
	err := s.http.ServeTLS(netutil.LimitListener(l, maxConnections), "", "")
	if unhook() {
		close(stopped)
		err = errors.Join(err, s.http.Close())
	}
	<-stopped
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	return errors.Join(err, s.conn.Close())
}

func (s *Server) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), stopWithin)
	defer cancel()
	if err := s.http.Shutdown(ctx); err != nil {
		if err := s.http.Close(); err != nil {
			s.cfg.Logger.Debug("close what is left of HTTP", "error", err)
		}
	}
}
