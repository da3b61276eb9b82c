package registry

import (
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.etcd.io/bbolt"

	"github.com/synmesh/synmesh/internal/identity"
)

// What can be wrong with the file.
var (
	ErrInUse   = errors.New("in use by another process")
	ErrFormat  = errors.New("written in another format")
	ErrDamaged = errors.New("the registry is damaged; restore registry.db from a backup")
)

// What can be wrong with a request.
var (
	ErrInvalid  = errors.New("invalid")
	ErrNotFound = errors.New("not found")
	ErrExists   = errors.New("exists already")
	ErrTooMany  = errors.New("too many")
	ErrOwnPKI   = errors.New("certificates come from your own PKI here, and not from the controller")
)

// Issuer signs certificates; see authority.Authority.
type Issuer interface {
	Issue(id identity.Identity, key *ecdsa.PublicKey, life time.Duration) ([]*x509.Certificate, error)
}

// Config says where a registry is and for which fleet.
type Config struct {
	// Dir is the folder of registry.db; it is made if it is not there.
	Dir string
	// Fleet is the name of the fleet.
	Fleet string
	// Issuer signs, and Root is the hash of its root's key. With a nil Issuer
	// certificates come from elsewhere: whoever has one of the fleet is allowed
	// in, unless banned or revoked here.
	Issuer Issuer
	Root   identity.KeyHash
	Logger *slog.Logger // nil discards

	now      func() time.Time // nil: time.Now
	lockWait time.Duration    // 0: 2 s
}

// Registry is an open registry. Its methods may be called concurrently.
type Registry struct {
	cfg Config
	db  *bbolt.DB

	writing sync.Mutex // held from a transaction's begin until memory shows it
	broken  error      // bbolt panicked while writing, and holds its locks

	mu           sync.RWMutex
	agents       map[string]standing
	users        map[string]standing
	measurements measurements
	changed      chan struct{}
}

// Open opens the registry in a folder.
func Open(cfg Config) (*Registry, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.now == nil {
		cfg.now = time.Now
	}
	if cfg.lockWait == 0 {
		cfg.lockWait = 2 * time.Second
	}
	r := &Registry{
		cfg: cfg, agents: make(map[string]standing), users: make(map[string]standing), changed: make(chan struct{}),
	}
	if err := r.open(); err != nil {
		return nil, fmt.Errorf("registry %s: %w", cfg.Dir, err)
	}
	return r, nil
}

func (r *Registry) open() (err error) {
	if err := identity.MakeFolder(r.cfg.Dir); err != nil {
		return err
	}
	if r.db, err = openDB(r.cfg.Dir, r.cfg.lockWait); err != nil {
		return err
	}
	if err := r.view(r.load); err != nil {
		return errors.Join(err, r.db.Close())
	}
	return nil
}

// load fills the memory that Allowed and Measurements ask.
func (r *Registry) load(t *tx) (err error) {
	if err := t.checkHead(); err != nil {
		return err
	}
	if r.measurements, err = t.readMeasurements(); err != nil {
		return err
	}
	err = each(t.Bucket(agentsBucket), func(name string, a *agent) error {
		r.agents[name] = a.standing()
		return nil
	})
	if err != nil {
		return err
	}
	return each(t.Bucket(usersBucket), func(name string, u *user) error {
		r.users[name] = u.standing()
		return nil
	})
}

// Close waits for calls under way.
func (r *Registry) Close() error {
	r.writing.Lock()
	defer r.writing.Unlock()
	if r.broken != nil {
		return nil // bbolt would wait for itself; the process's end lets go of the file
	}
	if err := r.db.Close(); err != nil {
		return fmt.Errorf("registry: %w", err)
	}
	return nil
}

// Changed returns a channel that is closed at the next change of who is allowed
// or of the measurements. Take it before asking Allowed or Measurements.
func (r *Registry) Changed() <-chan struct{} {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.changed
}

// view runs fn in a transaction that reads.
func (r *Registry) view(fn func(*tx) error) error {
	return guard(func() error {
		return r.db.View(func(b *bbolt.Tx) error { return fn(&tx{Tx: b, registry: r}) })
	})
}

// update runs fn in a transaction that is durable when update returns nil. Then
// Allowed knows it, too.
func (r *Registry) update(fn func(*tx) error) error {
	r.writing.Lock()
	defer r.writing.Unlock()
	if r.broken != nil {
		return r.broken
	}
	var t *tx
	err := guard(func() error {
		return r.db.Update(func(b *bbolt.Tx) error {
			t = &tx{Tx: b, registry: r}
			return fn(t)
		})
	})
	if errors.Is(err, ErrDamaged) {
		r.broken = err
	}
	if err != nil {
		return err
	}
	r.show(t)
	return nil
}

// show puts what a transaction changed into the memory.
func (r *Registry) show(t *tx) {
	if len(t.agents)+len(t.users) == 0 && t.measurements == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, s := range t.agents {
		r.agents[name] = s
	}
	for name, s := range t.users {
		r.users[name] = s
	}
	if t.measurements != nil {
		r.measurements = *t.measurements
	}
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *Registry) agentIdentity(name string) identity.Identity {
	return identity.Identity{Fleet: r.cfg.Fleet, Kind: identity.Agent, Name: name}
}
