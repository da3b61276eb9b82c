// Package controller is the probe controller: agents connect to it, operators
// ask it for runs and results, and it keeps the history. Call New, then Run.
package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"

	"golang.org/x/sync/errgroup"

	"github.com/synmesh/synmesh/controller/api"
	"github.com/synmesh/synmesh/controller/catalogue"
	"github.com/synmesh/synmesh/controller/feed"
	"github.com/synmesh/synmesh/controller/fleet"
	"github.com/synmesh/synmesh/controller/history"
	"github.com/synmesh/synmesh/controller/metrics"
	"github.com/synmesh/synmesh/controller/registry"
	"github.com/synmesh/synmesh/internal/gossip"
	"github.com/synmesh/synmesh/internal/identity"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// DefaultListen is where agents and operators connect.
const DefaultListen = ":7400"

// Config says where a controller listens and keeps its data. Name and DataDir
// must be given.
type Config struct {
	// Name is unique among all that gossip. With an own PKI it is that of the certificate.
	Name string
	// DataDir is a folder of the controller's own.
	DataDir string
	// History says how much is kept, and for how long. Its Dir and Logger are left empty.
	History history.Config
	// Keep is where results are kept instead of in DataDir; nil: they are kept there.
	Keep History
	// Listen is the gRPC address; empty is DefaultListen.
	Listen string
	// HTTP is the address for JSON and metrics; empty: there is none.
	HTTP string
	// MetricsBy is the label whose values the metrics of probes are grouped by; empty is
	// metrics.DefaultBy. OTLP says where metrics are pushed to; nil: nowhere.
	MetricsBy string
	OTLP      *metrics.OTLP
	// Version is what the metrics say is running.
	Version string
	// Advertise is the address that others reach this host at; if it is not
	// valid, the one this host uses towards a seed or the world.
	Advertise netip.Addr
	Gossip    gossip.Config
	// Measurements are planned besides those that people store; nobody can
	// change them. See measurement.ReadFile.
	Measurements []*synmeshv1.Measurement
	// TLS names the files of an own PKI. Without a Certificate there, the
	// controller is a CA itself, which it makes on its first start.
	TLS    identity.FilesConfig
	Logger *slog.Logger // nil discards
}

// History is where a controller keeps what its agents found; see history.Store, and
// memory.History for another.
type History interface {
	api.History
	metrics.History
	// Run is the history's life, which ends with ctx; when it has returned, Close is called.
	Run(ctx context.Context) error
	Close() error
}

// Controller is a controller whose port is open.
type Controller struct {
	cfg      Config
	self     gossip.Peer
	trust    *trust
	herald   *herald
	listener net.Listener
	web      net.Listener // nil if there is none
	history  History
	registry *registry.Registry
	fleet    *fleet.Fleet
	roster   *roster
	gossip   *gossip.Gossip
}

