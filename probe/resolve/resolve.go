// Package resolve finds the addresses of targets, as the host itself looks
// names up. Targets is for all of a Spec, Host for one name.
package resolve

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/synmesh/synmesh/probe"
)

// lookups is how many names are asked for at a time.
const lookups = 16

// Address is where a target is, or why that is not known.
type Address struct {
	// Remote is never an IPv4 address in the form of IPv6 (RFC 4291 section
	// 2.5.5.2); it has a zone if the target was given one.
	Remote netip.AddrPort
	Err    error
}

// Targets returns the Address of each target. A host is looked up once,
// however many of its ports are probed.
func Targets(ctx context.Context, targets []probe.Target, family probe.Family) []Address {
	index := make(map[string]int)
	var hosts []string
	for _, t := range targets {
		if _, known := index[t.Host]; !known {
			index[t.Host] = len(hosts)
			hosts = append(hosts, t.Host)
		}
	}
	found := make([]struct {
		addr netip.Addr
		err  error
	}, len(hosts))
	var next atomic.Int64
	var group sync.WaitGroup
	for range min(lookups, len(hosts)) {
		group.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(hosts)); i = next.Add(1) - 1 {
				found[i].addr, found[i].err = Host(ctx, hosts[i], family)
			}
		})
	}
	group.Wait()
	all := make([]Address, len(targets))
	for i, t := range targets {
		if f := &found[index[t.Host]]; f.err != nil {
			all[i].Err = f.err
		} else {
			all[i].Remote = netip.AddrPortFrom(f.addr, t.Port)
		}
	}
	return all
}

// Host returns the address that a host is probed at: itself, if it is an
// address, or else the first of that family that its name has.
func Host(ctx context.Context, host string, family probe.Family) (netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		if a = a.Unmap(); family != probe.AnyFamily && (family == probe.IPv6) != a.Is6() {
			return netip.Addr{}, fmt.Errorf("%s is not an IPv%d address", a, family)
		}
		return a, nil
	}
	network := map[probe.Family]string{probe.AnyFamily: "ip", probe.IPv4: "ip4", probe.IPv6: "ip6"}[family]
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, network, host)
	if err != nil {
		return netip.Addr{}, err
	}
	if len(addrs) == 0 {
		return netip.Addr{}, fmt.Errorf("%s has no such address", host)
	}
	return addrs[0].Unmap(), nil
}
