package rawsock

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Router tells from which address and with which MTU the host reaches another,
// and whether it has to look for a neighbour first. It sends nothing: it
// connects sockets, which only looks up the route, and asks the kernel.
type Router struct {
	mu         sync.Mutex
	v4, v6     int
	neighbours *neighbours // nil where the kernel cannot be asked
}

// OpenRouter returns a Router for the thread's network namespace.
func OpenRouter() (*Router, error) {
	v4, err := routeSocket(unix.AF_INET)
	if err != nil {
		return nil, fmt.Errorf("open IPv4 socket: %w", err)
	}
	v6, err := routeSocket(unix.AF_INET6)
	if err != nil {
		v6 = -1 // a host without IPv6
	}
	r := &Router{v4: v4, v6: v6}
	if r.neighbours, err = openNeighbours(); err != nil {
		r.neighbours = nil // a sandbox may forbid it, and routes are known without
	}
	return r, nil
}

// routeSocket opens a socket to look up routes with: a raw one if we may, since
// for others the kernel looks for a free port each time.
func routeSocket(domain int) (int, error) {
	fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		fd, err = unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	}
	return fd, err
}

// discard is the port that sockets are connected to (RFC 863), in network
// order. Nothing is sent there.
var discard = binary.NativeEndian.Uint16([]byte{0, 9})

// Route returns the source address that the kernel would choose for dst, and
// the MTU of the path as far as it is known, in bytes. It is safe for concurrent use.
func (r *Router) Route(dst netip.Addr) (src netip.Addr, mtu int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if dst.Is4() {
		a := unix.RawSockaddrInet4{Family: unix.AF_INET, Port: discard, Addr: dst.As4()}
		mtu, err = route(r.v4, &a, unix.IPPROTO_IP, unix.IP_MTU)
		src = netip.AddrFrom4(a.Addr)
	} else {
		var scope uint32
		if scope, err = scopeOf(dst); err == nil {
			a := unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: discard, Addr: dst.As16(), Scope_id: scope}
			mtu, err = route(r.v6, &a, unix.IPPROTO_IPV6, unix.IPV6_MTU)
			src = netip.AddrFrom16(a.Addr)
		}
	}
	if err != nil {
		return netip.Addr{}, 0, fmt.Errorf("no route from this host to %s (%w)", dst, err)
	}
	return src, mtu, nil
}

// route connects the socket to an address, puts the one that it got itself in
// that one's place, and returns the MTU. None of the calls waits; see mmsg.
func route[A unix.RawSockaddrInet4 | unix.RawSockaddrInet6](fd int, addr *A, level, option int) (int, error) {
	if fd < 0 {
		return 0, unix.EAFNOSUPPORT
	}
	// A socket keeps its source while it is connected: part it first.
	nobody := unix.RawSockaddr{Family: unix.AF_UNSPEC}
	_, _, errno := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&nobody)), unsafe.Sizeof(nobody))
	if errno != 0 {
		return 0, errno
	}
	size := uint32(unsafe.Sizeof(*addr))
	_, _, errno = unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(addr)), uintptr(size))
	if errno != 0 {
		return 0, errno
	}
	var mtu int32
	length := uint32(unsafe.Sizeof(mtu))
	_, _, errno = unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option), uintptr(unsafe.Pointer(&mtu)), uintptr(unsafe.Pointer(&length)), 0)
	if errno != 0 {
		return 0, errno
	}
	_, _, errno = unix.RawSyscall(unix.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(addr)), uintptr(unsafe.Pointer(&size)))
	if errno != 0 {
		return 0, errno
	}
	return int(mtu), nil
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
