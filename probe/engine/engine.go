package engine

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/synmesh/synmesh/probe/packet"
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
	tap     *rawsock.Tap       // nil in quiet mode
	stamps  []*stamper         // of the senders; in tap mode one for both
	ports   *ports
	key     [16]byte      // of timestamps' offsets
	ticks   atomic.Uint32 // of the last segment
	probes  atomic.Uint64 // begun
	stopped chan struct{} // closed when Run returns
	packet  packet.Packet // handle's own

	mu         sync.Mutex
	table      map[uint32]*flight     // by initial sequence number
	answered   []*flight              // waiting for their transmit stamp
	conns      map[pair]*flight       // of mode Full, from the SYN to the end of TIME_WAIT
	challenged map[pair]time.Duration // when last, by the monotonic clock; see challenge
	swept      time.Duration          // when those of long ago were taken out of it
	stats      Stats
}

// stamper knows when segments left.
type stamper struct {
	source interface { // a rawsock.Sender or a rawsock.Tap
		Stamps(func(stamp, hardware int64, packet []byte)) error
	}
	awaited atomic.Int64 // segments sent and not seen to leave
}

// Stats counts what an Engine has seen since it was made.
type Stats struct {
	// Sent is the number of SYNs that the kernel took, warm-ups among them.
	Sent uint64
	// WarmUps are SYNs that went ahead of a target's first probe, to have the
	// kernel look for a neighbour.
	WarmUps uint64
	// Duplicates are further answers to a probe that was answered.
	Duplicates uint64
	// Challenges are ACKs that answer a SYN (RFC 5961): the target, or a
	// firewall, thinks that the connection is there already.
	Challenges uint64
	// Strays are packets to our ports that answer no probe: late, forged, or
	// for another process.
	Strays uint64
	// Mistrusted are round trips by the device's stamps that cannot be, so that
	// the kernel's were taken.
	Mistrusted uint64
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
		cfg: cfg, born: time.Now(), seed: maphash.MakeSeed(), key: offsetKey(), ports: newPorts(cfg.Ports),
		stopped: make(chan struct{}), table: make(map[uint32]*flight), conns: make(map[pair]*flight), challenged: make(map[pair]time.Duration),
	}
	e.ticks.Store(milliseconds())
	if err := e.open(); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

func (e *Engine) open() (err error) {
	if e.router, err = rawsock.OpenRouter(); err != nil {
		return err
	}
	if e.capture, err = rawsock.OpenCapture(e.cfg.Ports); err != nil {
		return err
	}
	if e.senders[0], err = rawsock.OpenSender(false, e.cfg.Stamping == Quiet); err != nil {
		return err
	}
	if e.senders[1], err = rawsock.OpenSender(true, e.cfg.Stamping == Quiet); err != nil {
		e.senders[1] = nil
		e.cfg.Logger.Info("no IPv6 on this host", "reason", err)
	}
	if e.cfg.Stamping == Tap {
		if e.tap, err = rawsock.OpenTap(e.cfg.Ports); err != nil {
			return err
		}
		s := &stamper{source: e.tap}
		e.stamps = []*stamper{s, s}
		return nil
	}
	for _, s := range e.senders {
		if s != nil {
			e.stamps = append(e.stamps, &stamper{source: s})
		}
	}
	e.wantHardware()
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
	if e.tap != nil {
		errs = append(errs, e.tap.Close())
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
