package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"

	"github.com/synmesh/synmesh/internal/identity"
)

// Backup returns what registry.db holds at this moment, as a file of that name.
func (r *Registry) Backup() (name string, content []byte, err error) {
	// From memory, for who is slow to take it must not hold up those who write.
	var b bytes.Buffer
	err = r.view(func(t *tx) error {
		b.Grow(int(t.Size()))
		_, err := t.WriteTo(&b)
		return err
	})
	if err != nil {
		return "", nil, fmt.Errorf("registry: backup: %w", err)
	}
	return fileName, b.Bytes(), nil
}

// Check reads everything in the registry.db of a folder, and the audit log from end to end,
// and returns how many entries there are. It changes nothing. Its errors wrap
// fs.ErrNotExist, ErrInUse, ErrFormat, ErrDamaged or ErrAudit, or are the context's.
func Check(ctx context.Context, dir string) (entries int, err error) {
	path := filepath.Join(dir, fileName)
	info, err := os.Stat(path) // bbolt would make one, and fill one that is empty
	if err != nil {
		return 0, err
	}
	if info.Size() == 0 {
		return 0, fmt.Errorf("%w: it is empty", ErrDamaged)
	}
	options := &bbolt.Options{Timeout: time.Second, ReadOnly: true, NoStatistics: true, FreelistType: bbolt.FreelistMapType}
	db, err := openWith(path, options)
	if err != nil {
		if errno := (*fs.PathError)(nil); !errors.Is(err, ErrInUse) && !errors.As(err, &errno) {
			err = fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		return 0, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	r := &Registry{cfg: Config{Dir: dir}, db: db, agents: make(map[string]standing), users: make(map[string]standing)}
	err = r.view(func(t *tx) error {
		if err := checkFormat(t.Tx); err != nil {
			return err
		}
		entries, err = t.check()
		return err
	})
	if err != nil {
		return entries, err
	}
	return entries, r.VerifyAudit(ctx)
}

// check reads all entries but those of the audit log, which VerifyAudit does.
func (t *tx) check() (entries int, err error) {
	err = errors.Join(
		each(t.Bucket(tokensBucket), func(string, *token) error { entries++; return nil }),
		each(t.Bucket(agentsBucket), func(name string, _ *agent) error { entries++; return identity.CheckName(name) }),
		each(t.Bucket(usersBucket), func(name string, _ *user) error { entries++; return identity.CheckName(name) }),
		t.eachSeen(func(name string, _ *Seen) error { entries++; return identity.CheckName(name) }),
	)
	if err != nil {
		return entries, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	m, err := t.readMeasurements()
	if err != nil {
		return entries, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	entries += len(m.list)
	return entries, t.Bucket(auditBucket).ForEach(func(_, _ []byte) error { entries++; return nil })
}
