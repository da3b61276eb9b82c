package authority

import (
	"crypto/ecdsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/synmesh/synmesh/internal/identity"
)

// How long certificates last.
const (
	MachineLife = 24 * time.Hour // of agents and controllers
	UserLife    = 90 * day       // unless another is asked for
	MaxUserLife = 365 * day
)

// ErrIntermediate says that nothing can be signed until the root's key is back.
var ErrIntermediate = errors.New("the CA's intermediate certificate has expired, and without the root's key it cannot be renewed")

// Issue signs a certificate for somebody's key. life is for users; 0 is UserLife. The chain
// that comes back has the leaf first and the root last: an agent that has only a
// token finds it there.
func (a *Authority) Issue(id identity.Identity, key *ecdsa.PublicKey, life time.Duration) ([]*x509.Certificate, error) {
	chain, err := a.issue(id, key, life)
	if err != nil {
		return nil, fmt.Errorf("certificate of %v: %w", id, err)
	}
	return chain, nil
}

func (a *Authority) issue(id identity.Identity, key *ecdsa.PublicKey, life time.Duration) ([]*x509.Certificate, error) {
	if err := id.Check(); err != nil {
		return nil, err
	}
	if id.Fleet != a.Fleet() {
		return nil, fmt.Errorf("the fleet is %s, and not %s", a.Fleet(), id.Fleet)
	}
	life, err := lifeOf(id, life)
	if err != nil {
		return nil, err
	}
	uri, err := url.Parse(id.URI())
	if err != nil {
		return nil, err
	}
	a.maintain()
	a.mu.Lock()
	online := a.signer
	a.mu.Unlock()
	now := a.cfg.now()
	if now.After(online.cert.NotAfter) {
		return nil, fmt.Errorf("%w: put %s back", ErrIntermediate, a.path(rootKeyFile))
	}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: id.Name}, URIs: []*url.URL{uri},
		NotBefore: now.Add(-backdated), NotAfter: earlier(now.Add(life), online.cert.NotAfter),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	if id.Kind == identity.Controller {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
		// Clients of HTTP look for a name of a host. Which addresses lead here, we do not know.
		template.DNSNames = []string{id.Name}
	}
	leaf, err := sign(template, online.cert, key, online.key)
	if err != nil {
		return nil, err
	}
	return []*x509.Certificate{leaf, online.cert, a.root}, nil
}

func lifeOf(id identity.Identity, life time.Duration) (time.Duration, error) {
	switch {
	case id.Kind != identity.User && life != 0:
		return 0, fmt.Errorf("those of %vs last %v", id.Kind, MachineLife)
	case id.Kind != identity.User:
		return MachineLife, nil
	case life == 0:
		return UserLife, nil
	case life < time.Minute || life > MaxUserLife:
		return 0, fmt.Errorf("%v is not from 1m to %v", life, MaxUserLife)
	}
	return life, nil
}
