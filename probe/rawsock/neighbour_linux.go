package rawsock

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// neighbours asks the kernel for routes and for neighbours (rtnetlink(7)). Anybody may.
type neighbours struct {
	fd    int
	seq   uint32
	reply [4096]byte
}

func openNeighbours() (*neighbours, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	return &neighbours{fd: fd}, nil
}

// hop is where a packet goes first.
type hop struct {
	local   bool       // it stays on this host
	gateway netip.Addr // not valid where the destination itself is the neighbour
	device  uint32
}

// Neighbour tells whether the kernel knows the link-layer address that a packet
// from src to dst would be sent to first, so that it could leave at once. Device is the
// index of the one to leave by; 0 leaves it to the routes. It is safe for concurrent use.
func (r *Router) Neighbour(src, dst netip.Addr, device uint32) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	known, err := r.neighbour(src, dst, device)
	if err != nil {
		return false, fmt.Errorf("look for the neighbour on the way to %s: %w", dst, err)
	}
	return known, nil
}

func (r *Router) neighbour(src, dst netip.Addr, device uint32) (bool, error) {
	if r.neighbours == nil {
		return false, errors.ErrUnsupported
	}
	if scope, err := scopeOf(dst); err != nil {
		return false, err
	} else if device == 0 {
		device = scope
	}
	dst = dst.WithZone("")
	h, err := r.neighbours.route(src, dst, device)
	if err != nil || h.local {
		return h.local, err
	}
	if plain, err := r.withoutNeighbours(h.device); err != nil || plain {
		return plain, err
	}
	if h.gateway.IsValid() {
		dst = h.gateway
	}
	state, err := r.neighbours.state(dst, h.device)
	return state&neighbourKnown != 0, err
}

// neighbourKnown are the states in which the kernel sends at once (NUD_VALID).
const neighbourKnown = unix.NUD_PERMANENT | unix.NUD_NOARP | unix.NUD_REACHABLE | unix.NUD_PROBE | unix.NUD_STALE | unix.NUD_DELAY

// withoutNeighbours tells whether the device, such as a tunnel, has nobody to look for.
func (r *Router) withoutNeighbours(device uint32) (bool, error) {
	req, err := unix.NewIfreq("")
	if err != nil {
		return false, err
	}
	req.SetUint32(device)
	if err := unix.IoctlIfreq(r.v4, unix.SIOCGIFNAME, req); err != nil {
		return false, os.NewSyscallError("ioctl SIOCGIFNAME", err)
	}
	if err := unix.IoctlIfreq(r.v4, unix.SIOCGIFFLAGS, req); err != nil {
		return false, os.NewSyscallError("ioctl SIOCGIFFLAGS", err)
	}
	return req.Uint16()&(unix.IFF_NOARP|unix.IFF_LOOPBACK|unix.IFF_POINTOPOINT) != 0, nil
}

// route asks where packets from src to dst go.
func (n *neighbours) route(src, dst netip.Addr, device uint32) (hop, error) {
	family, bits := familyOf(dst)
	m := []byte{family, byte(bits), byte(bits), 0, 0, 0, 0, 0, 0, 0, 0, 0} // struct rtmsg
	m = appendAttribute(m, unix.RTA_DST, dst.AsSlice())
	m = appendAttribute(m, unix.RTA_SRC, src.AsSlice())
	if device != 0 {
		m = appendAttribute(m, unix.RTA_OIF, binary.NativeEndian.AppendUint32(nil, device))
	}
	body, err := n.ask(unix.RTM_GETROUTE, unix.RTM_NEWROUTE, m)
	if err != nil {
		return hop{}, err
	}
	return parseRoute(body)
}

// state asks for the state of a neighbour, which is 0 if there is none.
func (n *neighbours) state(addr netip.Addr, device uint32) (uint16, error) {
	family, _ := familyOf(addr)
	m := binary.NativeEndian.AppendUint32([]byte{family, 0, 0, 0}, device) // struct ndmsg
	m = appendAttribute(append(m, 0, 0, 0, 0), unix.NDA_DST, addr.AsSlice())
	body, err := n.ask(unix.RTM_GETNEIGH, unix.RTM_NEWNEIGH, m)
	if errors.Is(err, unix.ENOENT) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return parseNeighbour(body)
}

// ask sends a request and returns the body of its answer, which is valid until
// the next. The kernel has answered by the time that it has taken the request.
func (n *neighbours) ask(kind, want uint16, body []byte) ([]byte, error) {
	n.seq++
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+len(body)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST)
	b = binary.NativeEndian.AppendUint32(b, n.seq)
	b = append(append(b, 0, 0, 0, 0), body...)
	if err := unix.Sendto(n.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, os.NewSyscallError("sendto", err)
	}
	size, _, err := unix.Recvfrom(n.fd, n.reply[:], unix.MSG_DONTWAIT)
	if err != nil {
		return nil, os.NewSyscallError("recvfrom", err)
	}
	return parseReply(n.reply[:size], want, n.seq)
}

func (n *neighbours) close() error { return unix.Close(n.fd) }

func familyOf(a netip.Addr) (family uint8, bits int) {
	if a.Is4() {
		return unix.AF_INET, 32
	}
	return unix.AF_INET6, 128
}
