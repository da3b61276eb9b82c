package web

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/synmesh/synmesh/controller/api/fault"
	"github.com/synmesh/synmesh/internal/identity"
)

const (
	// maxRequests is how many may be under way. It is what one connection of gRPC
	// takes, so that none waits there for another.
	maxRequests = 100
	// maxEach is how many of them may be one caller's.
	maxEach = 40
)

// guarded turns strangers away, and bounds what everybody else may take.
type guarded struct {
	identity               identity.Source
	next                   http.Handler
	bodyWithin, takeWithin time.Duration

	mu    sync.Mutex
	total int
	each  map[identity.KeyHash]int // of callers with a request under way
}

// ServeHTTP implements http.Handler.
func (g *guarded) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store") // what one may see is not for the next
	w.Header().Set("X-Content-Type-Options", "nosniff")
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	slow := &patient{ResponseWriter: w, control: http.NewResponseController(w), time: g.takeWithin, leave: cancel}
	g.serve(slow, r.WithContext(ctx))
	_ = slow.bound() // what is left is written behind us; without a deadline, there is no connection
}

func (g *guarded) serve(w http.ResponseWriter, r *http.Request) {
	p, err := visitorOf(r, g.identity)
	if err != nil {
		refuse(w, stranger(err))
		return
	}
	if err := g.enter(p.Key); err != nil {
		refuse(w, err)
		return
	}
	defer g.leave(p.Key)
	if err := g.readBody(w, r); err != nil {
		refuse(w, err)
		return
	}
	g.next.ServeHTTP(w, r)
}

func (g *guarded) enter(caller identity.KeyHash) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.total >= maxRequests:
		return fault.Later(fault.Unavailable("%d requests are under way, and that is the most; try again", maxRequests), 2*time.Second)
	case g.each[caller] >= maxEach:
		return fault.Later(fault.Exhausted("%d requests of yours are under way, and that is the most; end one of them", maxEach), 2*time.Second)
	}
	if g.each == nil {
		g.each = make(map[identity.KeyHash]int)
	}
	g.total++
	g.each[caller]++
	return nil
}

func (g *guarded) leave(caller identity.KeyHash) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.total--
	if g.each[caller]--; g.each[caller] == 0 {
		delete(g.each, caller)
	}
}

// readBody takes the body in before anything is done with it.
func (g *guarded) readBody(w http.ResponseWriter, r *http.Request) error {
	control := http.NewResponseController(w)
	if err := control.SetReadDeadline(time.Now().Add(g.bodyWithin)); err != nil {
		return err
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return &runtime.HTTPStatusError{HTTPStatus: http.StatusRequestEntityTooLarge, Err: status.Newf(codes.InvalidArgument, "the body has more than %d bytes, and that is the most", maxBody).Err()}
	case err != nil:
		return status.Errorf(codes.InvalidArgument, "the body did not come: %v", err)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	return control.SetReadDeadline(time.Time{})
}

// patient gives the client some time to take each piece of an answer, however
// long the whole may last. When it has gone, or takes nothing, the request's context ends, and
// what is written comes to nothing: nobody is to wonder at that.
type patient struct {
	http.ResponseWriter
	control *http.ResponseController
	time    time.Duration
	leave   func()
}

// bound begins the time for a piece, and unbound ends it.
func (p *patient) bound() error   { return p.control.SetWriteDeadline(time.Now().Add(p.time)) }
func (p *patient) unbound() error { return p.control.SetWriteDeadline(time.Time{}) }

func (p *patient) try(f func() error) {
	err := p.bound()
	if err == nil {
		err = errors.Join(f(), p.unbound())
	}
	if err != nil {
		p.leave()
	}
}

// Write implements http.ResponseWriter.
func (p *patient) Write(b []byte) (int, error) {
	p.try(func() error {
		_, err := p.ResponseWriter.Write(b)
		return err
	})
	return len(b), nil
}

// Flush implements http.Flusher.
func (p *patient) Flush() { p.try(p.control.Flush) }

// Unwrap is for http.ResponseController.
func (p *patient) Unwrap() http.ResponseWriter { return p.ResponseWriter }
