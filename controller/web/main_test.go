package web

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/synmesh/synmesh/controller/api/access"
	"github.com/synmesh/synmesh/controller/api/apitest"
	"github.com/synmesh/synmesh/internal/identity"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long anything may take.
const patience = 10 * time.Second

// bench is a Server on loopback, behind which a gRPC server does what the test says.
type bench struct {
	*testing.T
	members *apitest.Members
	server  *Server
	address string
	api     fake
}

// fake notes what it was asked, and answers.
type fake struct {
	synmeshv1.UnimplementedFleetServiceServer
	synmeshv1.UnimplementedResultServiceServer
	synmeshv1.UnimplementedRunServiceServer

	mu       sync.Mutex
	asked    *synmeshv1.ListAgentsRequest
	queried  *synmeshv1.QueryRequest
	metadata metadata.MD
	caller   identity.Peer

	watching chan struct{} // gets one for each stream of Watch that has begun
	watched  chan struct{} // gets one for each that has ended
}

func (f *fake) ListAgents(ctx context.Context, req *synmeshv1.ListAgentsRequest) (*synmeshv1.ListAgentsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = req
	f.metadata, _ = metadata.FromIncomingContext(ctx)
	f.caller, _ = identity.FromContext(ctx)
	return &synmeshv1.ListAgentsResponse{Agents: []*synmeshv1.Agent{{Name: "fra-1", State: synmeshv1.AgentState_AGENT_STATE_CONNECTED}}}, nil
}

func (f *fake) Query(_ context.Context, req *synmeshv1.QueryRequest) (*synmeshv1.QueryResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.queried = req
	return &synmeshv1.QueryResponse{}, nil
}

// Watch sends one message, and no more.
func (f *fake) Watch(_ *synmeshv1.WatchRequest, st grpc.ServerStreamingServer[synmeshv1.WatchResponse]) error {
	defer func() { f.watched <- struct{}{} }()
	if err := st.Send(&synmeshv1.WatchResponse{Cursor: "1"}); err != nil {
		return err
	}
	f.watching <- struct{}{}
	<-st.Context().Done()
	return st.Context().Err()
}

// Export sends as much as is taken.
func (f *fake) Export(_ *synmeshv1.ExportRequest, st grpc.ServerStreamingServer[synmeshv1.ExportResponse]) error {
	defer func() { f.watched <- struct{}{} }()
	for {
		if err := st.Send(&synmeshv1.ExportResponse{Cursor: strings.Repeat("x", 100_000)}); err != nil {
			return err
		}
	}
}

func (f *fake) Run(req *synmeshv1.RunRequest, st grpc.ServerStreamingServer[synmeshv1.RunResponse]) error {
	return st.Send(&synmeshv1.RunResponse{Message: &synmeshv1.RunResponse_Started{Started: &synmeshv1.RunStarted{Run: "runs/" + req.GetSelector()}}})
}

func serve(t *testing.T) *bench {
	t.Helper()
	return serveTo(t, apitest.NewMembers(t))
}

func serveTo(t *testing.T, m *apitest.Members) *bench {
	t.Helper()
	b := &bench{T: t, members: m}
	b.api.watching, b.api.watched = make(chan struct{}, 1000), make(chan struct{}, 1000)
	log := slog.New(slog.DiscardHandler)
	guard, relay := access.New(b.members.Registry, log), identity.NewRelay()
	behind := grpc.NewServer(grpc.Creds(relay.Credentials(identity.ServerCredentials(b.members.Self))),
		grpc.UnaryInterceptor(guard.Unary), grpc.StreamInterceptor(guard.Stream), grpc.WaitForHandlers(true))
	synmeshv1.RegisterFleetServiceServer(behind, &b.api)
	synmeshv1.RegisterResultServiceServer(behind, &b.api)
	synmeshv1.RegisterRunServiceServer(behind, &b.api)
	var err error
	b.server, err = New(Config{
		Identity: b.members.Self, Relay: relay, Check: guard.Check, Logger: log,
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "up 1") }),
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b.address = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	relayed, ran := make(chan error, 1), make(chan error, 1)
	go func() { relayed <- behind.Serve(relay) }()
	go func() { ran <- b.server.Run(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		behind.Stop()
		if err := <-ran; err != nil {
			t.Errorf("Run: %v", err)
		}
		if err := <-relayed; err != nil {
			t.Errorf("Serve: %v", err)
		}
		guard.Wait()
	})
	return b
}

// client returns a client that shows the certificate, or none.
func (b *bench) client(who *identity.Credentials, http2 bool) *http.Client {
	b.Helper()
	roots, err := b.members.Self.Current()
	if err != nil {
		b.Fatal(err)
	}
	// As any client does it, by the name of the host.
	config := &tls.Config{RootCAs: roots.Roots, ServerName: "controller"}
	if who != nil {
		config.Certificates = []tls.Certificate{*who.Certificate}
	}
	tr := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: http2}
	b.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// revoke keeps a person out.
func (b *bench) revoke(name string) {
	b.Helper()
	self, err := b.members.Self.Current()
	if err != nil {
		b.Fatal(err)
	}
	if err := b.members.RevokeUser(self.Identity, name, "left"); err != nil {
		b.Fatal(err)
	}
}

// user returns a client of somebody with the role.
func (b *bench) user(role identity.Role) *http.Client {
	b.Helper()
	return b.client(b.members.User(role, 0), true)
}

// open sends a request. The answer's body must be closed.
func (b *bench) open(ctx context.Context, c *http.Client, method, path, body string, header ...string) *http.Response {
	b.Helper()
	req, err := http.NewRequestWithContext(ctx, method, "https://"+b.address+path, strings.NewReader(body))
	if err != nil {
		b.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		b.Fatalf("%s %s: %v", method, path, err)
	}
	return resp
}

// do sends a request and returns the answer.
func (b *bench) do(c *http.Client, method, path, body string, header ...string) (*http.Response, string) {
	b.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	resp := b.open(ctx, c, method, path, body, header...)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		b.Fatalf("%s %s: %v", method, path, err)
	}
	return resp, string(text)
}

// want sends a request and fails unless it is answered so.
func (b *bench) want(c *http.Client, method, path, body string, code int, words string, header ...string) *http.Response {
	b.Helper()
	resp, text := b.do(c, method, path, body, header...)
	if resp.StatusCode != code || !strings.Contains(text, words) {
		b.Errorf("%s %s: got %d %s, want %d with %q", method, path, resp.StatusCode, text, code, words)
	}
	return resp
}

// watch begins a stream, and returns what reads its lines, after the first.
func (b *bench) watch(c *http.Client) (lines *bufio.Scanner, end func()) {
	b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	resp := b.open(ctx, c, "POST", "/v1/results:watch", "{}")
	lines = bufio.NewScanner(resp.Body)
	end = sync.OnceFunc(func() {
		cancel()
		_ = resp.Body.Close() // it has been cut off
	})
	b.Cleanup(end)
	if got := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || got != "application/x-ndjson" {
		b.Fatalf("a stream is answered with %d, %s", resp.StatusCode, got)
	}
	if !lines.Scan() || !strings.Contains(lines.Text(), `"cursor":`) {
		b.Fatalf("the first line is %q", lines.Text())
	}
	<-b.api.watching
	return lines, end
}
