package web

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/synmesh/synmesh/internal/identity"
)

// visitor is who is at the other end of a connection. Certificates are verified once
// for each, as for gRPC.
type visitor struct {
	once sync.Once
	peer identity.Peer
	err  error
}

type visitorKey struct{}

// withVisitor is for http.Server.ConnContext.
func withVisitor(ctx context.Context, _ net.Conn) context.Context {
	return context.WithValue(ctx, visitorKey{}, &visitor{})
}

// visitorOf tells who makes a request. The error says why nobody can tell, or that the
// certificate has expired.
func visitorOf(r *http.Request, self identity.Source) (identity.Peer, error) {
	v, ok := r.Context().Value(visitorKey{}).(*visitor)
	if !ok || r.TLS == nil {
		return identity.Peer{}, identity.ErrPlaintext
	}
	v.once.Do(func() { v.peer, v.err = verify(r.TLS, self) })
	if v.err != nil {
		return identity.Peer{}, v.err
	}
	return v.peer, v.peer.Check(time.Now())
}

func verify(state *tls.ConnectionState, self identity.Source) (identity.Peer, error) {
	current, err := self.Current()
	if err != nil {
		return identity.Peer{}, err
	}
	return current.Verify(state.PeerCertificates, x509.ExtKeyUsageClientAuth, time.Now())
}
