package controller

import (
	"context"
	"crypto"
	"crypto/x509"
	"fmt"
	"path/filepath"
	"time"

	"github.com/synmesh/synmesh/controller/authority"
	"github.com/synmesh/synmesh/controller/registry"
	"github.com/synmesh/synmesh/internal/identity"
)

// trust is who the controller is, and where everybody's certificates come from.
type trust struct {
	self      identity.Identity
	source    identity.Source
	authority *authority.Authority // nil with an own PKI
	files     *identity.Files      // nil without one
}

// openTrust opens the embedded CA, or makes it; or reads the files of an own PKI.
func (c *Controller) openTrust() (*trust, error) {
	if err := identity.MakeFolder(c.cfg.DataDir); err != nil {
		return nil, err
	}
	if c.cfg.TLS.Certificate != "" {
		c.cfg.TLS.Logger = c.cfg.Logger
		files, err := identity.OpenFiles(c.cfg.TLS)
		if err != nil {
			return nil, err
		}
		current, err := files.Current()
		if err != nil {
			return nil, err
		}
		if current.Identity.Kind != identity.Controller {
			return nil, fmt.Errorf("%s is the certificate of %v; a controller's is wanted, with the URI spiffe://FLEET/controller/NAME",
				c.cfg.TLS.Certificate, current.Identity)
		}
		return &trust{self: current.Identity, source: files, files: files}, nil
	}
	if err := identity.CheckName(c.cfg.Name); err != nil {
		return nil, err
	}
	ca, err := authority.Open(authority.Config{Dir: filepath.Join(c.cfg.DataDir, "ca"), Logger: c.cfg.Logger})
	if err != nil {
		return nil, err
	}
	t := &trust{self: identity.Identity{Fleet: ca.Fleet(), Kind: identity.Controller, Name: c.cfg.Name}, authority: ca}
	t.source, err = ca.Source(c.cfg.Name)
	return t, err
}

// registry returns what the registry has to know of all this.
func (t *trust) registry(cfg registry.Config) registry.Config {
	cfg.Fleet = t.self.Fleet
	if t.authority != nil {
		cfg.Issuer, cfg.Root = t.authority, t.authority.RootKey()
	}
	return cfg
}

// roots are those that the embedded CA hands out.
func (t *trust) roots() []*x509.Certificate {
	if t.authority == nil {
		return nil
	}
	return t.authority.Roots()
}

// announcer signs for the gossip; nil if the CA has no key for that, being somebody else's.
func (t *trust) announcer() crypto.Signer {
	if t.authority == nil {
		return nil
	}
	return t.authority.Announcer()
}

// run follows the files of an own PKI, or says what the CA needs, until ctx ends.
func (t *trust) run(ctx context.Context, c *Controller) error {
	if t.files != nil {
		return t.files.Run(ctx)
	}
	daily := time.NewTicker(24 * time.Hour)
	defer daily.Stop()
	for {
		if w := t.authority.Status().Warning; w != "" {
			c.cfg.Logger.Warn("CA: " + w)
		}
		select {
		case <-daily.C:
		case <-ctx.Done():
			return nil
		}
	}
}
