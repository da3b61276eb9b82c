package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// port is a gRPC server on loopback that notes whom it was called by.
type port struct {
	address string

	mu     sync.Mutex
	called int
	peer   Peer
	why    error
}

// serve listens on loopback, and to others.
func serve(t *testing.T, c credentials.TransportCredentials, others ...net.Listener) *port {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &port{address: l.Addr().String()}
	s := grpc.NewServer(grpc.Creds(c), grpc.UnaryInterceptor(
		func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			p.mu.Lock()
			p.called++
			p.peer, p.why = FromContext(ctx)
			p.mu.Unlock()
			return next(ctx, req)
		}))
	grpc_health_v1.RegisterHealthServer(s, health.NewServer())
	listeners := append(others, l)
	ended := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() { ended <- s.Serve(l) }()
	}
	t.Cleanup(func() {
		s.Stop()
		for range listeners {
			want(t, <-ended, nil)
		}
	})
	return p
}

// call calls the port. It returns what the handshake has found on the client's side.
func (p *port) call(t *testing.T, config *tls.Config) error {
	t.Helper()
	why := make(chan error, 100)
	if verify := config.VerifyConnection; verify != nil {
		config.VerifyConnection = func(s tls.ConnectionState) error {
			err := verify(s)
			why <- err
			return err
		}
	}
	return errors.Join(p.ask(t, credentials.NewTLS(config)), first(why))
}

func first(errs chan error) error {
	select {
	case err := <-errs:
		return err
	default:
		return nil
	}
}

func (p *port) ask(t *testing.T, c credentials.TransportCredentials) error {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+p.address, grpc.WithTransportCredentials(c))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, err = grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	return err
}

// seen returns who has called last.
func (p *port) seen() (int, Peer, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.called, p.peer, p.why
}

// careless is a client that takes any server and shows its certificate.
func careless(s Source) *tls.Config {
	config := ClientTLS(s)
	config.VerifyConnection = nil
	return config
}

func TestTheServerKnowsWhoCalls(t *testing.T) {
	c, other := newCA(t), newCA(t)
	p := serve(t, ServerCredentials(c.source(c.id(Controller, "main"), nil)))
	agent, user, main2 := c.id(Agent, "fra-1"), c.id(User, "alice"), c.id(Controller, "main-2")
	tests := []struct {
		name   string
		config *tls.Config
		id     Identity
		want   error
	}{
		{"an agent", ClientTLS(c.source(agent, nil)), agent, nil},
		{"a user", ClientTLS(c.source(user, nil)), user, nil},
		{"another controller", ClientTLS(c.source(main2, nil)), main2, nil},
		{"somebody with a token", PinnedTLS(NewToken(HashOf(c.root)), nil), Identity{}, ErrNoCertificate},
		{"an agent whose certificate expired a month ago", ClientTLS(c.source(agent, expired)), agent, ErrExpired},
		{"an agent of another fleet", careless(other.source(other.id(Agent, "fra-1"), nil)), Identity{}, ErrForeign},
		{"an agent of another fleet that has expired", careless(other.source(other.id(Agent, "fra-1"), expired)), Identity{}, ErrForeign},
		{"a fleet's name in another fleet's certificate", careless(other.source(agent, nil)), Identity{}, ErrForeign},
		{"another fleet's name in our certificate", careless(c.source(other.id(Agent, "fra-1"), nil)), Identity{}, ErrForeign},
		{"a certificate for tomorrow", ClientTLS(c.source(agent, func(c *x509.Certificate) {
			c.NotBefore = time.Now().Add(time.Minute)
		})), Identity{}, ErrNotYetValid},
		{"a certificate for servers only", ClientTLS(c.source(agent, func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		})), Identity{}, ErrUsage},
		{"a certificate with two names", ClientTLS(c.source(agent, func(c *x509.Certificate) {
			c.URIs = append(c.URIs, c.URIs[0])
		})), Identity{}, ErrName},
		{"a certificate without a name", ClientTLS(c.source(agent, func(c *x509.Certificate) {
			c.URIs, c.DNSNames = nil, []string{"fra-1"}
		})), Identity{}, ErrName},
		{"a name of something else", ClientTLS(c.source(agent, func(c *x509.Certificate) {
			c.URIs = []*url.URL{{Scheme: "spiffe", Host: c.URIs[0].Host, Path: "/ns/default/sa/x"}}
		})), Identity{}, ErrName},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := p.call(t, tt.config); err != nil {
				t.Fatal(err)
			}
			called, peer, why := p.seen()
			want(t, why, tt.want)
			if peer.Identity != tt.id || called != i+1 {
				t.Errorf("call %d by %v", called, peer.Identity)
			}
			if tt.want != nil {
				t.Log(why)
			}
		})
	}
}

