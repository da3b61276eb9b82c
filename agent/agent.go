// Package agent is the probe agent: it holds a session with a controller,
// carries out what it is told, and reports what it found. Call New, then Run.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/synmesh/synmesh/agent/policy"
	"github.com/synmesh/synmesh/agent/responder"
	"github.com/synmesh/synmesh/agent/session"
	"github.com/synmesh/synmesh/agent/spool"
	"github.com/synmesh/synmesh/agent/tasks"
	"github.com/synmesh/synmesh/internal/gossip"
	"github.com/synmesh/synmesh/internal/identity"
	"github.com/synmesh/synmesh/internal/selector"
	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/probe/connect"
	"github.com/synmesh/synmesh/probe/engine"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// DefaultResponder is where other agents probe this one.
const DefaultResponder = ":7401"

// Config says where the agent belongs. StateDir, and Controllers or Gossip.Seeds,
// must be given. Its name stands in its certificate; see Enrol.
type Config struct {
	Labels  map[string]string
	Version string
	// Controllers are addresses to dial, as host:port. Those that gossip tells
	// of are added to them.
	Controllers []string
	// Gossip is spoken if there are seeds.
	Gossip gossip.Config
	// Responder is the address to listen on for other agents; empty is DefaultResponder.
	Responder string
	// Advertise is the address that others reach this host at; if it is not
	// valid, the one this host uses towards a controller or a seed.
	Advertise netip.Addr
	Engine    engine.Config
	// StateDir is a folder of the agent's own: its certificate is there, and
	// results are kept there until a controller has stored them.
	StateDir string
	// TLS names the files of an own PKI. Without a Certificate there, it is what
	// Enrol has put into StateDir that counts.
	TLS identity.FilesConfig
	// SpoolLimit bounds what they take there, in bytes; 0 is 1 GiB.
	SpoolLimit int64
	// Spread is the time over which agents that have lost their controller come
	// back; 0 is 30 s.
	Spread time.Duration
	Logger *slog.Logger // nil discards
}

// Agent is an agent whose sockets are open.
type Agent struct {
	cfg         Config
	credentials *membership
	engine      *engine.Engine
	responder   *responder.Responder
	gossip      atomic.Pointer[gossip.Gossip] // nil without seeds, and as long as its keys are not known
	spool       *spool.Spool
	tasks       *tasks.Tasks
	hello       *synmeshv1.Hello

	suspicion chan struct{}         // holds one if our certificate may not be the newest
	began     chan *grpc.ClientConn // holds that of a session that has begun

	// gossiping's own.
	told told
	conn *grpc.ClientConn // of a session; nil: none is known
}

