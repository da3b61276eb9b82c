package gossip

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/synmesh/synmesh/internal/selector"
)

// Role says what a peer does in the fleet.
type Role uint8

// The roles. The zero value is none of them.
const (
	Agent Role = iota + 1
	Controller
)

// String returns the role's word, as it stands in logs.
func (r Role) String() string {
	switch r {
	case Agent:
		return "agent"
	case Controller:
		return "controller"
	}
	return fmt.Sprintf("role(%d)", uint8(r))
}

// Peer is a member of the fleet, as a controller announced it.
type Peer struct {
	// Name is unique in the fleet: 1 to 63 letters, digits, '.', '_' and '-'.
	Name string
	Role Role
	// Labels keep the rules of selector.CheckLabels.
	Labels map[string]string
	// GRPC is where agents and operators dial a controller, as host:port. A
	// controller has it, an agent has none.
	GRPC string
	// Responder is where other agents may probe an agent, as host:port; empty
	// means nowhere. A controller has none.
	Responder string
	// Addr is where the peer gossips. In Config.Self it is not asked for.
	Addr netip.AddrPort
}

// clone returns a copy that shares nothing with p.
func (p Peer) clone() Peer {
	p.Labels = maps.Clone(p.Labels)
	return p
}

// check refuses a peer that must not be told of or believed: what passes is
// short, and printable as it is.
func (p Peer) check() error {
	if err := selector.CheckName(p.Name); err != nil {
		return err
	}
	if err := selector.CheckLabels(p.Labels); err != nil {
		return err
	}
	switch p.Role {
	case Agent:
		if p.GRPC != "" {
			return errors.New("an agent has no gRPC address")
		}
		if p.Responder == "" {
			return nil
		}
		if err := checkHostPort(p.Responder); err != nil {
			return fmt.Errorf("responder: %w", err)
		}
	case Controller:
		if p.Responder != "" {
			return errors.New("a controller has no responder")
		}
		if err := checkHostPort(p.GRPC); err != nil {
			return fmt.Errorf("gRPC address: %w", err)
		}
	default:
		return fmt.Errorf("%v is unknown; it is agent or controller", p.Role)
	}
	return nil
}

// checkHostPort accepts what can be dialled: an address or a DNS name, and a port.
func checkHostPort(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("%.80q is not host:port", s)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || port[0] == '0' {
		return fmt.Errorf("%.80q: the port is not a number from 1 to 65535", s)
	}
	if a, err := netip.ParseAddr(host); err == nil {
		if a.IsUnspecified() || a.IsMulticast() || strings.ContainsFunc(a.Zone(), notHostRune) {
			return fmt.Errorf("%.80q: a host's own address is wanted", s)
		}
		return nil
	}
	if host == "" || len(host) > 253 || strings.ContainsFunc(host, notHostRune) {
		return fmt.Errorf("%.80q: the host is neither an address nor a DNS name", s)
	}
	return nil
}

func notHostRune(r rune) bool {
	return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune(".-_", r))
}
