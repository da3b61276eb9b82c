package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/synmesh/synmesh/internal/identity"
)

// reachWithin is how long a controller is waited for.
const reachWithin = 4 * time.Second

// connect returns a connection to a controller that has answered.
func (a *app) connect(ctx context.Context) (*grpc.ClientConn, error) {
	if a.controller == "" {
		return nil, usage(errors.New("no controller is known; name one with --controller HOST:PORT"))
	}
	credentials, err := a.saved.Credentials()
	if err != nil {
		return nil, usage(fmt.Errorf("the context cannot be used: %w", err))
	}
	a.warn(credentials)
	conn, err := grpc.NewClient(a.controller,
		grpc.WithTransportCredentials(identity.ClientCredentials(identity.Fixed(credentials))),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: firstBackOff, Multiplier: 2, Jitter: 0.25, MaxDelay: lastBackOff},
			MinConnectTimeout: reachWithin}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}))
	if err != nil {
		return nil, usage(fmt.Errorf("controller %q: %w", a.controller, err))
	}
	reach, cancel := context.WithTimeout(ctx, reachWithin)
	defer cancel()
	if _, err := grpc_health_v1.NewHealthClient(conn).Check(reach, &grpc_health_v1.HealthCheckRequest{}); err != nil {
		conn.Close()
		return nil, a.failed(ctx, err)
	}
	return conn, nil
}

// expiresSoon is how long before the end of a person's certificate they are told: nobody renews it for them.
const expiresSoon = 14 * 24 * time.Hour

// warn says that the certificate is going to expire.
func (a *app) warn(c *identity.Credentials) {
	leaf := c.Leaf()
	left := time.Until(leaf.NotAfter)
	if c.Identity.Kind != identity.User || left <= 0 || left > min(expiresSoon, leaf.NotAfter.Sub(leaf.NotBefore)/4) {
		return
	}
	fmt.Fprintf(a.err, "your certificate expires on %s; have an admin make another: probectl user create\n", leaf.NotAfter.UTC().Format(time.RFC3339))
}

// failed gives a call's error the words and the exit code that it should have.
func (a *app) failed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return &exit{code: exitInterrupted}
	}
	s, ok := status.FromError(err)
	if !ok {
		return err
	}
	switch s.Code() {
	case codes.Unavailable:
		return &exit{exitController, fmt.Errorf("controller %s cannot be reached: %s; see that probe-controller runs there, or name another with --controller", a.controller, s.Message())}
	case codes.DeadlineExceeded:
		return &exit{exitController, fmt.Errorf("controller %s has not answered within %v; see that probe-controller runs there and that nothing on the way blocks it, or name another with --controller", a.controller, reachWithin)}
	case codes.Unauthenticated, codes.PermissionDenied:
		return &exit{exitController, fmt.Errorf("controller %s does not let you: %s", a.controller, s.Message())}
	case codes.Unimplemented:
		return &exit{exitController, fmt.Errorf("controller %s does not know this call; it may be older than this probectl", a.controller)}
	case codes.InvalidArgument, codes.FailedPrecondition, codes.NotFound:
		return usage(errors.New(s.Message()))
	}
	return fmt.Errorf("controller %s: %s", a.controller, s.Message())
}
