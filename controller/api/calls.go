package api

import (
	"context"
	"maps"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Call is a way in which a call can end.
type Call struct {
	Method string
	Code   codes.Code
}

// calls counts those that have ended. There is a bound to what is kept, for only
// the server's own methods come here.
type calls struct {
	mu    sync.Mutex
	ended map[Call]uint64
}

func (c *calls) count(method string, err error) {
	s, ok := status.FromError(err)
	if !ok {
		s = status.FromContextError(err) // as gRPC does
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended == nil {
		c.ended = make(map[Call]uint64)
	}
	c.ended[Call{method, s.Code()}]++
}

func (c *calls) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	resp, err := next(ctx, req)
	c.count(info.FullMethod, err)
	return resp, err
}

func (c *calls) stream(srv any, st grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	err := next(srv, st)
	c.count(info.FullMethod, err)
	return err
}

// Calls returns how many calls have ended, and how; also those that were refused.
func (s *Server) Calls() map[Call]uint64 {
	s.calls.mu.Lock()
	defer s.calls.mu.Unlock()
	return maps.Clone(s.calls.ended)
}
