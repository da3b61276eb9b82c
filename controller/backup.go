package controller

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/synmesh/synmesh/controller/api/backups"
	"github.com/synmesh/synmesh/controller/backup"
	"github.com/synmesh/synmesh/internal/identity"
)

// What is in the data folder, beside operatorFile.
const (
	historyFolder  = "history"
	registryFolder = "registry"
	authorityDir   = "ca"
	heraldName     = "gossip.json"
	// rootKey is left out of backups: it is wanted about twice a year, and need not be online.
	rootKey = "root.key"
)

// backedUp is a history that can be copied while it is used; see history.Store.
type backedUp interface {
	Backup(ctx context.Context, add func(name string, size int64, content io.Reader) error) error
}

// backup writes what the data folder holds, in somebody's name. The history and the registry
// are as they were at one moment each.
func (c *Controller) backup(ctx context.Context, actor identity.Identity, w io.Writer) error {
	kept, ok := c.history.(backedUp)
	if !ok {
		return backups.ErrElsewhere
	}
	if err := c.registry.Record(actor, "take backup", c.trust.self.String(), ""); err != nil {
		return err
	}
	b, err := backup.New(w, c.trust.self.Name, time.Now())
	if err != nil {
		return err
	}
	name, content, err := c.registry.Backup()
	if err != nil {
		return err
	}
	err = errors.Join(
		b.AddBytes(registryFolder+"/"+name, content),
		c.backUpFolder(b, "."),
		c.backUpFolder(b, authorityDir),
	)
	if err != nil {
		return err
	}
	err = kept.Backup(ctx, func(name string, size int64, content io.Reader) error {
		return b.Add(historyFolder+"/"+name, size, content)
	})
	if err != nil {
		return err
	}
	return b.Close()
}

// backUpFolder adds the files of a folder of the data folder. Each is replaced as a whole, if ever.
func (c *Controller) backUpFolder(b *backup.Writer, dir string) error {
	entries, err := os.ReadDir(filepath.Join(c.cfg.DataDir, dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // with an own PKI there is no CA
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.Type().IsRegular() || strings.HasSuffix(e.Name(), ".tmp") || dir == authorityDir && e.Name() == rootKey {
			continue
		}
		content, err := os.ReadFile(filepath.Join(c.cfg.DataDir, dir, e.Name()))
		if err != nil {
			return err
		}
		if err := b.AddBytes(filepath.ToSlash(filepath.Join(dir, e.Name())), content); err != nil {
			return fmt.Errorf("%s: %w", e.Name(), err)
		}
	}
	return nil
}
