package identity

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// ErrPlaintext says that a call came without TLS, so that nobody knows from whom.
var ErrPlaintext = errors.New("the call came in plaintext")

// ServerCredentials is for the gRPC port. The handshake lets everybody through:
// who has no certificate yet must be able to enrol, whose certificate has expired to
// renew it, and everybody else to be told in words why not (an alert of TLS has
// none). So every call has to ask FromContext, and refuse what it returns an
// error for.
//
// Who shows nothing that is good gets a connection to say a few words on, and no more.
func ServerCredentials(s Source) credentials.TransportCredentials {
	return &server{credentials.NewTLS(RequestTLS(s)), s, new(atomic.Int64)}
}

// ClientCredentials is ClientTLS for gRPC.
func ClientCredentials(s Source) credentials.TransportCredentials {
	return credentials.NewTLS(ClientTLS(s))
}

// server checks certificates once for each connection.
type server struct {
	credentials.TransportCredentials
	source    Source
	strangers *atomic.Int64 // connected
}

// authInfo is what gRPC keeps of a connection.
type authInfo struct {
	credentials.TLSInfo
	peer Peer
	why  error // the peer is refused
}

// ServerHandshake implements credentials.TransportCredentials.
func (s *server) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, auth, err := s.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	info := authInfo{TLSInfo: auth.(credentials.TLSInfo)}
	current, err := s.source.Current()
	if err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	info.peer, info.why = current.Verify(info.State.PeerCertificates, x509.ExtKeyUsageClientAuth, time.Now())
	if info.why != nil {
		if conn, err = s.receive(conn, info.why); err != nil {
			return nil, nil, err
		}
	}
	return conn, info, nil
}

// Clone implements credentials.TransportCredentials.
func (s *server) Clone() credentials.TransportCredentials {
	return &server{s.TransportCredentials.Clone(), s.source, s.strangers}
}

// FromContext tells who calls, in a server that has ServerCredentials, or a Relay's
// around them. Its errors wrap the reasons of this package. With ErrExpired the Peer
// is there all the same; it may renew its certificate, and nothing else.
func FromContext(ctx context.Context) (Peer, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return Peer{}, ErrPlaintext
	}
	var caller Peer
	var why error
	switch info := p.AuthInfo.(type) {
	case authInfo:
		caller, why = info.peer, info.why
	case relayed:
		caller, why = info.relay.caller(ctx)
	default:
		why = ErrPlaintext
	}
	if why != nil {
		return caller, why
	}
	return caller, caller.Check(time.Now())
}
