// Package resolve finds the addresses of targets, as the host itself looks
// names up. Targets is for all of a Spec, Resolver.Follow for one that goes on
// for so long that a name may come to lead elsewhere.
package resolve

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/synmesh/synmesh/probe"
)

// lookups is how many names are asked for at a time.
const lookups = 16

// Resolver finds addresses. The zero value works.
type Resolver struct {
	// Lookup returns the addresses that a name has, the best first. Network is
	// "ip", "ip4" or "ip6". Nil asks as the host itself does.
	Lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)
	// Every is about how often Follow looks a name up; zero is DefaultEvery.
	Every  time.Duration
	Logger *slog.Logger // nil discards
}

// Address is where a target is, or why that is not known.
type Address struct {
	// Remote is never an IPv4 address in the form of IPv6 (RFC 4291 section
	// 2.5.5.2); it has a zone if the target was given one.
	Remote netip.AddrPort
	Err    error
}

// Targets returns the Address of each target, as the zero Resolver does.
func Targets(ctx context.Context, targets []probe.Target, family probe.Family) []Address {
	return new(Resolver).Targets(ctx, targets, family)
}

// Targets returns the Address of each target. A host is looked up once,
// however many of its ports are probed.
func (r *Resolver) Targets(ctx context.Context, targets []probe.Target, family probe.Family) []Address {
	all := make([]Address, len(targets))
	for i, t := range targets {
		if a, err := netip.ParseAddr(t.Host); err == nil {
			all[i] = addressOf(a.Unmap(), t.Port, family)
		}
	}
	hosts := namesOf(targets)
	r.find(ctx, hosts, family)
	for i := range hosts {
		h := &hosts[i]
		for _, at := range h.targets {
			if all[at].Err = h.err; h.err == nil {
				all[at].Remote = netip.AddrPortFrom(h.addr, targets[at].Port)
			}
		}
	}
	return all
}

// addressOf is the Address of a target that was given as one.
func addressOf(a netip.Addr, port uint16, family probe.Family) Address {
	if family != probe.AnyFamily && (family == probe.IPv6) != a.Is6() {
		return Address{Err: fmt.Errorf("%s is not an IPv%d address", a, family)}
	}
	return Address{Remote: netip.AddrPortFrom(a, port)}
}

// host is a name that several targets may share.
type host struct {
	name    string
	targets []int      // which they are
	addr    netip.Addr // the latest that is known; not valid while there is none
	err     error      // of the latest lookup
}

// namesOf returns the hosts that are names, and so have to be looked up.
func namesOf(targets []probe.Target) []host {
	index := make(map[string]int)
	var hosts []host
	for i, t := range targets {
		if _, err := netip.ParseAddr(t.Host); err == nil {
			continue
		}
		at, known := index[t.Host]
		if !known {
			at = len(hosts)
			index[t.Host] = at
			hosts = append(hosts, host{name: t.Host})
		}
		hosts[at].targets = append(hosts[at].targets, i)
	}
	return hosts
}

// find looks the hosts up, some at a time.
func (r *Resolver) find(ctx context.Context, hosts []host, family probe.Family) {
	var next atomic.Int64
	var group sync.WaitGroup
	for range min(lookups, len(hosts)) {
		group.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(hosts)); i = next.Add(1) - 1 {
				h := &hosts[i]
				var addr netip.Addr
				if addr, h.err = r.host(ctx, h.name, family, h.addr); h.err == nil {
					h.addr = addr
				}
			}
		})
	}
	group.Wait()
}

// host returns the address of that family that a name is probed at. That is the same as
// before if the name still has it: servers tell several in ever another order.
func (r *Resolver) host(ctx context.Context, name string, family probe.Family, before netip.Addr) (netip.Addr, error) {
	lookup := r.Lookup
	if lookup == nil {
		lookup = net.DefaultResolver.LookupNetIP
	}
	network := map[probe.Family]string{probe.AnyFamily: "ip", probe.IPv4: "ip4", probe.IPv6: "ip6"}[family]
	addrs, err := lookup(ctx, network, name)
	if err != nil {
		return netip.Addr{}, err
	}
	if len(addrs) == 0 {
		return netip.Addr{}, fmt.Errorf("%s has no such address", name)
	}
	if slices.ContainsFunc(addrs, func(a netip.Addr) bool { return a.Unmap() == before }) {
		return before, nil
	}
	return addrs[0].Unmap(), nil
}