func TestAClientCallsControllersOnly(t *testing.T) {
	c, other := newCA(t), newCA(t)
	both := func(c *x509.Certificate) {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}
	agent := func() *tls.Config { return ClientTLS(c.source(c.id(Agent, "fra-1"), nil)) }
	newcomer := func() *tls.Config { return PinnedTLS(NewToken(HashOf(c.root)), nil) }
	// Whoever has a token knows the root's certificate, and can show it around.
	borrowed, err := other.source(other.id(Controller, "main"), nil).Current()
	if err != nil {
		t.Fatal(err)
	}
	cert := *borrowed.Certificate
	cert.Certificate = append(cert.Certificate[:2:2], c.root.Raw)
	borrowed.Certificate = &cert

	tests := []struct {
		name   string
		server Source
		client func() *tls.Config
		want   error
	}{
		{"an agent posing as a controller", c.source(c.id(Agent, "bad"), nil), agent, ErrNotController},
		{"an agent with a certificate for servers", c.source(c.id(Agent, "bad"), both), agent, ErrNotController},
		{"a user posing as a controller", c.source(c.id(User, "bad"), both), agent, ErrNotController},
		{"a controller with a certificate for clients", c.source(c.id(Controller, "bad"), func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		}), agent, ErrUsage},
		{"a controller of another fleet", other.source(other.id(Controller, "main"), nil), agent, ErrForeign},
		{"a controller that has expired", c.source(c.id(Controller, "main"), expired), agent, ErrExpired},
		{"at first contact, an agent posing as a controller", c.source(c.id(Agent, "bad"), both), newcomer, ErrNotController},
		{"at first contact, a controller of another fleet", other.source(other.id(Controller, "main"), nil), newcomer, ErrPin},
		{"at first contact, one that shows our root", Fixed(borrowed), newcomer, ErrForeign},
		{"at first contact, a controller that has expired", c.source(c.id(Controller, "main"), expired), newcomer, ErrExpired},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := serve(t, ServerCredentials(tt.server))
			err := p.call(t, tt.client())
			want(t, err, tt.want)
			if called, _, _ := p.seen(); called != 0 {
				t.Error("it was called all the same")
			}
			t.Log(err)
		})
	}
}

func TestTheFirstContactLearnsTheRoot(t *testing.T) {
	c := newCA(t)
	p := serve(t, ServerCredentials(c.source(c.id(Controller, "main"), nil)))
	var learnt *x509.Certificate
	config := PinnedTLS(NewToken(HashOf(c.root)), func(root *x509.Certificate) { learnt = root })
	if err := p.call(t, config); err != nil || !c.root.Equal(learnt) {
		t.Errorf("learnt %v, %v", learnt, err)
	}
}

// replaceable is a Source that the test changes.
type replaceable struct {
	mu sync.Mutex
	s  Source
}

func (r *replaceable) set(s Source) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.s = s
}

func (r *replaceable) Current() (*Credentials, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.s.Current()
}

func TestWhatWasRenewedIsUsedByTheNextHandshake(t *testing.T) {
	c := newCA(t)
	id := c.id(Agent, "fra-1")
	server := &replaceable{s: c.source(c.id(Controller, "main"), expired)}
	client := &replaceable{s: c.source(id, expired)}
	p := serve(t, ServerCredentials(server))
	creds := ClientCredentials(client)
	if err := p.ask(t, creds); err == nil {
		t.Fatal("an expired controller was taken")
	}
	server.set(c.source(c.id(Controller, "main"), nil))
	if err := p.ask(t, creds); err != nil {
		t.Fatal(err)
	}
	_, _, why := p.seen()
	want(t, why, ErrExpired)
	client.set(c.source(id, nil))
	if err := p.ask(t, creds); err != nil {
		t.Fatal(err)
	}
	_, peer, why := p.seen()
	want(t, why, nil)
	now, _ := client.Current()
	if peer.Key != HashOf(now.Leaf()) {
		t.Error("the certificate is another")
	}
}

