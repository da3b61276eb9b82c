package gossip

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// DefaultPort is the port that gossip uses, over TCP and UDP, if none is given.
const DefaultPort = 7946

// Config says what a Gossip tells and whom it listens to. The fields without a
// comment on their absence must be set.
type Config struct {
	// Self is what a controller is asked to announce of us; only its name counts here.
	Self Peer
	// Listen is where to bind, over TCP and UDP. Port 0 lets the kernel choose,
	// and Gossip.Addr tells. If it is not valid: every IPv4 address of the
	// host, and DefaultPort.
	Listen netip.AddrPort
	// Advertise is where the others are told to reach this one; port 0 is the
	// port bound. If it is not valid: as bound, and with 0.0.0.0 bound, the
	// private address of the interface with the default route.
	Advertise netip.AddrPort
	// Seeds are members to join by, as host:port; of a DNS name every address
	// is tried. One's own address may be among them. Without seeds one waits to
	// be joined.
	Seeds []string
	// Allowed are the networks that members may be in and streams may come
	// from. If there are none: all.
	Allowed []netip.Prefix
	// Keys encrypt all that is said.
	Keys Keys
	// Fleet is the name that announcements are signed for, of 1 to 255 bytes.
	Fleet string
	// Trusted are the public keys of the controllers that sign announcements:
	// several, while the fleet changes from one to the other.
	Trusted []ed25519.PublicKey
	// Announcement is our own, if there is one already that is still valid and
	// was issued for the address that we are going to have; otherwise it is
	// passed over. Without one we listen and are listed by nobody, until
	// SetAnnouncement.
	Announcement Announcement
	// Logger is slog.Default() if it is nil.
	Logger *slog.Logger

	// For tests: where they are zero, the constants of this package hold.
	firstRetry, rejoin, leave time.Duration
	tune                      func(*memberlist.Config)
	bind                      func(context.Context, netip.AddrPort, []netip.Prefix, *log.Logger) (network, error)
}

// Gossip is one member. Its methods may be called from any goroutine, and
// before, during and after Run.
type Gossip struct {
	config  Config
	keyring *memberlist.Keyring
	fleet   *fleet
	started atomic.Bool

	mu   sync.Mutex             // of who changes the keyring, or what is told
	list *memberlist.Memberlist // while Run is joined to the others

	introduced chan struct{} // holds one while our first announcement, or a key for who knows nobody, is news

	bound   chan struct{} // closed once the fields below are set
	addr    netip.AddrPort
	bindErr error
}

// New checks the configuration. It opens no socket and starts no goroutine:
// Run does, so a port that is taken is reported there.
func New(config Config) (*Gossip, error) {
	if err := config.complete(); err != nil {
		return nil, fmt.Errorf("gossip: %w", err)
	}
	keyring, trust, err := config.secrets()
	if err != nil {
		return nil, fmt.Errorf("gossip: %w", err)
	}
	g := &Gossip{
		config: config, keyring: keyring,
		fleet:      newFleet(config.Self.Name, trust, config.Logger),
		introduced: make(chan struct{}, 1), bound: make(chan struct{}),
	}
	if len(config.Announcement) > 0 {
		if _, err := g.fleet.setOwn(config.Announcement, netip.AddrPort{}); err != nil {
			config.Logger.Warn("gossip: the announcement of before is of no use; we listen until there is another", "err", err)
		}
	}
	return g, nil
}

// Run binds the sockets, joins the others by the seeds, and goes back to
// seeds and members that were lost. When the context ends it takes leave of the others,
// for two seconds at most, and returns nil. It returns an error if it cannot
// begin. It may be called once.
func (g *Gossip) Run(ctx context.Context) error {
	if g.started.Swap(true) {
		return errors.New("gossip: Run was called before")
	}
	lines := &logWriter{to: g.config.Logger}
	defer lines.close()
	defer g.fleet.close()
	list, err := g.start(ctx, lines)
	if err != nil {
		g.bindErr = fmt.Errorf("gossip: %w", err)
		close(g.bound)
		return g.bindErr
	}
	close(g.bound)
	g.config.Logger.Info("gossip: listening", "address", g.addr)
	var forgetting sync.WaitGroup
	forgetting.Go(func() { g.fleet.forget(ctx) })
	g.rejoin(ctx, list)
	forgetting.Wait()
	g.mu.Lock()
	g.list = nil
	g.mu.Unlock()
	// What fails from now on fails because we end, or because all leave together.
	lines.close()
	if err := list.Leave(g.config.leave); err != nil {
		g.config.Logger.Debug("gossip: not enough of the others were told that we leave", "err", err)
	}
	if err := list.Shutdown(); err != nil {
		return fmt.Errorf("gossip: shutting down: %w", err)
	}
	return nil
}

// Addr waits until Run has bound its sockets and returns the address that the
// others are told. It returns Run's error if that failed.
func (g *Gossip) Addr(ctx context.Context) (netip.AddrPort, error) {
	select {
	case <-g.bound:
		return g.addr, g.bindErr
	case <-ctx.Done():
		return netip.AddrPort{}, fmt.Errorf("gossip: waiting for the sockets: %w", context.Cause(ctx))
	}
}

// Peers returns the others that are believed alive, in the order of their
// names. The caller owns what it gets. After Run it is what was known last.
func (g *Gossip) Peers() []Peer { return g.fleet.list() }

// Changed returns a channel that is closed when the peers change. Take it
// before Peers and no change is missed; several changes may close it once.
func (g *Gossip) Changed() <-chan struct{} { return g.fleet.next() }

// Wait returns the peers as soon as enough holds of them, which it asks at
// once and after each change. It returns an error if the context ends before.
func (g *Gossip) Wait(ctx context.Context, enough func([]Peer) bool) ([]Peer, error) {
	for {
		changed := g.Changed()
		if peers := g.Peers(); enough(peers) {
			return peers, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("gossip: waiting for peers: %w", context.Cause(ctx))
		}
	}
}

// Stats returns the counts so far.
func (g *Gossip) Stats() Stats { return g.fleet.counts() }
