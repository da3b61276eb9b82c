package registry

import (
	"crypto/ecdsa"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/synmesh/synmesh/controller/authority"
	"github.com/synmesh/synmesh/internal/identity"
)

// childEnv makes the test binary play another part in a process of its own.
const childEnv = "SYNMESH_REGISTRY_TEST_CHILD"

var children = map[string]func(args []string) error{}

func TestMain(m *testing.M) {
	if part := os.Getenv(childEnv); part != "" {
		if err := children[part](os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// clock is a wall clock under the test's control.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Now()} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// fleet is a registry and the CA it issues from.
type fleet struct {
	*Registry
	ca    *authority.Authority
	clock *clock
	dir   string
	admin identity.Identity
}

func newFleet(t testing.TB) *fleet {
	t.Helper()
	f := &fleet{dir: t.TempDir(), clock: newClock()}
	f.open(t)
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func (f *fleet) open(t testing.TB) {
	t.Helper()
	var err error
	if f.ca, f.Registry, err = openAll(f.dir, f.clock.now); err != nil {
		t.Fatal(err)
	}
	f.admin = identity.Identity{Fleet: f.ca.Fleet(), Kind: identity.User, Role: identity.Admin, Name: "alice"}
}

func openAll(dir string, now func() time.Time) (*authority.Authority, *Registry, error) {
	ca, err := authority.Open(authority.Config{Dir: filepath.Join(dir, "ca")})
	if err != nil {
		return nil, nil, err
	}
	r, err := Open(Config{Dir: filepath.Join(dir, "registry"), Fleet: ca.Fleet(), Issuer: ca, Root: ca.RootKey(), now: now})
	return ca, r, err
}

// reopen is a controller that starts again.
func (f *fleet) reopen(t testing.TB) {
	t.Helper()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	f.open(t)
}

func (f *fleet) token(t testing.TB, agent string) identity.Token {
	t.Helper()
	token, _, err := f.CreateToken(f.admin, agent, 0)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func (f *fleet) id(agent string) identity.Identity {
	return identity.Identity{Fleet: f.ca.Fleet(), Kind: identity.Agent, Name: agent}
}

// enrol makes an agent, and returns its key.
func (f *fleet) enrol(t testing.TB, agent string) *ecdsa.PrivateKey {
	t.Helper()
	key := newKey(t)
	if _, err := f.Enrol(f.token(t, agent).Hash(), "", &key.PublicKey); err != nil {
		t.Fatal(err)
	}
	return key
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func hash(t testing.TB, key *ecdsa.PrivateKey) identity.KeyHash {
	t.Helper()
	h, err := identity.HashKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// want fails unless the error is that one; nil is none.
func want(t testing.TB, err, is error) {
	t.Helper()
	if !errors.Is(err, is) {
		t.Errorf("got %v, want %v", err, is)
	}
}

// acts returns how often something stands in the audit log.
func (f *fleet) acts(t testing.TB, act string) int {
	t.Helper()
	if err := f.VerifyAudit(t.Context()); err != nil {
		t.Error(err)
	}
	n := 0
	for after := uint64(0); ; {
		entries, err := f.Audit(after, 0)
		if err != nil {
			t.Fatal(err)
		}
		if len(entries) == 0 {
			return n
		}
		for _, e := range entries {
			if after = e.Number; e.Act == act {
				n++
			}
		}
	}
}
