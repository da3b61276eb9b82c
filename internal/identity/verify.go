package identity

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// Why a certificate is refused. Errors wrap one of these and say more.
var (
	ErrNoCertificate = errors.New("no certificate was shown")
	ErrExpired       = errors.New("the certificate has expired")
	ErrExpiredCA     = errors.New("the CA's certificate has expired")
	ErrNotYetValid   = errors.New("the certificate is not valid yet")
	ErrForeign       = errors.New("the certificate is not of this fleet")
	ErrUsage         = errors.New("the certificate is not for this use")
	ErrName          = errors.New("the certificate names nobody of a fleet")
	ErrNotController = errors.New("the server is no controller")
)

// Peer is who is at the other end of a connection, by a certificate.
type Peer struct {
	Identity Identity
	Key      KeyHash
	NotAfter time.Time // the certificate's
}

// Check tells whether the certificate is still good: connections last longer
// than certificates. Call it for each message that matters.
func (p Peer) Check(now time.Time) error {
	if now.After(p.NotAfter) {
		return fmt.Errorf("%w: that of %v was good until %s, and here it is %s",
			ErrExpired, p.Identity, p.NotAfter.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return nil
}

// Verify tells who shows the chain, leaf first, and what for. With ErrExpired the Peer
// is there all the same: but for the time, the certificate is right.
func (c *Credentials) Verify(chain []*x509.Certificate, usage x509.ExtKeyUsage, now time.Time) (Peer, error) {
	if len(chain) == 0 {
		return Peer{}, ErrNoCertificate
	}
	return verify(chain, c.Roots, c.Identity.Fleet, usage, now)
}

func verify(chain []*x509.Certificate, roots *x509.CertPool, fleet string, usage x509.ExtKeyUsage, now time.Time) (Peer, error) {
	leaf := chain[0]
	if now.Before(leaf.NotBefore) {
		return Peer{}, fmt.Errorf("%w: it is from %s on, and here it is %s; set the clocks right",
			ErrNotYetValid, leaf.NotBefore.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	// One that has expired is judged by the last moment in which it was good.
	at := now
	if at.After(leaf.NotAfter) {
		at = leaf.NotAfter
	}
	if err := verifyChain(chain, roots, usage, at); err != nil {
		return Peer{}, fmt.Errorf("%w (it says it is %s, and this fleet is %s)", err, claimed(leaf), fleet)
	}
	id, err := identityOf(leaf)
	if err != nil {
		return Peer{}, err
	}
	if id.Fleet != fleet {
		return Peer{}, fmt.Errorf("%w: it is for %s, and this fleet is %s", ErrForeign, id.URI(), fleet)
	}
	p := Peer{Identity: id, Key: HashOf(leaf), NotAfter: leaf.NotAfter}
	return p, p.Check(now)
}

// verifyChain tells whether the chain leads to one of the roots.
func verifyChain(chain []*x509.Certificate, roots *x509.CertPool, usage x509.ExtKeyUsage, at time.Time) error {
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{usage},
	})
	var invalid x509.CertificateInvalidError
	var unknown x509.UnknownAuthorityError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &unknown):
		return fmt.Errorf("%w: another CA has signed it", ErrForeign)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Errorf("%w: %w", ErrExpiredCA, err)
	case errors.As(err, &invalid) && invalid.Reason == x509.IncompatibleUsage:
		return fmt.Errorf("%w: %w", ErrUsage, err)
	default:
		return fmt.Errorf("%w: %w", ErrForeign, err)
	}
}

// identityOf returns whom a certificate is for.
func identityOf(leaf *x509.Certificate) (Identity, error) {
	if leaf.IsCA {
		return Identity{}, fmt.Errorf("%w: it is that of a CA", ErrName)
	}
	if len(leaf.URIs) != 1 {
		return Identity{}, fmt.Errorf("%w: it has %d URIs, and one is right", ErrName, len(leaf.URIs))
	}
	id, err := Parse(leaf.URIs[0].String())
	if err != nil {
		return Identity{}, fmt.Errorf("%w: %w", ErrName, err)
	}
	return id, nil
}

// claimed says whom a certificate is for that is not believed.
func claimed(leaf *x509.Certificate) string {
	if id, err := identityOf(leaf); err == nil {
		return id.URI()
	}
	return "nobody's"
}

// verifyController is what clients do with the certificate of a server.
func verifyController(chain []*x509.Certificate, roots *x509.CertPool, fleet string) error {
	if len(chain) == 0 {
		return fmt.Errorf("the server is refused: %w", ErrNoCertificate)
	}
	now := time.Now()
	p, err := verify(chain, roots, fleet, x509.ExtKeyUsageServerAuth, now)
	why := err
	if errors.Is(err, ErrUsage) {
		// Who it is says more than what the certificate is for.
		p, err = verify(chain, roots, fleet, x509.ExtKeyUsageAny, now)
	}
	if err == nil && p.Identity.Kind != Controller {
		why = fmt.Errorf("%w: it is %v, which has no business to be called", ErrNotController, p.Identity)
	}
	if why != nil {
		return fmt.Errorf("the server is refused: %w", why)
	}
	return nil
}
