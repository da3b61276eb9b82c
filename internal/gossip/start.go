package gossip

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/hashicorp/memberlist"
)

// network carries what memberlist says.
type network interface {
	memberlist.NodeAwareTransport
	// GetAutoBindPort returns the port that is bound.
	GetAutoBindPort() int
}

// start binds the sockets and brings memberlist up. What it returns is to be shut down.
func (g *Gossip) start(ctx context.Context, lines *logWriter) (*memberlist.Memberlist, error) {
	conf := g.memberlist(lines)
	n, err := g.config.bind(ctx, g.config.Listen, g.config.Allowed, conf.Logger)
	if err != nil {
		return nil, err
	}
	list, err := g.create(conf, n)
	if err != nil {
		return nil, errors.Join(err, n.Shutdown())
	}
	return list, nil
}

func (g *Gossip) create(conf *memberlist.Config, n network) (*memberlist.Memberlist, error) {
	conf.Transport = n
	conf.BindPort = n.GetAutoBindPort()
	if conf.AdvertisePort == 0 {
		conf.AdvertisePort = conf.BindPort
	}
	ip, port, err := n.FinalAdvertiseAddr(conf.AdvertiseAddr, conf.AdvertisePort)
	if err != nil {
		return nil, fmt.Errorf("no address to tell the others; set Advertise: %w", err)
	}
	addr, _ := netip.AddrFromSlice(ip)
	at := netip.AddrPortFrom(addr.Unmap(), uint16(port))
	if len(g.config.Allowed) > 0 && !contains(g.config.Allowed, at.Addr()) {
		return nil, fmt.Errorf("our own address %v is in none of the allowed networks", at.Addr())
	}
	if g.config.tune != nil {
		g.config.tune(conf)
	}
	g.mu.Lock() // so that no announcement comes between what is read and what is listed
	defer g.mu.Unlock()
	g.addr = at
	// Where our address has changed, what was signed for the one before is of no use.
	if err := g.fleet.dropOwn(at); err != nil {
		g.config.Logger.Warn("gossip: the announcement of before is of no use; we listen until there is another", "err", err)
	}
	g.list, err = memberlist.Create(conf)
	return g.list, err
}
