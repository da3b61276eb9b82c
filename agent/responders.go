package agent

import (
	"net/netip"

	"github.com/synmesh/synmesh/internal/gossip"
)

// responders are the addresses that policy lets the agent probe faster. One
// counts if a controller has signed its announcement, and if it is on the host
// that gossips it: so it is not enough to command the session to have others
// flooded, the flooded host has to take part.
func (a *Agent) responders() map[netip.AddrPort]bool {
	g := a.gossip.Load()
	if g == nil {
		return nil
	}
	return trusted(g.Peers())
}

func trusted(peers []gossip.Peer) map[netip.AddrPort]bool {
	known := make(map[netip.AddrPort]bool)
	for _, p := range peers {
		at, err := netip.ParseAddrPort(p.Responder)
		if err != nil || p.Role != gossip.Agent { // it has none, or only a name
			continue
		}
		at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
		if at.Addr() == p.Addr.Addr().Unmap() && at.Addr().Zone() == "" {
			known[at] = true
		}
	}
	return known
}