// New checks the configuration, opens the history and listens. Run must be called after it.
func New(cfg Config) (*Controller, error) {
	if cfg.DataDir == "" {
		return nil, errors.New("no folder for the data is given; name one with --data")
	}
	if cfg.Listen == "" {
		cfg.Listen = DefaultListen
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Controller{cfg: cfg, fleet: fleet.New()}
	if err := c.open(); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

func (c *Controller) open() (err error) {
	if c.trust, err = c.openTrust(); err != nil {
		return err
	}
	c.registry, err = registry.Open(c.trust.registry(registry.Config{Dir: filepath.Join(c.cfg.DataDir, registryFolder), Logger: c.cfg.Logger}))
	if err != nil {
		return err
	}
	if c.roster, err = openRoster(c.fleet, c.registry, c.cfg.Logger); err != nil {
		return err
	}
	if c.herald, err = openHerald(c.cfg.DataDir, c.trust, c.cfg.Logger); err != nil {
		return err
	}
	c.herald.record = c.registry.Record
	c.herald.barred = func(agent string) bool {
		a, err := c.registry.Agent(agent)
		return err == nil && (a.Banned != nil || a.Locked != nil)
	}
	if c.listener, err = net.Listen("tcp", c.cfg.Listen); err != nil {
		return fmt.Errorf("gRPC: %w", err)
	}
	if c.cfg.HTTP != "" {
		if c.web, err = net.Listen("tcp", c.cfg.HTTP); err != nil {
			return fmt.Errorf("HTTP: %w", err)
		}
	}
	if c.gossip, err = c.newGossip(); err != nil {
		return err
	}
	if err := c.openHistory(); err != nil {
		return err
	}
	return c.welcomeOperator()
}

func (c *Controller) openHistory() error {
	if c.history = c.cfg.Keep; c.history != nil {
		return nil
	}
	cfg := c.cfg.History
	cfg.Dir, cfg.Logger = filepath.Join(c.cfg.DataDir, historyFolder), c.cfg.Logger
	store, err := history.Open(cfg)
	if err != nil {
		return err // and c.history stays nil
	}
	c.history = store
	return nil
}

func (c *Controller) newGossip() (*gossip.Gossip, error) {
	at := c.cfg.Advertise
	if !at.IsValid() {
		var err error
		if at, err = gossip.Outbound(c.cfg.Gossip.Seeds); err != nil {
			// Alone on a host without a network: what is on the host reaches it.
			at = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		}
	}
	port := c.listener.Addr().(*net.TCPAddr).Port
	c.self = gossip.Peer{Name: c.trust.self.Name, Role: gossip.Controller, GRPC: net.JoinHostPort(at.String(), strconv.Itoa(port))}
	g := c.cfg.Gossip
	secrets := c.herald.secrets()
	g.Self, g.Fleet, g.Keys, g.Trusted = c.self, c.herald.fleet, secrets.Keys, secrets.Trusted
	g.Advertise, g.Logger = netip.AddrPortFrom(at, g.Listen.Port()), c.cfg.Logger
	return gossip.New(g)
}

func (c *Controller) close() error {
	var errs []error
	if c.listener != nil {
		errs = append(errs, c.listener.Close())
	}
	if c.web != nil {
		errs = append(errs, c.web.Close())
	}
	if c.history != nil {
		errs = append(errs, c.history.Close())
	}
	if c.registry != nil {
		errs = append(errs, c.registry.Close())
	}
	return errors.Join(errs...)
}

// Addr returns the address that gRPC listens on.
func (c *Controller) Addr() net.Addr { return c.listener.Addr() }

// Run is the controller's life. It returns nil when ctx ends, or why the
// controller cannot go on. The history outlives the server, so that what was
// taken in is stored.
func (c *Controller) Run(ctx context.Context) (err error) {
	measurements := catalogue.New(c.cfg.Measurements, c.registry)
	tables, stored := newTimetables(c.fleet, measurements, c.cfg.Logger), feed.New()
	server, err := api.New(api.Config{
		Fleet: c.fleet, Feed: stored, History: c.history, Catalogue: measurements, Plan: tables.Plan,
		Identity: c.trust.source, Registry: c.registry, Roots: c.trust.roots(), Files: c.herald.files, Sign: c.herald.sign,
		Follow: c.herald.follow, Keys: c.herald, Backup: c.backup, Logger: c.cfg.Logger,
	})
	if err != nil {
		return errors.Join(err, c.close())
	}
	outside, err := c.outside(server, stored)
	if err != nil {
		return errors.Join(err, c.close())
	}
	keep, release := context.WithCancel(context.WithoutCancel(ctx))
	kept := make(chan error, 1)
	go func() { kept <- c.history.Run(keep) }()
	defer func() {
		release()
		err = errors.Join(err, <-kept, c.history.Close(), c.registry.Close())
	}()

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return server.Run(ctx, c.listener) })
	g.Go(func() error { return c.gossip.Run(ctx) })
	g.Go(func() error { return c.followGossip(ctx) })
	g.Go(func() error { return c.announce(ctx) })
	g.Go(func() error { return c.herald.run(ctx, c.gossip.SetKeys) })
	g.Go(func() error { return c.trust.run(ctx, c) })
	g.Go(func() error { return tables.run(ctx) })
	g.Go(func() error { return c.roster.run(ctx) })
	for _, run := range outside {
		g.Go(func() error { return run(ctx) })
	}
	c.cfg.Logger.Info("controller ready", "grpc", c.Addr(), "measurements", len(c.cfg.Measurements))
	return g.Wait()
}