func TestACertificateEndsDuringAConnection(t *testing.T) {
	end := time.Now()
	p := Peer{NotAfter: end}
	want(t, p.Check(end), nil)
	want(t, p.Check(end.Add(1)), ErrExpired)
}

func TestPlaintextIsNobody(t *testing.T) {
	p := serve(t, insecure.NewCredentials())
	if err := p.ask(t, insecure.NewCredentials()); err != nil {
		t.Fatal(err)
	}
	_, _, why := p.seen()
	want(t, why, ErrPlaintext)
	_, err := FromContext(t.Context())
	want(t, err, ErrPlaintext)
}

func TestOldTLSIsRefused(t *testing.T) {
	c := newCA(t)
	for name, config := range map[string]*tls.Config{
		"gRPC": RequestTLS(c.source(c.id(Controller, "main"), nil)), "others": ServerTLS(c.source(c.id(Controller, "main"), nil)),
	} {
		client := careless(c.source(c.id(Agent, "fra-1"), nil))
		client.MinVersion, client.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
		if err := shake(t, config, client); err == nil || !strings.Contains(err.Error(), "unsupported versions") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOtherPortsRefuseInTheHandshake(t *testing.T) {
	c, other := newCA(t), newCA(t)
	server := ServerTLS(c.source(c.id(Controller, "main"), nil))
	none := ClientTLS(c.source(c.id(Agent, "a"), nil))
	none.GetClientCertificate = nil
	want(t, shake(t, server, ClientTLS(c.source(c.id(Agent, "a"), nil))), nil)
	want(t, shake(t, server, ClientTLS(c.source(c.id(Agent, "a"), expired))), ErrExpired)
	want(t, shake(t, server, careless(other.source(other.id(Agent, "a"), nil))), ErrForeign)
	if err := shake(t, server, none); err == nil {
		t.Error("nobody was let in")
	}
}

// shake returns what the server says of a handshake.
func shake(t *testing.T, server, client *tls.Config) error {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var clients sync.WaitGroup
	defer clients.Wait()
	clients.Go(func() {
		// What the client finds is not asked here; it reads until the server hangs up.
		if conn, err := tls.Dial("tcp", l.Addr().String(), client); err == nil {
			_, _ = conn.Read(make([]byte, 1))
			_ = conn.Close()
		}
	})
	raw, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	if err := raw.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return tls.Server(raw, server).HandshakeContext(t.Context())
}

// A connection that shows nothing good is for a few words.
func TestAStrangersConnectionIsSmall(t *testing.T) {
	c := newCA(t)
	p := serve(t, ServerCredentials(c.source(c.id(Controller, "ctl"), nil)))
	config := PinnedTLS(NewToken(HashOf(c.root)), nil)
	config.NextProtos = []string{"h2"}
	conn, err := tls.Dial("tcp", p.address, config)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	// The preface, and then frames of an unknown type, which HTTP/2 passes over.
	if _, err := conn.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")); err != nil {
		t.Fatal(err)
	}
	frame := append([]byte{0, 0x30, 0, 0xee, 0, 0, 0, 0, 0}, make([]byte, 0x3000)...)
	for range 100 {
		if _, err = conn.Write(frame); err != nil {
			return
		}
	}
	buf := make([]byte, 1<<10)
	for err == nil {
		_, err = conn.Read(buf)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d bytes were taken", 100*len(frame))
	}
}

func TestStrangersAreOnlySoMany(t *testing.T) {
	s := &server{strangers: new(atomic.Int64)}
	var held []net.Conn
	for range maxStrangers {
		end, other := net.Pipe()
		defer other.Close()
		c, err := s.receive(end, ErrNoCertificate)
		want(t, err, nil)
		held = append(held, c)
	}
	end, other := net.Pipe()
	defer other.Close()
	if _, err := s.receive(end, ErrForeign); err == nil {
		t.Error("there is no bound")
	}
	if _, err := other.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("the connection that is one too many: %v", err)
	}
	late, err := s.receive(end, ErrExpired)
	want(t, err, nil)
	for _, c := range append(held, late) {
		_ = c.Close()
		_ = c.Close()
	}
	if n := s.strangers.Load(); n != 0 {
		t.Errorf("%d are still counted", n)
	}
}
