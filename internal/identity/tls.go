package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// ServerTLS is for ports at which everybody shows a certificate of the fleet:
// a handshake without one fails. What the caller may do is to be asked besides.
// For gRPC, see ServerCredentials.
func ServerTLS(s Source) *tls.Config {
	config := RequestTLS(s)
	config.ClientAuth = tls.RequireAnyClientCert // VerifyConnection checks it
	config.VerifyConnection = func(state tls.ConnectionState) error {
		c, err := s.Current()
		if err != nil {
			return err
		}
		if _, err := c.Verify(state.PeerCertificates, x509.ExtKeyUsageClientAuth, time.Now()); err != nil {
			return fmt.Errorf("the client is refused: %w", err)
		}
		return nil
	}
	return config
}

// RequestTLS is for ports that tell in words why somebody is refused: a handshake
// goes well with any certificate, and without one. So each request has to be
// judged, by Credentials.Verify first.
func RequestTLS(s Source) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		ClientAuth: tls.RequestClientCert,
		// A session resumed would be one that was not checked.
		SessionTicketsDisabled: true,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			c, err := s.Current()
			if err != nil {
				return nil, err
			}
			return c.Certificate, nil
		},
	}
}

// ClientTLS is for those who are in the fleet and call a controller of it. The
// server's address does not matter; its certificate does.
func ClientTLS(s Source) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			c, err := s.Current()
			if err != nil {
				return nil, err
			}
			return c.Certificate, nil
		},
		InsecureSkipVerify: true, // of names of hosts; VerifyConnection does all the rest
		VerifyConnection: func(state tls.ConnectionState) error {
			c, err := s.Current()
			if err != nil {
				return err
			}
			return verifyController(state.PeerCertificates, c.Roots, c.Identity.Fleet)
		},
	}
}

// ErrPin says that a server is not of the fleet that a token is for.
var ErrPin = errors.New("the server is not of the fleet that the token is for")

// PinnedTLS is for the first contact. It shows no certificate, and takes a
// controller's only if that leads to the root which the token pins; that root
// must be among what the server sends. learn, unless it is nil, is told the root
// with every handshake.
func PinnedTLS(t Token, learn func(root *x509.Certificate)) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // VerifyConnection does what counts
		VerifyConnection: func(state tls.ConnectionState) error {
			root := pinned(state.PeerCertificates, t.Root())
			if root == nil {
				return fmt.Errorf("%w: none of its certificates has the key; check the address, or make a token at this controller", ErrPin)
			}
			pool := x509.NewCertPool()
			pool.AddCert(root)
			if err := verifyController(state.PeerCertificates, pool, FleetOf(t.Root())); err != nil {
				return err
			}
			if learn != nil {
				learn(root)
			}
			return nil
		},
	}
}

// pinned returns the certificate of a CA that has the key, or nil.
func pinned(chain []*x509.Certificate, root KeyHash) *x509.Certificate {
	for _, c := range chain {
		if c.IsCA && HashOf(c) == root {
			return c
		}
	}
	return nil
}
