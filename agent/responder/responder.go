// Package responder is what other agents measure: a TCP listener that accepts
// connections and closes them at once. Half-open probes never get as far as
// that: their handshake ends in the kernel.
package responder

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

// Responder listens from the moment it is made.
type Responder struct{ listener net.Listener }

// Listen opens the responder's port, in the network namespace of the calling thread.
func Listen(address string) (*Responder, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("responder: %w", err)
	}
	return &Responder{l}, nil
}

// Port returns the port that it listens on.
func (r *Responder) Port() uint16 { return uint16(r.listener.Addr().(*net.TCPAddr).Port) }

// Close gives the port back of a Responder that does not run.
func (r *Responder) Close() error { return r.listener.Close() }

// Run accepts and closes until ctx ends, and then returns nil.
func (r *Responder) Run(ctx context.Context) error {
	unhook := context.AfterFunc(ctx, func() { r.listener.Close() })
	defer unhook()
	defer r.listener.Close()
	for {
		c, err := r.listener.Accept()
		switch {
		case err == nil:
			c.Close()
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("responder: %w", err)
		default: // out of file descriptors, say: that passes
			time.Sleep(10 * time.Millisecond)
		}
	}
}
