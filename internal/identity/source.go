package identity

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// Source gives what the next handshake needs. It is asked for every one, so that
// a certificate renewed is used without anybody's doing.
type Source interface {
	Current() (*Credentials, error)
}

// Credentials are somebody's certificate and what the others' are checked
// against. They are not changed once they are made.
type Credentials struct {
	Identity    Identity
	Certificate *tls.Certificate
	Roots       *x509.CertPool
}

// NewCredentials checks that the key, the chain (leaf first) and the roots
// belong together. Whether the certificate has expired is not looked at: an
// agent may still renew then.
func NewCredentials(key crypto.Signer, chain, roots []*x509.Certificate) (*Credentials, error) {
	if key == nil {
		return nil, errors.New("there is no key")
	}
	if len(chain) == 0 {
		return nil, errors.New("there is no certificate")
	}
	leaf := chain[0]
	if public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(leaf.PublicKey) {
		return nil, errors.New("the certificate is not for the key; they come from different times or hosts")
	}
	pool, err := poolOf(roots)
	if err != nil {
		return nil, err
	}
	id, err := identityOf(leaf)
	if err != nil {
		return nil, err
	}
	if err := verifyChain(chain, pool, x509.ExtKeyUsageAny, leaf.NotAfter); err != nil {
		return nil, fmt.Errorf("the certificate does not lead to the roots: %w", err)
	}
	c := &tls.Certificate{PrivateKey: key, Leaf: leaf}
	for _, cert := range chain {
		c.Certificate = append(c.Certificate, cert.Raw)
	}
	return &Credentials{Identity: id, Certificate: c, Roots: pool}, nil
}

func poolOf(roots []*x509.Certificate) (*x509.CertPool, error) {
	if len(roots) == 0 {
		return nil, errors.New("there are no roots to check others against")
	}
	pool := x509.NewCertPool()
	for _, root := range roots {
		if !root.IsCA {
			return nil, fmt.Errorf("the root %q is no certificate of a CA", root.Subject.CommonName)
		}
		pool.AddCert(root)
	}
	return pool, nil
}

// Leaf returns the certificate itself.
func (c *Credentials) Leaf() *x509.Certificate { return c.Certificate.Leaf }

// RenewalOf returns when a certificate should be renewed: at half its life, and up to
// a tenth of it earlier or later, so that a fleet that was enrolled together
// does not renew together.
func RenewalOf(cert *x509.Certificate) time.Time {
	life := cert.NotAfter.Sub(cert.NotBefore)
	if life <= 0 {
		return cert.NotBefore
	}
	return cert.NotBefore.Add(life/2 - life/10 + rand.N(life/5+1))
}

// static is a Source that never changes.
type static struct{ credentials *Credentials }

// Current implements Source.
func (s static) Current() (*Credentials, error) { return s.credentials, nil }

// Fixed returns a Source of the same credentials for ever.
func Fixed(c *Credentials) Source { return static{c} }
