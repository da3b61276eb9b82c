package gossip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// DefaultPort is the port that gossip uses, over TCP and UDP, if none is given.
const DefaultPort = 7946

// Config says what a Gossip tells and whom it listens to. The fields without a
// comment on their absence must be set.
type Config struct {
	// Self is what the others are told.
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
	// Key encrypts all that is said: 16, 24 or 32 bytes for AES-GCM. It must be
	// set unless Insecure is.
	Key []byte
	// OtherKeys are understood too, but not used to speak, while a fleet changes
	// its key. There may be none.
	OtherKeys [][]byte
	// Insecure lets everybody read and forge what is said. It is for tests and
	// demonstrations, and excludes a key.
	Insecure bool
	// Logger is slog.Default() if it is nil.
	Logger *slog.Logger

	// For tests: where they are zero, the constants of this package hold.
	firstRetry, rejoin, leave time.Duration
	tune                      func(*memberlist.Config)
}

// Gossip is one member. Its methods may be called from any goroutine, and
// before, during and after Run.
type Gossip struct {
	config  Config
	keyring *memberlist.Keyring // nil if insecure
	fleet   *fleet
	started atomic.Bool

	bound   chan struct{} // closed once the fields below are set
	addr    netip.AddrPort
	bindErr error
}

// New checks the configuration. It opens no socket and starts no goroutine:
// Run does, so a port that is taken is reported there.
func New(config Config) (*Gossip, error) {
	told, err := tell(config.Self)
	if err != nil {
		return nil, fmt.Errorf("gossip: what we tell of ourselves: %w", err)
	}
	if err := config.complete(); err != nil {
		return nil, fmt.Errorf("gossip: %w", err)
	}
	keyring, err := config.keyring()
	if err != nil {
		return nil, fmt.Errorf("gossip: %w", err)
	}
	return &Gossip{
		config: config, keyring: keyring,
		fleet: newFleet(config.Self.Name, told, config.Logger),
		bound: make(chan struct{}),
	}, nil
}

// Run binds the sockets, joins the others by the seeds, and goes back to
// seeds that were lost. When the context ends it takes leave of the others,
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
	g.rejoin(ctx, list)
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

// start binds the sockets and brings memberlist up. What it returns is to be shut down.
func (g *Gossip) start(ctx context.Context, lines *logWriter) (*memberlist.Memberlist, error) {
	conf := g.memberlist(lines)
	t, err := bind(ctx, g.config.Listen, g.config.Allowed, conf.Logger)
	if err != nil {
		return nil, err
	}
	list, err := g.create(conf, t)
	if err != nil {
		return nil, errors.Join(err, t.Shutdown())
	}
	return list, nil
}

func (g *Gossip) create(conf *memberlist.Config, t *transport) (*memberlist.Memberlist, error) {
	conf.Transport = t
	conf.BindPort = t.GetAutoBindPort()
	if conf.AdvertisePort == 0 {
		conf.AdvertisePort = conf.BindPort
	}
	ip, port, err := t.FinalAdvertiseAddr(conf.AdvertiseAddr, conf.AdvertisePort)
	if err != nil {
		return nil, fmt.Errorf("no address to tell the others; set Advertise: %w", err)
	}
	addr, _ := netip.AddrFromSlice(ip)
	g.addr = netip.AddrPortFrom(addr.Unmap(), uint16(port))
	if len(g.config.Allowed) > 0 && !contains(g.config.Allowed, g.addr.Addr()) {
		return nil, fmt.Errorf("our own address %v is in none of the allowed networks", g.addr.Addr())
	}
	if g.config.tune != nil {
		g.config.tune(conf)
	}
	return memberlist.Create(conf)
}
