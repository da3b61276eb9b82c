package gossip

import (
	"context"
	"crypto/ed25519"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// patience is how long a test waits for what should come soon.
const patience = 8 * time.Second

var (
	loopback = netip.MustParseAddrPort("127.0.0.1:0")
	key      = []byte("0123456789abcdef0123456789abcdef")
	otherKey = []byte("fedcba9876543210fedcba9876543210")

	// signer is the controllers' key, and stranger is nobody's.
	signer   = ed25519.NewKeyFromSeed([]byte("the controllers' announcement ke"))
	stranger = ed25519.NewKeyFromSeed([]byte("a key that nobody ever trusted.."))
)

const fleetName = "fleet-1"

func public(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

// announced signs p for an hour, as a controller does.
func announced(t *testing.T, p Peer) Announcement {
	t.Helper()
	a, err := Announce(p, fleetName, time.Now().Add(time.Hour), signer)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// node is a Gossip that runs.
type node struct {
	*Gossip
	addr string
	stop func() // ends Run and waits for it
}

// agentConfig is an agent's, on loopback, and quick.
func agentConfig(name string, seeds ...string) Config {
	return Config{
		Self:   Peer{Name: name, Role: Agent, Labels: map[string]string{"dc": "fra"}, Responder: "127.0.0.1:9"},
		Listen: loopback, Seeds: seeds, Logger: slog.New(slog.DiscardHandler),
		Keys: Keys{Primary: key}, Fleet: fleetName, Trusted: []ed25519.PublicKey{public(signer)},
		firstRetry: 10 * time.Millisecond, rejoin: 50 * time.Millisecond, leave: 100 * time.Millisecond, tune: quick,
	}
}

// quick makes memberlist find in milliseconds what it finds in minutes else.
func quick(c *memberlist.Config) {
	c.GossipInterval = 10 * time.Millisecond
	c.ProbeInterval = 100 * time.Millisecond
	c.ProbeTimeout = 50 * time.Millisecond
	c.PushPullInterval = 250 * time.Millisecond
	c.SuspicionMult = 2
	c.SuspicionMaxTimeoutMult = 1
	c.GossipToTheDeadTime = time.Millisecond // the dead are forgotten at once
	c.TCPTimeout = time.Second
}

// run starts a member, waits until its sockets are bound, and announces it.
func run(t *testing.T, config Config) *node {
	t.Helper()
	n := listen(t, config)
	n.announce(t)
	return n
}

// announce has a controller sign what the configuration says of n.
func (n *node) announce(t *testing.T) {
	t.Helper()
	p := n.config.Self
	p.Addr = netip.MustParseAddrPort(n.addr)
	if err := n.SetAnnouncement(announced(t, p)); err != nil {
		t.Fatal(err)
	}
}

// listen starts a member without an announcement.
func listen(t *testing.T, config Config) *node {
	t.Helper()
	g, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	n := &node{Gossip: g}
	stopped := false
	n.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run of %s: %v", config.Self.Name, err)
		}
	}
	t.Cleanup(n.stop)
	addr, err := g.Addr(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	n.addr = addr.String()
	return n
}

// soon returns a context that ends when patience does.
func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// sees waits until n knows just the peers of these names. What it returns is
// what n knew then: a moment later somebody may be suspected wrongly.
func (n *node) sees(t *testing.T, want ...string) []Peer {
	t.Helper()
	slices.Sort(want)
	peers, err := n.Wait(soon(t), func(peers []Peer) bool { return slices.Equal(names(peers), want) })
	if err != nil {
		t.Fatalf("%s sees %v, want %v: %v", n.config.Self.Name, names(n.Peers()), want, err)
	}
	return peers
}

func names(peers []Peer) []string {
	got := make([]string, len(peers))
	for i, p := range peers {
		got[i] = p.Name
	}
	return got
}

// within waits for what a channel tells of.
func within(t *testing.T, what string, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("in vain waited for %s", what)
	}
}

// eventually waits for what nothing tells of.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("in vain waited until %s", what)
		}
	}
}
