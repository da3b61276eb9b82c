package gossip

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
)

// Outbound returns the address that this host uses towards the first of the
// others, given as host:port, that it has a route to; with no others, towards
// the world. Others will reach it there, unless there is a
// translator in between. It may ask the DNS, and sends nothing else.
func Outbound(others []string) (netip.Addr, error) {
	if len(others) == 0 {
		// TEST-NET-1 and the documentation prefix: nobody has these.
		others = []string{"192.0.2.1:9", "[2001:db8::1]:9"}
	}
	var errs []error
	for _, to := range others {
		c, err := net.Dial("udp", to) // looks up the route, and that is all
		if err != nil {
			errs = append(errs, err)
			continue
		}
		local := c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
		c.Close()
		return local, nil
	}
	return netip.Addr{}, fmt.Errorf("no own address is known: %w", errors.Join(errs...))
}