// New checks the configuration and opens the sockets, in the network namespace
// of the calling thread. Run must be called after it.
func New(cfg Config) (*Agent, error) {
	if err := selector.CheckLabels(cfg.Labels); err != nil {
		return nil, err
	}
	known := append(cfg.Controllers[:len(cfg.Controllers):len(cfg.Controllers)], cfg.Gossip.Seeds...)
	if len(known) == 0 {
		return nil, errors.New("neither a controller nor a gossip seed is given; name one with --controller or --join")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.Engine.Logger = cfg.Logger
	if cfg.StateDir == "" {
		return nil, errors.New("no folder for the agent's state is given; name one with --state")
	}
	a := &Agent{cfg: cfg, suspicion: make(chan struct{}, 1), began: make(chan *grpc.ClientConn, 1)}
	if err := a.open(known); err != nil {
		if a.credentials != nil {
			err = errors.Join(err, a.credentials.close())
		}
		if a.responder != nil {
			err = errors.Join(err, a.responder.Close())
		}
		if a.spool != nil {
			err = errors.Join(err, a.spool.Close())
		}
		return nil, err
	}
	a.tasks = tasks.New(policy.Limit(prober{a.engine, connect.New(connect.Config{Logger: cfg.Logger})}, a.responders), a.spool, cfg.Logger)
	return a, nil
}

func (a *Agent) open(known []string) (err error) {
	cfg := &a.cfg
	var id identity.Identity
	if a.credentials, id, err = openMembership(cfg); err != nil {
		return err
	}
	if !cfg.Advertise.IsValid() {
		if cfg.Advertise, err = gossip.Outbound(known); err != nil {
			return err
		}
	}
	if cfg.Responder == "" {
		cfg.Responder = DefaultResponder
	}
	if a.responder, err = responder.Listen(cfg.Responder); err != nil {
		return err
	}
	a.spool, err = spool.Open(spool.Config{Dir: filepath.Join(cfg.StateDir, "spool"), Limit: cfg.SpoolLimit, Logger: cfg.Logger})
	if err != nil {
		return err
	}
	at := netip.AddrPortFrom(cfg.Advertise, a.responder.Port()).String()
	a.hello = &synmeshv1.Hello{
		Name: id.Name, Labels: cfg.Labels, Version: cfg.Version,
		Responder: at, Stamping: cfg.Engine.Stamping.String(),
	}
	if len(cfg.Gossip.Seeds) > 0 {
		cfg.Gossip.Self = gossip.Peer{Name: id.Name, Role: gossip.Agent, Labels: cfg.Labels, Responder: at}
		cfg.Gossip.Advertise = netip.AddrPortFrom(cfg.Advertise, cfg.Gossip.Listen.Port())
		cfg.Gossip.Logger = cfg.Logger
		if err = a.newGossip(); err != nil {
			return err
		}
	}
	a.engine, err = engine.New(cfg.Engine)
	return err
}

// Run is the agent's life. It returns nil when ctx ends, or why the agent cannot
// go on. The spool outlives the tasks, so that what they found is kept.
func (a *Agent) Run(ctx context.Context) (err error) {
	keep, release := context.WithCancel(context.WithoutCancel(ctx))
	spooled := make(chan error, 1)
	go func() { spooled <- a.spool.Run(keep) }()
	defer func() {
		release()
		err = errors.Join(err, <-spooled, a.credentials.close())
	}()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.engine.Run(ctx) })
	g.Go(func() error { return a.responder.Run(ctx) })
	g.Go(func() error { return a.tasks.Run(ctx) })
	if len(a.cfg.Gossip.Seeds) > 0 {
		g.Go(func() error { return a.gossiping(ctx) })
	}
	g.Go(func() error { return a.renew(ctx) })
	g.Go(func() error { return a.sessions(ctx) })
	if err := g.Wait(); err != nil {
		return fmt.Errorf("agent %s: %w", a.hello.GetName(), err)
	}
	return nil
}

// maxIdle is how long runs may hold up the session that shows a new certificate.
const maxIdle = time.Hour

// errRenewed ends a session whose certificate has been renewed.
var errRenewed = errors.New("the certificate was renewed")

// sessions holds one session after the other. Each shows the newest certificate:
// when there is a newer one, the next begins.
func (a *Agent) sessions(ctx context.Context) error {
	for ctx.Err() == nil {
		changed := a.credentials.Changed()
		g, ctx := errgroup.WithContext(ctx)
		g.Go(func() error {
			select {
			case <-changed:
				return a.idle(ctx)
			case <-ctx.Done():
				return nil
			}
		})
		g.Go(func() error {
			return session.Run(ctx, session.Config{
				Hello: a.hello, Controllers: a.controllers, Spool: a.spool, Tasks: a.tasks, Logger: a.cfg.Logger, Spread: a.cfg.Spread,
				DialOptions: []grpc.DialOption{grpc.WithTransportCredentials(identity.ClientCredentials(a.credentials))},
				Began:       a.sessionBegan, Ended: a.sessionEnded,
			})
		})
		if err := g.Wait(); err != nil && !errors.Is(err, errRenewed) {
			return err
		}
	}
	return nil
}

// idle waits until no run goes on, for those end with the session, but not for
// long: the certificate of the session has half of its life left, and is good
// until a session begins with the next one.
func (a *Agent) idle(ctx context.Context) error {
	patience := time.NewTimer(maxIdle)
	defer patience.Stop()
	for a.tasks.Runs() > 0 {
		look := time.NewTimer(time.Second)
		select {
		case <-look.C:
			continue
		case <-patience.C:
		case <-ctx.Done():
		}
		look.Stop()
		break
	}
	return errRenewed
}

// controllers are the addresses given and those that gossip tells of.
func (a *Agent) controllers() []string {
	known := append([]string(nil), a.cfg.Controllers...)
	g := a.gossip.Load()
	if g == nil {
		return known
	}
	for _, p := range g.Peers() {
		if p.Role == gossip.Controller {
			known = append(known, p.GRPC)
		}
	}
	return known
}

// prober is the engine that a Spec's mode asks for.
type prober struct {
	raw     *engine.Engine
	connect *connect.Engine
}

// Do implements policy.Prober.
func (p prober) Do(ctx context.Context, s probe.Spec, emit func(*probe.Result)) error {
	if s.Mode == probe.Connect {
		return p.connect.Do(ctx, s, emit)
	}
	return p.raw.Do(ctx, s, emit)
}
