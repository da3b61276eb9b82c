package identity

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// relaying is a port that a Relay leads to, too.
type relaying struct {
	*port
	relay *Relay
	conn  *grpc.ClientConn
	ca    *ca
}

func serveRelay(t *testing.T) *relaying {
	t.Helper()
	r := &relaying{relay: NewRelay(), ca: newCA(t)}
	r.port = serve(t, r.relay.Credentials(ServerCredentials(r.ca.source(r.ca.id(Controller, "main"), nil))), r.relay)
	var err error
	if r.conn, err = r.relay.Connect(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { want(t, r.conn.Close(), nil) })
	return r
}

// check calls over the relay, and returns whom the server took the caller for.
func (r *relaying) check(ctx context.Context, t *testing.T) (Peer, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	before, _, _ := r.seen()
	if _, err := grpc_health_v1.NewHealthClient(r.conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{}); err != nil {
		t.Fatal(err)
	}
	after, p, err := r.seen()
	if after != before+1 {
		t.Fatalf("%d calls have come, want 1", after-before)
	}
	return p, err
}

func (r *relaying) peer(name string, notAfter time.Time) Peer {
	return Peer{Identity: r.ca.id(User, name), Key: KeyHash{1}, NotAfter: notAfter}
}

func TestARelayedCallIsThatOfWhoHasTheTicket(t *testing.T) {
	r := serveRelay(t)
	alice, bob := r.peer("alice", time.Now().Add(time.Hour)), r.peer("bob", time.Now().Add(time.Hour))
	asAlice, release := r.relay.As(t.Context(), alice)
	asBob, releaseBob := r.relay.As(t.Context(), bob)
	defer releaseBob()
	for range 2 {
		if p, err := r.check(asAlice, t); p != alice || err != nil {
			t.Errorf("got %v, %v; want alice", p, err)
		}
		if p, err := r.check(asBob, t); p != bob || err != nil {
			t.Errorf("got %v, %v; want bob", p, err)
		}
	}
	release()
	if p, err := r.check(asAlice, t); p != (Peer{}) || !errors.Is(err, ErrNoCertificate) {
		t.Errorf("after the release: %v, %v", p, err)
	}
	if p, err := r.check(t.Context(), t); p != (Peer{}) || !errors.Is(err, ErrNoCertificate) {
		t.Errorf("without a ticket: %v, %v", p, err)
	}
	two := metadata.AppendToOutgoingContext(asBob, ticketKey, "x")
	if p, err := r.check(two, t); p != (Peer{}) || !errors.Is(err, ErrNoCertificate) {
		t.Errorf("with two tickets: %v, %v", p, err)
	}
}

func TestARelayedCertificateExpiresLikeAnyOther(t *testing.T) {
	r := serveRelay(t)
	ctx, release := r.relay.As(t.Context(), r.peer("alice", time.Now().Add(-time.Second)))
	defer release()
	if _, err := r.check(ctx, t); !errors.Is(err, ErrExpired) {
		t.Errorf("got %v", err)
	}
}

// What means somebody else on the relay means nothing on the port.
func TestATicketOnThePortIsIgnored(t *testing.T) {
	r := serveRelay(t)
	ctx, release := r.relay.As(t.Context(), r.peer("alice", time.Now().Add(time.Hour)))
	defer release()
	if p, err := r.check(ctx, t); p.Identity.Name != "alice" || err != nil {
		t.Fatalf("the ticket is not good: %v, %v", p, err)
	}
	ticket, _ := ctx.Value(ticketContext{}).(string)
	stolen := metadata.AppendToOutgoingContext(t.Context(), ticketKey, ticket)
	mallory := r.ca.id(Agent, "mallory")
	for name, who := range map[string]Source{
		"an agent":                      r.ca.source(mallory, nil),
		"whose certificate has expired": r.ca.source(mallory, expired),
		"nobody":                        newCA(t).source(mallory, nil),
	} {
		conn, err := grpc.NewClient("passthrough:///"+r.address, grpc.WithTransportCredentials(credentials.NewTLS(careless(who))))
		if err != nil {
			t.Fatal(err)
		}
		_, err = grpc_health_v1.NewHealthClient(conn).Check(stolen, &grpc_health_v1.HealthCheckRequest{})
		want(t, conn.Close(), nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		_, p, why := r.seen()
		if p.Identity.Name == "alice" || (name == "an agent") != (why == nil) {
			t.Errorf("%s is taken for %v, %v", name, p, why)
		}
	}
}

func TestTheConnectionOfAnotherRelayIsNone(t *testing.T) {
	r, other := serveRelay(t), NewRelay()
	conn, err := other.Connect()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	passed := make(chan struct{})
	go func() {
		defer close(passed)
		for c, err := other.Accept(); err == nil; c, err = other.Accept() {
			select {
			case r.relay.pipes <- c:
			case <-t.Context().Done():
				_ = c.Close()
			}
		}
	}()
	ctx, release := other.As(t.Context(), r.peer("alice", time.Now().Add(time.Hour)))
	defer release()
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	_, err = grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	if status.Code(err) != codes.Unavailable {
		t.Errorf("got %v", err)
	}
	want(t, other.Close(), nil)
	<-passed
	if n, _, _ := r.seen(); n != 0 {
		t.Error("the call has come through")
	}
	if _, err := other.dial(ctx, ""); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a closed relay: %v", err)
	}
}

func TestWithPeerIsWhoCalls(t *testing.T) {
	p := Peer{Identity: Identity{Kind: User, Role: Viewer, Name: "alice"}, NotAfter: time.Now().Add(time.Hour)}
	if got, err := FromContext(WithPeer(t.Context(), p)); got != p || err != nil {
		t.Errorf("got %v, %v", got, err)
	}
	p.NotAfter = time.Now().Add(-time.Hour)
	if _, err := FromContext(WithPeer(t.Context(), p)); !errors.Is(err, ErrExpired) {
		t.Errorf("got %v", err)
	}
}
