package agent

import (
	"maps"
	"net/netip"
	"testing"

	"github.com/synmesh/synmesh/internal/gossip"
)

func TestARespondersAddressCountsIfItsHostGossips(t *testing.T) {
	peer := func(name string, role gossip.Role, responder, at string) gossip.Peer {
		return gossip.Peer{Name: name, Role: role, Responder: responder, Addr: netip.MustParseAddrPort(at)}
	}
	got := trusted([]gossip.Peer{
		peer("fra-1", gossip.Agent, "192.0.2.1:7401", "192.0.2.1:7946"),
		peer("fra-2", gossip.Agent, "[2001:db8::2]:7401", "[2001:db8::2]:7946"),
		peer("mapped", gossip.Agent, "[::ffff:192.0.2.3]:7401", "192.0.2.3:7946"),
		peer("another-host", gossip.Agent, "198.51.100.1:443", "192.0.2.4:7946"),
		peer("by-name", gossip.Agent, "fra-5.example:7401", "192.0.2.5:7946"),
		peer("zone", gossip.Agent, "[fe80::6%eth0]:7401", "[fe80::6%eth0]:7946"),
		peer("silent", gossip.Agent, "", "192.0.2.7:7946"),
		peer("controller", gossip.Controller, "192.0.2.8:7401", "192.0.2.8:7946"),
	})
	want := map[netip.AddrPort]bool{
		netip.MustParseAddrPort("192.0.2.1:7401"): true, netip.MustParseAddrPort("[2001:db8::2]:7401"): true,
		netip.MustParseAddrPort("192.0.2.3:7401"): true,
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestWithoutGossipNobodyIsProbedFaster(t *testing.T) {
	if got := new(Agent).responders(); got != nil {
		t.Errorf("got %v", got)
	}
}
