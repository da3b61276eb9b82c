package controller

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/synmesh/synmesh/controller/registry"
	"github.com/synmesh/synmesh/internal/identity"
	"github.com/synmesh/synmesh/internal/identity/contexts"
)

const (
	// operatorFile is the context of the first admin, in the data folder.
	operatorFile = "operator.yaml"
	operatorName = "operator"
)

// welcomeOperator makes the fleet's first admin and writes their context file, unless
// there has been a user before. The key is on the disk before it counts, so that a
// crash in between leaves nothing that the next start cannot complete.
func (c *Controller) welcomeOperator() error {
	if c.trust.authority == nil {
		return nil
	}
	path := filepath.Join(c.cfg.DataDir, operatorFile)
	saved, err := contexts.Read(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		users, err := c.registry.Users("", 1)
		if err != nil || len(users) > 0 {
			return err
		}
		saved = contexts.Context{Controller: c.self.GRPC, State: &identity.State{}}
		if saved.State.Pending, err = identity.NewKey(); err != nil {
			return err
		}
		if err := write(path, saved); err != nil {
			return err
		}
	case err != nil:
		// It may have been edited, and is of no use to us.
		c.cfg.Logger.Warn("the operator's context file cannot be read", "reason", err)
		return nil
	}
	if saved.State == nil || saved.State.Pending == nil || saved.State.Enrolled() {
		return nil
	}
	e, err := c.registry.CreateUser(c.trust.self, operatorName, identity.Admin, &saved.State.Pending.PublicKey, 0)
	if err != nil {
		return fmt.Errorf("make the first admin: %w", err)
	}
	if err := saved.State.Accept(identity.Issued{Generation: e.Generation, Chain: e.Chain, Roots: c.trust.roots()}); err != nil {
		return err
	}
	if err := write(path, saved); err != nil {
		return err
	}
	c.cfg.Logger.Info("the first admin was made; use it with probectl --context", "file", path, "user", operatorName)
	return nil
}

// MakeOperator makes an admin of that name, or makes them anew, in the fleet of cfg.DataDir,
// and writes their context file, which must not be there yet; address is the
// controller's, for that file. It is for whoever has no admin left, and lets in
// nobody who could not be anybody already: who has the folder has the CA. No controller may
// be running there. The audit log has it in the name of the controller cfg.Name.
func MakeOperator(cfg Config, name, file, address string) (err error) {
	if cfg.DataDir == "" {
		return errors.New("no folder for the data is given; name one with --data")
	}
	if err := identity.CheckName(name); err != nil {
		return err
	}
	dir := filepath.Join(cfg.DataDir, "ca")
	if _, err := os.Stat(dir); err != nil {
		return fmt.Errorf("there is no CA in %s (%w); with an own PKI its certificates say who is an admin", cfg.DataDir, err)
	}
	if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is there already; remove it, or name another with --file", file)
	}
	cfg.TLS = identity.FilesConfig{}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if address == "" {
		if before, err := contexts.Read(filepath.Join(cfg.DataDir, operatorFile)); err == nil {
			address = before.Controller
		}
	}
	c := &Controller{cfg: cfg}
	if c.trust, err = c.openTrust(); err != nil {
		return err
	}
	c.registry, err = registry.Open(c.trust.registry(registry.Config{Dir: filepath.Join(cfg.DataDir, "registry"), Logger: cfg.Logger}))
	if errors.Is(err, registry.ErrInUse) {
		return fmt.Errorf("stop the controller first: %w", err)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	state := &identity.State{}
	if state.Pending, err = identity.NewKey(); err != nil {
		return err
	}
	e, err := c.registry.RestoreAdmin(c.trust.self, name, &state.Pending.PublicKey)
	if err != nil {
		return err
	}
	if err := state.Accept(identity.Issued{Generation: e.Generation, Chain: e.Chain, Roots: c.trust.roots()}); err != nil {
		return err
	}
	return write(file, contexts.Context{Controller: address, State: state})
}

func write(path string, saved contexts.Context) error {
	text, err := saved.Encode()
	if err != nil {
		return err
	}
	if err := identity.WriteFile(path, text); err != nil {
		return fmt.Errorf("operator's context file: %w", err)
	}
	return nil
}
