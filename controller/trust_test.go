package controller

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/synmesh/synmesh/controller/api/apitest"
	"github.com/synmesh/synmesh/internal/identity"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// files writes what an own PKI would give somebody.
func files(t *testing.T, pki *apitest.Members, id identity.Identity) (identity.FilesConfig, *identity.Credentials) {
	t.Helper()
	key := apitest.NewKey(t)
	id.Fleet = pki.CA.Fleet()
	chain, err := pki.CA.Issue(id, &key.PublicKey, 0)
	if err != nil {
		t.Fatal(err)
	}
	c, err := identity.NewCredentials(key, chain, pki.CA.Roots())
	if err != nil {
		t.Fatal(err)
	}
	text, err := identity.EncodeKey(c.Certificate.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cfg := identity.FilesConfig{Certificate: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key"), Roots: filepath.Join(dir, "ca.crt")}
	for path, content := range map[string][]byte{
		cfg.Certificate: identity.EncodeCertificates(chain...), cfg.Key: text, cfg.Roots: identity.EncodeCertificates(pki.CA.Roots()...),
	} {
		if err := identity.WriteFile(path, content); err != nil {
			t.Fatal(err)
		}
	}
	return cfg, c
}

func TestAnOwnPKITakesThePlaceOfTheCA(t *testing.T) {
	pki := apitest.NewMembers(t)
	cfg := config(t.TempDir())
	cfg.TLS, _ = files(t, pki, identity.Identity{Kind: identity.Controller, Name: "ctl"})
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
	})
	for _, name := range []string{"ca", "operator.yaml"} {
		if _, err := os.Stat(filepath.Join(cfg.DataDir, name)); !os.IsNotExist(err) {
			t.Errorf("%s was made: %v", name, err)
		}
	}
	_, alice := files(t, pki, identity.Identity{Kind: identity.User, Role: identity.Admin, Name: "alice"})
	_, fra := files(t, pki, identity.Identity{Kind: identity.Agent, Name: "fra-1"})
	client := synmeshv1.NewIdentityServiceClient(apitest.DialAs(t, c.Addr().String(), alice))
	a, _ := apitest.Join(t, apitest.DialAs(t, c.Addr().String(), fra), &synmeshv1.Hello{Name: "fra-1"})
	if _, err := client.CreateToken(t.Context(), &synmeshv1.CreateTokenRequest{Agent: "fra-1"}); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "your own PKI") {
		t.Errorf("a token: %v", err)
	}
	if _, err := client.BanAgent(t.Context(), &synmeshv1.BanAgentRequest{Agent: "fra-1", Reason: "too loud"}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.End(); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a banned agent's session ends with %v", err)
	}
	// It gossips with keys of its own, which outlive it.
	again, err := openHerald(cfg.DataDir, c.trust, c.cfg.Logger)
	if err != nil || !again.signer.Public().(ed25519.PublicKey).Equal(c.herald.signer.Public()) || again.kept.Keys.Primary == nil {
		t.Errorf("after a restart the gossip has other keys; %v", err)
	}
}

func TestOnlyAControllersCertificateMakesAController(t *testing.T) {
	cfg := config(t.TempDir())
	cfg.TLS, _ = files(t, apitest.NewMembers(t), identity.Identity{Kind: identity.Agent, Name: "fra-1"})
	if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), "is the certificate of agent/fra-1; a controller's is wanted") {
		t.Errorf("got %v", err)
	}
}
