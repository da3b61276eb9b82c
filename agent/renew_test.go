//go:build linux

package agent

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/synmesh/synmesh/controller/api/apitest"
	"github.com/synmesh/synmesh/controller/registry"
	"github.com/synmesh/synmesh/internal/gossip"
	"github.com/synmesh/synmesh/internal/identity"
)

// next waits until the controller has issued a certificate of that generation.
func next(t *testing.T, m *apitest.Members, generation uint64) registry.Agent {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		a, err := m.Registry.Agent("fra-1")
		if err == nil && a.Generation >= generation {
			return a
		}
		if time.Now().After(end) {
			t.Fatalf("generation %d has not come: %+v, %v", generation, a, err)
		}
	}
}

// Each certificate is renewed before it ends, and the session begins anew with it.
func TestAnAgentRenewsItsCertificateAndShowsTheNewOne(t *testing.T) {
	c := startControllerOf(t, apitest.NewBriefMembers(t, 3*time.Second))
	cfg := config(t, c.members)
	cfg.Controllers = []string{c.address}
	start(t, cfg)
	for generation := range uint64(3) {
		s, _ := c.accept()
		peer, err := identity.FromContext(s.stream.Context())
		if err != nil {
			t.Fatal(err)
		}
		if a := next(t, c.members, generation+1); generation == 0 && a.Key != peer.Key {
			t.Errorf("the first session shows %v, and issued was %v", peer.Key, a.Key)
		}
	}
}

func TestACertificateThatExpiredLongAgoIsRenewed(t *testing.T) {
	m := apitest.NewBriefMembers(t, time.Nanosecond)
	cfg := config(t, m)
	c := startControllerOf(t, m)
	cfg.Controllers = []string{c.address}
	start(t, cfg)
	next(t, m, 2)
}

func TestABannedAgentIsNotRenewed(t *testing.T) {
	m := apitest.NewBriefMembers(t, time.Nanosecond)
	cfg := config(t, m)
	admin := identity.Identity{Fleet: m.CA.Fleet(), Kind: identity.User, Role: identity.Admin, Name: "alice"}
	if err := m.Ban(admin, "fra-1", "too loud"); err != nil {
		t.Fatal(err)
	}
	c := startControllerOf(t, m)
	cfg.Controllers = []string{c.address}
	a, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(a.credentials.close(), a.spool.Close(), a.responder.Close()); err != nil {
			t.Error(err)
		}
	}()
	if err := a.renewOnce(t.Context()); err == nil || !strings.Contains(err.Error(), "banned by user/admin/alice") {
		t.Errorf("got %v", err)
	}
}

// With an own PKI the keys of the gossip come from the controller, over the session's TLS.
func TestAnAgentOfAnOwnPKIGossipsOnceItHasReachedItsController(t *testing.T) {
	c := startController(t)
	key, dir := apitest.NewKey(t), t.TempDir()
	chain, err := c.members.CA.Issue(identity.Identity{Fleet: c.members.CA.Fleet(), Kind: identity.Agent, Name: "fra-1"}, &key.PublicKey, 0)
	if err != nil {
		t.Fatal(err)
	}
	text, err := identity.EncodeKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cfg := config(t, nil)
	cfg.TLS = identity.FilesConfig{Certificate: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key"), Roots: filepath.Join(dir, "ca.crt")}
	for path, content := range map[string][]byte{
		cfg.TLS.Certificate: identity.EncodeCertificates(chain...), cfg.TLS.Key: text, cfg.TLS.Roots: identity.EncodeCertificates(c.members.CA.Roots()...),
	} {
		if err := identity.WriteFile(path, content); err != nil {
			t.Fatal(err)
		}
	}
	cfg.Controllers = []string{c.address}
	g := startGossip(t, c)
	seed, err := g.Addr(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cfg.Gossip = gossip.Config{Listen: netip.MustParseAddrPort("127.0.0.1:0"), Seeds: []string{seed.String()}}
	start(t, cfg)
	c.accept()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := g.Wait(ctx, func(ps []gossip.Peer) bool { return len(ps) == 1 && ps[0].Name == "fra-1" }); err != nil {
		t.Error(err)
	}
}

func TestEnrolMakesAKeyAndBelievesTheTokensFleetOnly(t *testing.T) {
	c := startController(t)
	admin := identity.Identity{Fleet: c.members.CA.Fleet(), Kind: identity.User, Role: identity.Admin, Name: "alice"}
	token, _, err := c.members.CreateToken(admin, "fra-1", 0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stranger := EnrolConfig{StateDir: filepath.Join(t.TempDir(), "new"), Controller: c.address, Token: identity.NewToken(identity.KeyHash{1})}
	if _, err := Enrol(ctx, stranger); err == nil || !strings.Contains(err.Error(), identity.ErrPin.Error()) {
		t.Errorf("another fleet's token: %v", err)
	}
	cfg := EnrolConfig{StateDir: filepath.Join(t.TempDir(), "new"), Controller: c.address, Token: token, Name: "nyc-1"}
	if _, err := Enrol(ctx, cfg); err == nil || !strings.Contains(err.Error(), "the token is for another agent: it is for fra-1") || strings.Contains(err.Error(), token.Text()) {
		t.Errorf("another agent's token: %v", err)
	}
	cfg.Name = ""
	id, err := Enrol(ctx, cfg)
	if err != nil || id.String() != "agent/fra-1" {
		t.Fatalf("got %v, %v", id, err)
	}
	if again, err := Enrol(ctx, cfg); err == nil {
		t.Errorf("the token was taken twice: %v", again)
	}
	if c, err := New(Config{StateDir: cfg.StateDir, Controllers: []string{"127.0.0.1:1"}, Responder: "127.0.0.1:0"}); err != nil {
		t.Error(err)
	} else if err := errors.Join(c.credentials.close(), c.spool.Close(), c.responder.Close()); err != nil {
		t.Error(err)
	}
}
