package connect

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/probe/resolve"
)

// MaxWait is the longest that an answer to a SYN is waited for: as long as the
// kernel surely sends no other.
const MaxWait = 950 * time.Millisecond

// maxOpen is how many connections an Engine has under way at a time. A probe
// that is due meanwhile waits, which shows in its lateness.
const maxOpen = 1024

// Config configures an Engine. The zero value works.
type Config struct {
	Logger *slog.Logger // nil discards
}

// Engine carries out Specs of mode connect.
type Engine struct {
	log  *slog.Logger
	room chan struct{} // holds one for each connection under way
}

// New returns an Engine. It opens nothing, so there is nothing to close.
func New(cfg Config) *Engine {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Engine{log: cfg.Logger, room: make(chan struct{}, maxOpen)}
}

// Do carries out the Spec and hands every result to emit, from the calling
// goroutine, in the order in which they become known; the Result is valid during the
// call only. The targets' probes are spread evenly over the interval. Do returns nil when all
// results have been handed over, and ctx's error if it ended before; probes
// that were still unanswered then have no result. Nothing of the Spec is left
// running when Do returns.
//
// On Linux, sockets belong to the network namespace of the calling thread.
func (e *Engine) Do(ctx context.Context, spec probe.Spec, emit func(*probe.Result)) error {
	if err := check(&spec); err != nil {
		return err
	}
	if spec.Timeout > MaxWait {
		e.log.Info("answers are not waited for as long as asked: the kernel would send the SYN again", "asked", spec.Timeout, "waiting", MaxWait)
	}
	t := newTask(e, &spec, emit)
	for i, a := range resolve.Targets(ctx, spec.Targets, spec.Family) {
		t.targets[i] = target{spec.Targets[i].Name, a}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	defer t.abandon()
	return t.loop(ctx)
}

// check says what in a Spec cannot be done here. Nothing is done differently
// from what was asked without saying so.
func check(s *probe.Spec) error {
	if err := s.Validate(); err != nil {
		return err
	}
	switch {
	case s.Mode != probe.Connect:
		return fmt.Errorf("mode %v is not this engine's", s.Mode)
	case s.Flows > 1:
		return errors.New("mode connect cannot keep source ports; use half-open or full, or --flows 1")
	case s.Sending.ECN:
		return errors.New("mode connect cannot offer ECN, the host's settings decide about that; use half-open or full")
	}
	return checkSending(&s.Sending)
}
