package controller

import (
	"context"
	"errors"
	"net"

	"github.com/synmesh/synmesh/controller/api"
	"github.com/synmesh/synmesh/controller/feed"
	"github.com/synmesh/synmesh/controller/history"
	"github.com/synmesh/synmesh/controller/metrics"
	"github.com/synmesh/synmesh/controller/web"
)

// DefaultHTTP is where JSON and metrics are served, unless it is said otherwise.
const DefaultHTTP = ":7402"

// HTTPAddr returns the address that HTTP listens on, or nil.
func (c *Controller) HTTPAddr() net.Addr {
	if c.web == nil {
		return nil
	}
	return c.web.Addr()
}

// outside returns what serves those who do not speak gRPC: HTTP, and metrics, which
// are counted only if somebody gets them.
func (c *Controller) outside(server *api.Server, stored *feed.Feed) ([]func(context.Context) error, error) {
	if c.web == nil && c.cfg.OTLP == nil {
		return nil, nil
	}
	cfg := metrics.Config{
		Version: c.cfg.Version, By: c.cfg.MetricsBy, History: c.history, Fleet: c.fleet,
		Calls: server.Calls, Overflows: stored.Overflows, Logger: c.cfg.Logger,
	}
	if onDisk, ok := c.history.(interface{ Usage() (history.Usage, error) }); ok {
		cfg.Usage = onDisk.Usage
	}
	if c.cfg.OTLP != nil {
		to := *c.cfg.OTLP
		to.Name = c.trust.self.Name
		cfg.OTLP = &to
	}
	m, err := metrics.New(cfg)
	if err != nil {
		return nil, err
	}
	if c.web == nil {
		return []func(context.Context) error{m.Run}, nil
	}
	w, err := web.New(web.Config{
		Identity: c.trust.source, Relay: server.Relay(), Check: server.Check, Metrics: m.Handler(), Logger: c.cfg.Logger,
	})
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	c.cfg.Logger.Info("HTTP ready", "http", c.HTTPAddr())
	return []func(context.Context) error{m.Run, func(ctx context.Context) error { return w.Run(ctx, c.web) }}, nil
}
