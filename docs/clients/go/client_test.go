package client_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/synmesh/synmesh/controller"
	"github.com/synmesh/synmesh/controller/api/apitest"
	"github.com/synmesh/synmesh/internal/gossip"
	"github.com/synmesh/synmesh/internal/identity"
	"github.com/synmesh/synmesh/internal/identity/contexts"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// start runs a controller with its data in a folder, at an address, until stop is called.
func start(t *testing.T, dir, address string) (at string, stop func()) {
	t.Helper()
	loopback := netip.MustParseAddr("127.0.0.1")
	c, err := controller.New(controller.Config{Name: "controller", DataDir: dir, Listen: address, Advertise: loopback,
		Gossip: gossip.Config{Listen: netip.AddrPortFrom(loopback, 0)}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- c.Run(ctx) }()
	return c.Addr().String(), func() {
		cancel()
		if err := <-ran; err != nil {
			t.Errorf("controller: %v", err)
		}
	}
}

// operator returns who may do everything with a controller that has its data in a folder.
func operator(t *testing.T, dir string) *identity.State {
	t.Helper()
	saved, err := contexts.Read(filepath.Join(dir, "operator.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return saved.State
}

// folder returns one with what probectl user create --pem writes.
func folder(t *testing.T, s *identity.State) (dir string) {
	t.Helper()
	dir = t.TempDir()
	key, err := identity.EncodeKey(s.Key)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"key.pem": key, "certificate.pem": identity.EncodeCertificates(s.Chain...), "roots.pem": identity.EncodeCertificates(s.Roots...),
	} {
		if err := identity.WriteFile(filepath.Join(dir, name), content); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// report has an agent store results of these targets.
func report(t *testing.T, address string, who *identity.Credentials, sequence uint64, targets ...string) {
	t.Helper()
	agent, _ := apitest.Join(t, apitest.DialAs(t, address, who), &synmeshv1.Hello{Name: "fra-1", Epoch: 1, Version: "v1", Stamping: "quiet"})
	for i, target := range targets {
		agent.Report(apitest.Report(1, sequence+uint64(i), apitest.Results("measurements/mesh", target, time.Now(), 1)))
		agent.Acknowledged()
	}
	agent.Leave()
}

func TestTheClientGoesOnThroughARestart(t *testing.T) {
	dir := t.TempDir()
	address, stop := start(t, dir, "127.0.0.1:0")
	admin := operator(t, dir)
	credentials, err := admin.Credentials()
	if err != nil {
		t.Fatal(err)
	}
	who := apitest.Enrol(t, address, credentials, "fra-1")
	config, err := readFolder(folder(t, admin))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := connect(address, config)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()

	ctx, cancel := context.WithCancel(t.Context())
	came, ended := make(chan string, 100), make(chan error, 1)
	go func() {
		ended <- watch(ctx, synmeshv1.NewResultServiceClient(conn), nil, "", func(results []*synmeshv1.Result, cursor string) error {
			if len(results) == 0 {
				came <- "watching"
			}
			for _, r := range results {
				came <- r.GetTarget()
			}
			return nil
		})
	}()
	expect(t, came, "watching")
	report(t, address, who, 1, "a:1", "b:2")
	expect(t, came, "a:1", "b:2")
	stop()
	_, stop = start(t, dir, address)
	report(t, address, who, 3, "c:3", "d:4")
	expect(t, came, "c:3", "d:4")
	cancel()
	if err := <-ended; ctx.Err() == nil || err == nil {
		t.Errorf("it ended with %v", err)
	}
	stop()
	close(came)
	for more := range came {
		if more != "watching" {
			t.Errorf("%s came besides", more)
		}
	}
}

// expect wants these to come in this order; that something watches may be said at any time.
func expect(t *testing.T, came <-chan string, want ...string) {
	t.Helper()
	for len(want) > 0 {
		select {
		case got := <-came:
			if got == want[0] {
				want = want[1:]
			} else if got != "watching" {
				t.Fatalf("%s came, want %s", got, want[0])
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%s has not come", want[0])
		}
	}
}

func TestAnErrorOfTheStoreEndsTheWatch(t *testing.T) {
	dir := t.TempDir()
	address, stop := start(t, dir, "127.0.0.1:0")
	defer stop()
	config, err := readFolder(folder(t, operator(t, dir)))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := connect(address, config)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	full := errors.New("the disk is full")
	err = watch(t.Context(), synmeshv1.NewResultServiceClient(conn), nil, "", func([]*synmeshv1.Result, string) error { return full })
	if !errors.Is(err, full) {
		t.Errorf("it ended with %v", err)
	}
}

// The client talks to controllers of its fleet, and to nobody else.
func TestTheClientRefusesOthers(t *testing.T) {
	members, others := apitest.NewMembers(t), apitest.NewMembers(t)
	own := members.User(identity.Viewer, 0)
	controllerOf := func(m *apitest.Members) *identity.Credentials {
		c, err := m.Self.Current()
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	for _, c := range []struct {
		name   string
		server *identity.Credentials
		want   string
	}{
		{"a controller", controllerOf(members), ""},
		{"an agent", members.Agent("fra-1"), "incompatible key usage"},
		{"a controller of another fleet", controllerOf(others), "unknown authority"},
	} {
		config := tlsOf(*own.Certificate, own.Roots, own.Identity.Fleet)
		if err := handshake(t, c.server, config); c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(fmt.Sprint(err), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	config := tlsOf(*own.Certificate, own.Roots, "fleet-2")
	if err := handshake(t, controllerOf(members), config); err == nil || !strings.Contains(err.Error(), "a controller of fleet-2 is wanted") {
		t.Errorf("a controller of a fleet with the same roots: %v", err)
	}
}

// handshake returns what the client says of a server with these credentials.
func handshake(t *testing.T, server *identity.Credentials, client *tls.Config) error {
	t.Helper()
	ours, theirs := net.Pipe()
	served := make(chan struct{})
	go func() {
		defer close(served)
		config := identity.RequestTLS(identity.Fixed(server))
		config.NextProtos = slices.Clone(client.NextProtos)
		conn := tls.Server(theirs, config)
		_ = conn.Handshake() // the client tells
		theirs.Close()
	}()
	err := tls.Client(ours, client).Handshake()
	ours.Close()
	<-served
	return err
}
