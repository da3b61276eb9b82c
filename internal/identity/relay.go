package identity

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
)

// ticketKey is the metadata of a relayed call that tells whose it is.
const ticketKey = "synmesh-relay-ticket"

// Relay is a way into a gRPC server for those who came to the same process by another
// protocol, and whose certificate was verified there. It is a net.Listener in
// memory, and nothing but Connect leads to it. Whose a call is stands in a ticket,
// which means something on a connection of this Relay only, and as long as the call of
// As has not been released.
type Relay struct {
	pipes  chan net.Conn
	closed chan struct{}
	once   sync.Once

	mu      sync.Mutex
	callers map[string]Peer // by ticket
}

// NewRelay returns a Relay that nobody listens to yet.
func NewRelay() *Relay {
	return &Relay{pipes: make(chan net.Conn), closed: make(chan struct{}), callers: make(map[string]Peer)}
}

// relayed is a connection of a Relay, and what gRPC keeps of it.
type relayed struct {
	net.Conn
	relay *Relay
}

// AuthType implements credentials.AuthInfo.
func (relayed) AuthType() string { return "relay" }

// Credentials are those for a server that listens to the Relay, too; all other
// connections are for tls.
func (r *Relay) Credentials(tls credentials.TransportCredentials) credentials.TransportCredentials {
	return &relayServer{tls, r}
}

type relayServer struct {
	credentials.TransportCredentials
	relay *Relay
}

// ServerHandshake implements credentials.TransportCredentials.
func (s *relayServer) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if c, ok := raw.(relayed); ok && c.relay == s.relay {
		return c, c, nil
	}
	return s.TransportCredentials.ServerHandshake(raw)
}

// Clone implements credentials.TransportCredentials.
func (s *relayServer) Clone() credentials.TransportCredentials {
	return &relayServer{s.TransportCredentials.Clone(), s.relay}
}

// Connect returns a connection to the server that listens to the Relay. Each call on it
// needs a context of As.
func (r *Relay) Connect() (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///relay", grpc.WithContextDialer(r.dial),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithPerRPCCredentials(tickets{}))
}

func (r *Relay) dial(ctx context.Context, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case r.pipes <- relayed{theirs, r}:
		return ours, nil
	case <-r.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Accept implements net.Listener.
func (r *Relay) Accept() (net.Conn, error) {
	select {
	case c := <-r.pipes:
		return c, nil
	case <-r.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (r *Relay) Close() error {
	r.once.Do(func() { close(r.closed) })
	return nil
}

// Addr implements net.Listener.
func (r *Relay) Addr() net.Addr { return relayAddr{} }

type relayAddr struct{}

func (relayAddr) Network() string { return "relay" }
func (relayAddr) String() string  { return "relay" }

type ticketContext struct{}

// As returns a context in which calls are those of a peer, whose certificate has been
// verified, until release is called.
func (r *Relay) As(ctx context.Context, p Peer) (_ context.Context, release func()) {
	ticket := rand.Text()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.callers[ticket] = p
	return context.WithValue(ctx, ticketContext{}, ticket), func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.callers, ticket)
	}
}

// tickets puts a ticket on each call.
type tickets struct{}

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (tickets) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	ticket, ok := ctx.Value(ticketContext{}).(string)
	if !ok {
		return nil, nil
	}
	return map[string]string{ticketKey: ticket}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (tickets) RequireTransportSecurity() bool { return false }

// caller tells whose call on one of the Relay's connections this is.
func (r *Relay) caller(ctx context.Context) (Peer, error) {
	found := metadata.ValueFromIncomingContext(ctx, ticketKey)
	if len(found) != 1 {
		return Peer{}, fmt.Errorf("%w: the relayed call has %d tickets", ErrNoCertificate, len(found))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	p, ok := r.callers[found[0]]
	if !ok {
		return Peer{}, fmt.Errorf("%w: the one who made the relayed call has gone", ErrNoCertificate)
	}
	return p, nil
}

// WithPeer returns a context in which FromContext tells of somebody whose certificate was
// verified otherwise: what is not served by gRPC can ask whom gRPC asks.
func WithPeer(ctx context.Context, p Peer) context.Context {
	return peer.NewContext(ctx, &peer.Peer{Addr: relayAddr{}, AuthInfo: authInfo{peer: p}})
}
