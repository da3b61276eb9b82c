// Package agent is the probe agent: it holds a session with a controller,
// carries out what it is told, and reports what it found. Call New, then Run.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/synmesh/synmesh/agent/policy"
	"github.com/synmesh/synmesh/agent/responder"
	"github.com/synmesh/synmesh/agent/session"
	"github.com/synmesh/synmesh/agent/spool"
	"github.com/synmesh/synmesh/agent/tasks"
	"github.com/synmesh/synmesh/internal/gossip"
	"github.com/synmesh/synmesh/internal/selector"
	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/probe/connect"
	"github.com/synmesh/synmesh/probe/engine"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// DefaultResponder is where other agents probe this one.
const DefaultResponder = ":7401"

// Config says who the agent is and where it belongs. Name, and Controllers or
// Gossip.Seeds, must be given.
type Config struct {
	// Name is unique in the fleet.
	Name    string
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
	// Insecure must be set: everything is said in plaintext, to anybody.
	Insecure bool
	Logger   *slog.Logger // nil discards
}

// Agent is an agent whose sockets are open.
type Agent struct {
	cfg       Config
	engine    *engine.Engine
	responder *responder.Responder
	gossip    *gossip.Gossip // nil without seeds
	spool     *spool.Spool
	tasks     *tasks.Tasks
	hello     *synmeshv1.Hello
}

// ErrPlaintext is returned as long as there is nothing but plaintext to be had.
var ErrPlaintext = errors.New("connections are plaintext, and anybody may read and command them: allow it with --insecure")

// New checks the configuration and opens the sockets, in the network namespace
// of the calling thread. Run must be called after it.
func New(cfg Config) (*Agent, error) {
	if !cfg.Insecure {
		return nil, ErrPlaintext
	}
	if err := selector.CheckName(cfg.Name); err != nil {
		return nil, err
	}
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
	a := &Agent{cfg: cfg, spool: spool.New(rand.Uint64())}
	if err := a.open(known); err != nil {
		if a.responder != nil {
			err = errors.Join(err, a.responder.Close())
		}
		return nil, err
	}
	a.tasks = tasks.New(policy.Limit(prober{a.engine, connect.New(connect.Config{Logger: cfg.Logger})}), a.spool, cfg.Logger)
	return a, nil
}

func (a *Agent) open(known []string) (err error) {
	cfg := &a.cfg
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
	at := netip.AddrPortFrom(cfg.Advertise, a.responder.Port()).String()
	a.hello = &synmeshv1.Hello{
		Name: cfg.Name, Labels: cfg.Labels, Version: cfg.Version, Epoch: a.spool.Epoch(),
		Responder: at, Stamping: cfg.Engine.Stamping.String(),
	}
	if len(cfg.Gossip.Seeds) > 0 {
		g := cfg.Gossip
		g.Self = gossip.Peer{Name: cfg.Name, Role: gossip.Agent, Labels: cfg.Labels, Responder: at}
		g.Advertise = netip.AddrPortFrom(cfg.Advertise, g.Listen.Port())
		g.Insecure, g.Logger = cfg.Insecure, cfg.Logger
		if a.gossip, err = gossip.New(g); err != nil {
			return err
		}
	}
	a.engine, err = engine.New(cfg.Engine)
	return err
}

// Run is the agent's life. It returns nil when ctx ends, or why the agent cannot go on.
func (a *Agent) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.engine.Run(ctx) })
	g.Go(func() error { return a.responder.Run(ctx) })
	g.Go(func() error { return a.tasks.Run(ctx) })
	if a.gossip != nil {
		g.Go(func() error { return a.gossip.Run(ctx) })
	}
	g.Go(func() error {
		return session.Run(ctx, session.Config{
			Hello: a.hello, Controllers: a.controllers, Spool: a.spool, Tasks: a.tasks, Logger: a.cfg.Logger,
			DialOptions: []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())},
		})
	})
	if err := g.Wait(); err != nil {
		return fmt.Errorf("agent %s: %w", a.cfg.Name, err)
	}
	return nil
}

// controllers are the addresses given and those that gossip tells of.
func (a *Agent) controllers() []string {
	known := append([]string(nil), a.cfg.Controllers...)
	if a.gossip == nil {
		return known
	}
	for _, p := range a.gossip.Peers() {
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
