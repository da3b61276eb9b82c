package apitest

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/synmesh/synmesh/controller/authority"
	"github.com/synmesh/synmesh/controller/registry"
	"github.com/synmesh/synmesh/internal/identity"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// Members are a fleet: its CA, its registry, and its controller's certificate.
type Members struct {
	*registry.Registry
	CA   *authority.Authority
	Self identity.Source
	t    testing.TB
}

// NewMembers makes a fleet in folders of the test.
func NewMembers(t testing.TB) *Members {
	t.Helper()
	return NewBriefMembers(t, 0)
}

// NewBriefMembers makes a fleet whose certificates last for a life from now on, and not
// for a day; 0 leaves them as they are.
func NewBriefMembers(t testing.TB, life time.Duration) *Members {
	t.Helper()
	dir := t.TempDir()
	ca, err := authority.Open(authority.Config{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	m := &Members{CA: ca, t: t}
	if m.Self, err = ca.Source("controller"); err != nil {
		t.Fatal(err)
	}
	m.Registry, err = registry.Open(registry.Config{Dir: t.TempDir(), Fleet: ca.Fleet(), Issuer: issuer{ca, dir, life}, Root: ca.RootKey()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Registry.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// issuer signs what its CA does, for another time.
type issuer struct {
	*authority.Authority
	dir  string
	life time.Duration
}

// Issue implements registry.Issuer.
func (i issuer) Issue(id identity.Identity, key *ecdsa.PublicKey, life time.Duration) ([]*x509.Certificate, error) {
	chain, err := i.Authority.Issue(id, key, life)
	if err != nil || i.life == 0 {
		return chain, err
	}
	text, err := os.ReadFile(filepath.Join(i.dir, "intermediate.pem"))
	if err != nil {
		return nil, err
	}
	_, rest := pem.Decode(text)
	signer, err := identity.DecodeKey(rest)
	if err != nil {
		return nil, err
	}
	leaf := *chain[0]
	leaf.NotBefore, leaf.NotAfter = time.Now().Add(-time.Second), time.Now().Add(i.life)
	der, err := x509.CreateCertificate(rand.Reader, &leaf, chain[1], key, signer)
	if err != nil {
		return nil, err
	}
	if chain[0], err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	return chain, nil
}

// Serve serves what register adds as the fleet's controller, over a pipe in memory, and
// returns what connects somebody to it. Nobody but the service asks who that is. All end with the test.
func (m *Members) Serve(register func(grpc.ServiceRegistrar)) (as func(*identity.Credentials) *grpc.ClientConn) {
	m.t.Helper()
	pipe := serve(m.t, register, identity.ServerCredentials(m.Self))
	return func(who *identity.Credentials) *grpc.ClientConn {
		m.t.Helper()
		return Connect(m.t, pipe, identity.ClientCredentials(identity.Fixed(who)))
	}
}

// actor is who lets everybody in.
func (m *Members) actor() identity.Identity {
	return identity.Identity{Fleet: m.CA.Fleet(), Kind: identity.Controller, Name: "controller"}
}

// Agent enrols an agent.
func (m *Members) Agent(name string) *identity.Credentials {
	m.t.Helper()
	key := NewKey(m.t)
	secret, _, err := m.CreateToken(m.actor(), name, 0)
	if err != nil {
		m.t.Fatal(err)
	}
	e, err := m.Enrol(secret.Hash(), name, &key.PublicKey)
	if err != nil {
		m.t.Fatal(err)
	}
	return m.credentials(key, e)
}

// Renew gives an agent its next certificate.
func (m *Members) Renew(c *identity.Credentials) *identity.Credentials {
	m.t.Helper()
	key := NewKey(m.t)
	e, err := m.Registry.Renew(c.Identity.Name, identity.HashOf(c.Leaf()), &key.PublicKey)
	if err != nil {
		m.t.Fatal(err)
	}
	return m.credentials(key, e)
}

// User makes a person who is called after the role.
func (m *Members) User(role identity.Role, life time.Duration) *identity.Credentials {
	m.t.Helper()
	return m.NewUser(role.String(), role, life)
}

// NewUser makes a person.
func (m *Members) NewUser(name string, role identity.Role, life time.Duration) *identity.Credentials {
	m.t.Helper()
	key := NewKey(m.t)
	e, err := m.CreateUser(m.actor(), name, role, &key.PublicKey, life)
	if err != nil {
		m.t.Fatal(err)
	}
	return m.credentials(key, e)
}

func (m *Members) credentials(key *ecdsa.PrivateKey, e registry.Enrolment) *identity.Credentials {
	m.t.Helper()
	c, err := identity.NewCredentials(key, e.Chain, m.CA.Roots())
	if err != nil {
		m.t.Fatal(err)
	}
	return c
}

// NewKey makes a private key.
func NewKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Enrol has the controller at the address enrol an agent, as an admin would.
func Enrol(t testing.TB, address string, admin *identity.Credentials, name string) *identity.Credentials {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	made, err := synmeshv1.NewIdentityServiceClient(DialAs(t, address, admin)).CreateToken(ctx, &synmeshv1.CreateTokenRequest{Agent: name})
	if err != nil {
		t.Fatal(err)
	}
	token, err := identity.ParseToken(made.GetText())
	if err != nil {
		t.Fatal(err)
	}
	s := &identity.State{Pending: NewKey(t)}
	request, err := identity.NewRequest(s.Pending)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(identity.PinnedTLS(token, nil))))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	resp, err := synmeshv1.NewEnrolmentServiceClient(conn).Enroll(ctx, &synmeshv1.EnrollRequest{Token: made.GetText(), CertificateRequest: request})
	if err != nil {
		t.Fatal(err)
	}
	issued := identity.Issued{Generation: resp.GetCredentials().GetGeneration()}
	if issued.Chain, err = identity.ParseChain(resp.GetCredentials().GetChain()); err != nil {
		t.Fatal(err)
	}
	if issued.Roots, err = identity.ParseChain(resp.GetCredentials().GetRoots()); err != nil {
		t.Fatal(err)
	}
	if err := s.Accept(issued); err != nil {
		t.Fatal(err)
	}
	c, err := s.Credentials()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// DialAs returns a connection of somebody to the controller at an address. It
// ends with the test.
func DialAs(t testing.TB, address string, who *identity.Credentials) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(identity.ClientCredentials(identity.Fixed(who))))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Errorf("close the connection: %v", err)
		}
	})
	return conn
}
