package identity

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net/url"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ca is a root and an intermediate.
type ca struct {
	t         testing.TB
	root      *x509.Certificate
	online    *x509.Certificate
	onlineKey *ecdsa.PrivateKey
	fleet     string
}

func newCA(t testing.TB) *ca {
	t.Helper()
	c := &ca{t: t}
	rootKey := newKey(t)
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "root"}, NotBefore: time.Now().Add(-1000 * time.Hour), NotAfter: time.Now().Add(1000 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	c.root = sign(t, template, template, &rootKey.PublicKey, rootKey)
	c.onlineKey = newKey(t)
	c.online = sign(t, template, c.root, &c.onlineKey.PublicKey, rootKey)
	c.fleet = FleetOf(HashOf(c.root))
	return c
}

func sign(t testing.TB, template, parent *x509.Certificate, public *ecdsa.PublicKey, key *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (c *ca) id(kind Kind, name string) Identity {
	id := Identity{Fleet: c.fleet, Kind: kind, Name: name}
	if kind == User {
		id.Role = Operator
	}
	return id
}

// issue makes a chain, from the leaf to the root. change may be nil.
func (c *ca) issue(id Identity, key *ecdsa.PrivateKey, change func(*x509.Certificate)) []*x509.Certificate {
	c.t.Helper()
	uri, err := url.Parse(id.URI())
	if err != nil {
		c.t.Fatal(err)
	}
	template := &x509.Certificate{
		URIs: []*url.URL{uri}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if id.Kind == Controller {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	if change != nil {
		change(template)
	}
	return []*x509.Certificate{sign(c.t, template, c.online, &key.PublicKey, c.onlineKey), c.online, c.root}
}

// source is somebody of the fleet. What change does to the certificate is not checked.
func (c *ca) source(id Identity, change func(*x509.Certificate)) Source {
	c.t.Helper()
	key := newKey(c.t)
	right, err := NewCredentials(key, c.issue(id, key, nil), []*x509.Certificate{c.root})
	if err != nil {
		c.t.Fatal(err)
	}
	chain := c.issue(id, key, change)
	cert := *right.Certificate
	cert.Leaf, cert.Certificate = chain[0], [][]byte{chain[0].Raw, chain[1].Raw, chain[2].Raw}
	right.Certificate = &cert
	return Fixed(right)
}

func expired(c *x509.Certificate) {
	c.NotBefore, c.NotAfter = time.Now().Add(-800*time.Hour), time.Now().Add(-776*time.Hour)
}

// want fails unless the error is that one; nil is none.
func want(t testing.TB, err, is error) {
	t.Helper()
	if !errors.Is(err, is) {
		t.Errorf("got %v, want %v", err, is)
	}
}
