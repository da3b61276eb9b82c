package gossip

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/hashicorp/memberlist"
)

// label is said before each packet and stream, and is bound to what is
// encrypted. It keeps other users of memberlist's port (Serf, Consul, Docker)
// apart from us, even if somebody gave them the same key.
const label = "synmesh"

// leaveTimeout is the time in which the leave of one is told often enough in a
// fleet of a thousand.
const leaveTimeout = 2 * time.Second

// complete fills in what may be left out, and refuses what cannot be right.
func (c *Config) complete() error {
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	c.firstRetry = cmp.Or(c.firstRetry, firstRetry)
	c.rejoin = cmp.Or(c.rejoin, rejoinInterval)
	c.leave = cmp.Or(c.leave, leaveTimeout)
	if c.bind == nil {
		c.bind = bind
	}
	if !c.Listen.IsValid() {
		c.Listen = netip.AddrPortFrom(netip.IPv4Unspecified(), DefaultPort)
	}
	if err := c.Self.fits(); err != nil {
		return fmt.Errorf("what we tell of ourselves: %w", err)
	}
	c.Listen = unmap(c.Listen)
	c.Advertise = unmap(c.Advertise)
	if a := c.Listen.Addr(); a.Zone() != "" || a.IsMulticast() {
		return fmt.Errorf("listening on %v is not possible; a host's own address is wanted, without a zone", a)
	}
	if c.Listen.Addr() == netip.IPv6Unspecified() && !c.Advertise.IsValid() {
		return fmt.Errorf("listening on %v tells the others nothing; set Advertise", c.Listen)
	}
	if a := c.Advertise.Addr(); a.IsValid() && (a.IsUnspecified() || a.IsMulticast() || a.Zone() != "") {
		return fmt.Errorf("advertising %v tells the others nothing; a host's own address is wanted, without a zone", a)
	}
	for _, seed := range c.Seeds {
		if err := checkHostPort(seed); err != nil {
			return fmt.Errorf("seed: %w", err)
		}
	}
	for _, prefix := range c.Allowed {
		if !prefix.IsValid() || prefix.Addr().Is4In6() {
			return fmt.Errorf("allowed network %v is not an IPv4 or IPv6 prefix", prefix)
		}
	}
	return nil
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// secrets returns what the configuration encrypts with and whom it believes.
func (c *Config) secrets() (*memberlist.Keyring, *trust, error) {
	if len(c.Keys.Primary) == 0 {
		return nil, nil, errors.New("the key is missing: without it anybody can read what is said; give 32 bytes")
	}
	if err := c.Keys.check(); err != nil {
		return nil, nil, err
	}
	if err := checkFleet(c.Fleet); err != nil {
		return nil, nil, err
	}
	believed, err := newTrust(c.Fleet, c.Trusted)
	if err != nil {
		return nil, nil, err
	}
	ring, err := memberlist.NewKeyring(nil, bytes.Clone(c.Keys.Primary))
	if err != nil {
		return nil, nil, err
	}
	return ring, believed, c.Keys.install(ring)
}

// memberlist returns the configuration of one life.
func (g *Gossip) memberlist(lines *logWriter) *memberlist.Config {
	// The wide-area preset allows for round trips between continents, but takes
	// one to six minutes to call a peer dead in a fleet of a hundred. With these
	// two factors it is 40 s to two minutes, by how many confirm the suspicion.
	// Sessions tell sooner who is gone; this has to be right in the end.
	conf := memberlist.DefaultWANConfig()
	conf.SuspicionMult = 4
	conf.SuspicionMaxTimeoutMult = 3
	conf.TCPTimeout = 10 * time.Second
	// A host that died and came back with another address has its name again
	// after this time, not only when the dead are forgotten.
	conf.DeadNodeReclaimTime = 30 * time.Second

	conf.Name = g.config.Self.Name
	conf.Label = label
	conf.Keyring = g.keyring
	conf.Logger = log.New(lines, "", 0)
	conf.Delegate, conf.Events, conf.Alive, conf.Conflict = g.fleet, g.fleet, g.fleet, g.fleet
	conf.AdvertisePort = 0
	if a := g.config.Advertise; a.IsValid() {
		conf.AdvertiseAddr, conf.AdvertisePort = a.Addr().String(), int(a.Port())
	}
	for _, prefix := range g.config.Allowed {
		prefix = prefix.Masked()
		conf.CIDRsAllowed = append(conf.CIDRsAllowed, net.IPNet{
			IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen()),
		})
	}
	return conf
}
