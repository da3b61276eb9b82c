package rawsock

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"
)

// Router tells from which address and with which MTU the host reaches another,
// and whether it has to look for a neighbour first. It sends nothing: it
// connects datagram sockets, which only looks up the route, and asks the kernel.
type Router struct {
	mu         sync.Mutex
	v4, v6     int
	neighbours *neighbours // nil where the kernel cannot be asked
}

// OpenRouter returns a Router for the thread's network namespace.
func OpenRouter() (*Router, error) {
	v4, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open IPv4 socket: %w", err)
	}
	v6, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		v6 = -1 // a host without IPv6
	}
	r := &Router{v4: v4, v6: v6}
	if r.neighbours, err = openNeighbours(); err != nil {
		r.neighbours = nil // a sandbox may forbid it, and routes are known without
	}
	return r, nil
}

// Route returns the source address that the kernel would choose for dst, and
// the MTU of the path as far as it is known, in bytes. It is safe for concurrent use.
func (r *Router) Route(dst netip.Addr) (src netip.Addr, mtu int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if dst.Is4() {
		src, mtu, err = route(r.v4, &unix.SockaddrInet4{Port: 9, Addr: dst.As4()}, unix.IPPROTO_IP, unix.IP_MTU)
	} else {
		var scope uint32
		if scope, err = scopeOf(dst); err == nil {
			src, mtu, err = route(r.v6, &unix.SockaddrInet6{Port: 9, Addr: dst.As16(), ZoneId: scope}, unix.IPPROTO_IPV6, unix.IPV6_MTU)
		}
	}
	if err != nil {
		return netip.Addr{}, 0, fmt.Errorf("no route from this host to %s (%w)", dst, err)
	}
	return src, mtu, nil
}

func route(fd int, dst unix.Sockaddr, level, option int) (netip.Addr, int, error) {
	if fd < 0 {
		return netip.Addr{}, 0, unix.EAFNOSUPPORT
	}
	// A socket keeps its source while it is connected: part it first.
	if err := disconnect(fd); err != nil {
		return netip.Addr{}, 0, err
	}
	if err := unix.Connect(fd, dst); err != nil {
		return netip.Addr{}, 0, err
	}
	mtu, err := unix.GetsockoptInt(fd, level, option)
	if err != nil {
		return netip.Addr{}, 0, err
	}
	local, err := unix.Getsockname(fd)
	if err != nil {
		return netip.Addr{}, 0, err
	}
	switch a := local.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrFrom4(a.Addr), mtu, nil
	case *unix.SockaddrInet6:
		return netip.AddrFrom16(a.Addr), mtu, nil
	}
	return netip.Addr{}, 0, unix.EAFNOSUPPORT
}

// Close ends the Router.
func (r *Router) Close() error {
	err := unix.Close(r.v4)
	if r.v6 >= 0 {
		err = errors.Join(err, unix.Close(r.v6))
	}
	if r.neighbours != nil {
		err = errors.Join(err, r.neighbours.close())
	}
	return err
}
