package authority

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/synmesh/synmesh/internal/identity"
)

// at is a CA whose clock the test sets.
type at struct {
	*Authority
	dir string
	t   time.Time
	log bytes.Buffer
}

func newAt(t *testing.T) *at {
	t.Helper()
	a := &at{dir: filepath.Join(t.TempDir(), "ca"), t: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)}
	a.open(t)
	return a
}

func (a *at) open(t *testing.T) {
	t.Helper()
	var err error
	a.Authority, err = Open(Config{
		Dir: a.dir, Logger: slog.New(slog.NewTextHandler(&a.log, nil)), now: func() time.Time { return a.t },
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (a *at) id(kind identity.Kind) identity.Identity {
	id := identity.Identity{Fleet: a.Fleet(), Kind: kind, Name: "x"}
	if kind == identity.User {
		id.Role = identity.Viewer
	}
	return id
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestACAIsMadeOnceAndKept(t *testing.T) {
	a := newAt(t)
	for name, mode := range map[string]os.FileMode{
		".": 0o700, rootFile: 0o600, rootKeyFile: 0o600, intermediateFile: 0o600, announceFile: 0o600, readmeFile: 0o600,
	} {
		if info, err := os.Stat(filepath.Join(a.dir, name)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	fleet, announcer := a.Fleet(), a.Announcer().Public()
	a.open(t)
	if a.Fleet() != fleet || !a.Announcer().Public().(ed25519.PublicKey).Equal(announcer) {
		t.Error("another CA was found than made")
	}
	if s := a.Status(); !s.RootKeyHere || s.Warning != "" || s.IntermediateNotAfter.Sub(a.t) != intermediateLife {
		t.Errorf("%+v", s)
	}
}

func TestAFolderThatIsEmptyOrHalfMadeIsNoObstacle(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	for _, d := range []string{dir, dir + ".tmp"} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir+".tmp", rootKeyFile), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, rootFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "restore the folder") {
		t.Errorf("a CA without a root: %v", err)
	}
}

func TestCertificatesSayWhoAndForHowLong(t *testing.T) {
	a := newAt(t)
	tests := []struct {
		kind   identity.Kind
		life   time.Duration
		want   time.Duration
		server bool
	}{
		{identity.Agent, 0, MachineLife, false},
		{identity.Controller, 0, MachineLife, true},
		{identity.User, 0, UserLife, false},
		{identity.User, time.Hour, time.Hour, false},
		{identity.User, MaxUserLife, MaxUserLife, false},
	}
	for _, tt := range tests {
		key := newKey(t)
		chain, err := a.Issue(a.id(tt.kind), &key.PublicKey, tt.life)
		if err != nil {
			t.Fatal(err)
		}
		leaf := chain[0]
		if got := leaf.NotAfter.Sub(a.t); got != tt.want {
			t.Errorf("%v: %v, want %v", tt.kind, got, tt.want)
		}
		if len(leaf.URIs) != 1 || leaf.URIs[0].String() != a.id(tt.kind).URI() {
			t.Errorf("%v: %v", tt.kind, leaf.URIs)
		}
		// By it, clients of HTTP find that they have the right host.
		if err := leaf.VerifyHostname(a.id(tt.kind).Name); (err == nil) != tt.server {
			t.Errorf("%v is a host: %v", tt.kind, err)
		}
		c, err := identity.NewCredentials(key, chain, a.Roots())
		if err != nil {
			t.Fatal(err)
		}
		for usage, right := range map[x509.ExtKeyUsage]bool{x509.ExtKeyUsageClientAuth: true, x509.ExtKeyUsageServerAuth: tt.server} {
			if _, err := c.Verify(chain, usage, a.t); (err == nil) != right || err != nil && !errors.Is(err, identity.ErrUsage) {
				t.Errorf("%v for %v: %v", tt.kind, usage, err)
			}
		}
	}
}

func TestWhatMustNotBeIssuedIsNot(t *testing.T) {
	a, key := newAt(t), newKey(t)
	foreign := a.id(identity.Agent)
	foreign.Fleet = "fleet-0000000000000000"
	nameless := a.id(identity.Agent)
	nameless.Name = ""
	for name, try := range map[string]func() error{
		"another fleet":           func() error { _, err := a.Issue(foreign, &key.PublicKey, 0); return err },
		"no name":                 func() error { _, err := a.Issue(nameless, &key.PublicKey, 0); return err },
		"an agent for a year":     func() error { _, err := a.Issue(a.id(identity.Agent), &key.PublicKey, MaxUserLife); return err },
		"a user for ever":         func() error { _, err := a.Issue(a.id(identity.User), &key.PublicKey, MaxUserLife+1); return err },
		"a user for a nanosecond": func() error { _, err := a.Issue(a.id(identity.User), &key.PublicKey, 1); return err },
	} {
		if err := try(); err == nil {
			t.Errorf("%s: a certificate came", name)
		}
	}
}

func TestTheIntermediateIsRenewedWhileTheRootKeyIsThere(t *testing.T) {
	a := newAt(t)
	before := a.Status().IntermediateNotAfter
	a.t = a.t.Add(intermediateLife/2 + day)
	key := newKey(t)
	chain, err := a.Issue(a.id(identity.Agent), &key.PublicKey, 0)
	if err != nil {
		t.Fatal(err)
	}
	after := a.Status().IntermediateNotAfter
	if !after.After(before) || !chain[1].NotAfter.Equal(after) {
		t.Errorf("%v, then %v", before, after)
	}
	a.open(t)
	if !a.Status().IntermediateNotAfter.Equal(after) {
		t.Error("it was not kept")
	}
}

func TestWithoutTheRootKeyThereAreWarningsAndThenAnEnd(t *testing.T) {
	a, key := newAt(t), newKey(t)
	path := filepath.Join(a.dir, rootKeyFile)
	kept := path + ".elsewhere"
	if err := os.Rename(path, kept); err != nil {
		t.Fatal(err)
	}
	begin := a.t
	for _, tt := range []struct {
		after time.Duration
		want  string
	}{
		{0, ""},
		{intermediateLife/2 + day, "should be renewed before"},
		{intermediateLife - urgent + day, "expires on"},
	} {
		a.t = begin.Add(tt.after)
		a.log.Reset()
		chain, err := a.Issue(a.id(identity.User), &key.PublicKey, MaxUserLife)
		if err != nil || chain[0].NotAfter.After(chain[1].NotAfter) {
			t.Errorf("after %v: %v", tt.after, err)
		}
		if w := a.Status().Warning; !strings.Contains(w, tt.want) || (w == "") != (tt.want == "") || !strings.Contains(a.log.String(), w) {
			t.Errorf("after %v: %q, and the log says %q", tt.after, w, a.log.String())
		}
	}
	a.t = begin.Add(intermediateLife + day)
	if _, err := a.Issue(a.id(identity.Agent), &key.PublicKey, 0); !errors.Is(err, ErrIntermediate) {
		t.Errorf("got %v", err)
	}
	// It is never too late.
	if err := os.Rename(kept, path); err != nil {
		t.Fatal(err)
	}
	a.t = a.t.Add(attemptEvery)
	if _, err := a.Issue(a.id(identity.Agent), &key.PublicKey, 0); err != nil {
		t.Error(err)
	}
}

func TestTheControllersOwnCertificateRenewsItself(t *testing.T) {
	a := newAt(t)
	s, err := a.Source("main")
	if err != nil {
		t.Fatal(err)
	}
	first, err := s.Current()
	if err != nil || first.Identity.Kind != identity.Controller {
		t.Fatal(first, err)
	}
	if again, _ := s.Current(); again != first {
		t.Error("it is made anew for every handshake")
	}
	a.t = a.t.Add(MachineLife * 7 / 10)
	second, err := s.Current()
	if err != nil || !second.Leaf().NotAfter.After(first.Leaf().NotAfter) {
		t.Errorf("it was not renewed: %v", err)
	}
}

func TestAKeyThatOthersMayReadIsRefused(t *testing.T) {
	for _, name := range []string{"intermediate.pem", "announce.key", "root.key"} {
		a := newAt(t)
		if err := os.Chmod(filepath.Join(a.dir, name), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(Config{Dir: a.dir}); err == nil || !strings.Contains(err.Error(), name+": too many may use it") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTheEndOfTheRootIsToldAYearBefore(t *testing.T) {
	a := newAt(t)
	a.t = a.t.Add(rootLife - intermediateLife - day)
	a.open(t)
	if w := a.Status().Warning; w != "" {
		t.Errorf("more than a year before: %q", w)
	}
	a.t = a.t.Add(2 * day)
	if w := a.Status().Warning; !strings.Contains(w, "the root's certificate expires on 2036-") {
		t.Errorf("less than a year before: %q", w)
	}
}
