// Package access says who may do what. Every call goes through a Guard: who
// calls is what stands in their certificate, whether they belong to the fleet
// says the registry, and what they may do says one table, rules. What is not in it is refused.
//
// Begin with New, and give its interceptors to the server before all others.
package access

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/synmesh/synmesh/controller/api/fault"
	"github.com/synmesh/synmesh/controller/registry"
	"github.com/synmesh/synmesh/internal/identity"
)

// Registry knows who belongs to the fleet; see registry.Registry.
type Registry interface {
	Allowed(identity.Identity, identity.KeyHash) error
	Admit(identity.Identity, identity.KeyHash) error
	Changed() <-chan struct{}
}

// Guard lets calls through or refuses them.
type Guard struct {
	registry Registry
	log      *slog.Logger
	handlers sync.WaitGroup // of streams; one that is refused may end a moment after its stream
}

// New returns a Guard that asks the registry.
func New(r Registry, log *slog.Logger) *Guard { return &Guard{registry: r, log: log} }

// Wait returns when no handler of a stream runs. It is for after the server has stopped.
func (g *Guard) Wait() { g.handlers.Wait() }

// check tells whether the one who calls may do so now.
func (g *Guard) check(ctx context.Context, method string) (identity.Peer, error) {
	r, known := rules[method]
	if !known {
		return identity.Peer{}, fault.Forbidden("%s: nobody may call it", method)
	}
	if r == anybody {
		return identity.Peer{}, nil
	}
	p, err := identity.FromContext(ctx)
	if err != nil && (r != renewing || !errors.Is(err, identity.ErrExpired)) {
		return p, fault.Stranger(err)
	}
	if err := g.registry.Allowed(p.Identity, p.Key); err != nil && (r != renewing || !mayStillRenew(err)) {
		return p, fault.Refused(p.Identity, err)
	}
	if !r.lets(p.Identity) {
		return p, fault.Forbidden("%s: this is for %v; you are %v", method, r, p.Identity)
	}
	return p, nil
}

// Check tells whether the one who calls may have what is not served by gRPC and has a rule.
func (g *Guard) Check(ctx context.Context, what string) error {
	_, err := g.check(ctx, what)
	return err
}

// mayStillRenew tells whether the renewal itself has to judge: that of a key
// which is not the newest shows that an agent's state was copied.
func mayStillRenew(err error) bool {
	return errors.Is(err, registry.ErrSuperseded) || errors.Is(err, registry.ErrUnknown)
}

// Unary guards calls with one answer. An agent's may take minutes, and it has
// a secret in it: it is asked again before it goes out.
func (g *Guard) Unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if _, err := g.check(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	resp, err := next(ctx, req)
	if err == nil && rules[info.FullMethod] == agents {
		if _, err := g.check(ctx, info.FullMethod); err != nil {
			return nil, err
		}
	}
	return resp, err
}

// Stream guards streams: when they begin, at each message, whenever the
// registry changes, and when the certificate expires. So one on which nothing is
// said ends as soon as whoever holds it is banned.
func (g *Guard) Stream(srv any, st grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	p, err := g.check(st.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(st.Context())
	defer cancel()
	check := func() error {
		_, err := g.check(ctx, info.FullMethod)
		return err
	}
	ended := make(chan error, 1)
	g.handlers.Go(func() { ended <- next(srv, &stream{st, ctx, check}) })
	expiry := time.NewTimer(time.Until(p.NotAfter) + time.Second)
	defer expiry.Stop()
	for {
		changed := g.registry.Changed()
		if err := check(); err != nil {
			g.log.Warn("a stream was ended", "method", info.FullMethod, "who", p.Identity, "reason", err)
			return err
		}
		select {
		case err := <-ended:
			return err
		case <-changed:
		case <-expiry.C:
		}
	}
}

// stream asks at each message whether it may pass.
type stream struct {
	grpc.ServerStream
	ctx   context.Context
	check func() error
}

// Context implements grpc.ServerStream.
func (s *stream) Context() context.Context { return s.ctx }

// RecvMsg implements grpc.ServerStream.
func (s *stream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	return s.check()
}

// SendMsg implements grpc.ServerStream.
func (s *stream) SendMsg(m any) error {
	if err := s.check(); err != nil {
		return err
	}
	return s.ServerStream.SendMsg(m)
}

// Admit lets the session of an agent begin that calls itself by a name. Its
// certificate tells who it is, and the name has to be the same.
func (g *Guard) Admit(ctx context.Context, name string) error {
	p, err := identity.FromContext(ctx)
	if err != nil {
		return fault.Stranger(err)
	}
	if p.Identity.Kind != identity.Agent || p.Identity.Name != name {
		return fault.Forbidden("the hello is of agent %.80q, and the certificate of %v; leave the name to the certificate", name, p.Identity)
	}
	if err := g.registry.Admit(p.Identity, p.Key); err != nil {
		return fault.Refused(p.Identity, err)
	}
	return nil
}
