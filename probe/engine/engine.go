package engine

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/synmesh/synmesh/probe/rawsock"
)

// Engine sends probes and matches their answers.
type Engine struct {
	cfg     Config
	born    time.Time
	seed    maphash.Seed
	capture *rawsock.Capture
	router  *rawsock.Router
	senders [2]*rawsock.Sender // IPv4, IPv6; the latter is nil on a host without
	ports   *ports
	tsval   atomic.Uint32 // of the last SYN
	probes  atomic.Uint64 // begun
	stopped chan struct{} // closed when Run returns

	mu       sync.Mutex
	table    map[uint32]*flight // by initial sequence number
	answered []*flight          // waiting for their transmit stamp
	stats    Stats
}

// Stats counts what an Engine has seen since it was made.
type Stats struct {
	// Sent is the number of SYNs that the kernel took.
	Sent uint64
	// Duplicates are further answers to a probe that was answered.
	Duplicates uint64
	// Strays are packets to our ports that answer no probe: late, forged, or
	// for another process.
	Strays uint64
	// Drops are packets that the capture had no room for.
	Drops uint64
}

// New opens the sockets, in the network namespace of the calling thread. It
// fails with rawsock.ErrPermission where raw sockets are not allowed. Call Run
// to have the Engine receive, or Close if it is not going to run.
func New(cfg Config) (*Engine, error) {
	cfg = cfg.withDefaults()
	if cfg.Ports.First == 0 || cfg.Ports.Last < cfg.Ports.First {
		return nil, fmt.Errorf("port range %d-%d is empty", cfg.Ports.First, cfg.Ports.Last)
	}
	e := &Engine{
		cfg: cfg, born: time.Now(), seed: maphash.MakeSeed(), ports: newPorts(cfg.Ports),
		stopped: make(chan struct{}), table: make(map[uint32]*flight),
	}
	e.tsval.Store(rand.Uint32())
	if err := e.open(); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

func (e *Engine) open() (err error) {
	if e.router, err = rawsock.OpenRouter(); err != nil {
		return err
	}
	if e.capture, err = rawsock.OpenCapture(e.cfg.Ports, e.cfg.Stamping == Tap); err != nil {
		return err
	}
	if e.senders[0], err = rawsock.OpenSender(false, e.cfg.Stamping == Quiet); err != nil {
		return err
	}
	if e.senders[1], err = rawsock.OpenSender(true, e.cfg.Stamping == Quiet); err != nil {
		e.senders[1] = nil
		e.cfg.Logger.Info("no IPv6 on this host", "reason", err)
	}
	return nil
}

// Close gives the sockets back of an Engine that does not run.
func (e *Engine) Close() error {
	var errs []error
	if e.capture != nil {
		errs = append(errs, e.capture.Close())
	}
	return errors.Join(append(errs, e.closeOthers())...)
}

func (e *Engine) closeOthers() error {
	var errs []error
	if e.router != nil {
		errs = append(errs, e.router.Close())
	}
	for _, s := range e.senders {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	return errors.Join(errs...)
}

// Run receives until ctx ends, waits for every Do to return, and gives the
// sockets back. It returns nil, or why it could not receive any more.
func (e *Engine) Run(ctx context.Context) error {
	// Closing the capture is what wakes its reader.
	closed := make(chan struct{})
	unhook := context.AfterFunc(ctx, func() {
		e.capture.Close()
		close(closed)
	})
	err := e.receive()
	if unhook() {
		err = errors.Join(err, e.capture.Close())
	} else if <-closed; errors.Is(err, os.ErrClosed) {
		err = nil
	}
	close(e.stopped)
	e.ports.drain()
	return errors.Join(err, e.closeOthers())
}

// Stats returns the counts so far.
func (e *Engine) Stats() Stats {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.stats
}
