package rawsock

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Sender sends TCP segments of one IP version and gives back the times at
// which they left. It never receives.
type Sender struct {
	fd   int
	send sync.Mutex // guards out
	out  *outbox
	read sync.Mutex // guards in
	in   *inbox
}

// The kernel keeps every stamp with its packet (about 1 KiB) until it is read; what does
// not fit is lost without a word.
const stampBuffer = 8 << 20

// OpenSender opens a raw socket for IPv4 or IPv6. With stamped, the kernel
// notes when each segment is handed to the device; see Stamps.
func OpenSender(v6, stamped bool) (*Sender, error) {
	domain, name := unix.AF_INET, "IPv4"
	if v6 {
		domain, name = unix.AF_INET6, "IPv6"
	}
	fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return nil, fmt.Errorf("open raw %s socket: %w", name, permission(err))
	}
	s := &Sender{fd: fd, out: newOutbox(v6), in: newInbox(512)}
	if err := s.configure(v6, stamped); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("configure raw %s socket: %w", name, err)
	}
	return s, nil
}

func (s *Sender) configure(v6, stamped bool) error {
	// A raw socket gets a copy of every TCP segment of the host: drop them all,
	// and those that came before the filter.
	err := attachFilter(s.fd, dropAll)
	if err != nil {
		return err
	}
	for {
		if _, err := s.in.receive(s.fd, 0); err != nil {
			break
		}
	}
	if v6 {
		err = unix.SetsockoptInt(s.fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO)
	} else { // sets DF, as TCP does
		err = unix.SetsockoptInt(s.fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
	}
	if err != nil {
		return os.NewSyscallError("setsockopt MTU_DISCOVER", err)
	}
	// Send waits where the device's queue is full, but not for ever.
	if err := unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: 1}); err != nil {
		return os.NewSyscallError("setsockopt SO_SNDTIMEO", err)
	}
	if !stamped {
		return nil
	}
	growBuffer(s.fd, stampBuffer)
	return wantStamps(s.fd, sentStamps)
}

// Send hands the datagrams to the kernel, in order, and returns how many it
// took. If that is not all, err says what was wrong with the next one; the
// ones after it were not tried. It is safe for concurrent use.
func (s *Sender) Send(ds []Datagram) (sent int, err error) {
	s.send.Lock()
	defer s.send.Unlock()
	for sent < len(ds) {
		batch := ds[sent:min(sent+batchLen, len(ds))]
		for i := range batch {
			scope, err := scopeOf(batch[i].Dst)
			if err != nil {
				batch = batch[:i]
				if i == 0 {
					return sent, err
				}
				break
			}
			s.out.put(i, &batch[i], scope)
		}
		n, err := sendmmsg(s.fd, s.out.msgs[:len(batch)])
		if err != nil {
			return sent, sendError(err, &batch[0])
		}
		sent += n
	}
	return sent, nil
}

// Stamps hands over the stamps that are waiting, without waiting for more: the
// kernel's in nanoseconds since 1970, the device's in nanoseconds of its own
// clock, 0 for the one that is not told, and the packet as it left, from a link
// header of unknown length to its last byte. It is safe for concurrent use.
func (s *Sender) Stamps(fn func(stamp, hardware int64, packet []byte)) error {
	s.read.Lock()
	defer s.read.Unlock()
	for n := batchLen; n == batchLen; {
		var err error
		if n, err = s.in.receive(s.fd, unix.MSG_ERRQUEUE); err != nil {
			if errors.Is(err, unix.EAGAIN) {
				return nil
			}
			return fmt.Errorf("read transmit stamps: %w", err)
		}
		for i := range n {
			packet, control := s.in.message(i)
			if at, hardware := stampsOf(control); at != 0 || hardware != 0 {
				fn(at, hardware, packet)
			}
		}
	}
	return nil
}

// Close ends the socket. Send and Stamps must have returned, and not be called again.
func (s *Sender) Close() error { return unix.Close(s.fd) }

func scopeOf(a netip.Addr) (uint32, error) {
	if a.Zone() == "" {
		return 0, nil
	}
	i, err := net.InterfaceByName(a.Zone())
	if err != nil {
		return 0, fmt.Errorf("no interface %q for %s", a.Zone(), a)
	}
	return uint32(i.Index), nil
}

// sendError puts the usual refusals of a datagram into words.
func sendError(err error, d *Datagram) error {
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("a firewall of this host refused the SYN (%w)", err)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("the source address %s is no longer this host's (%w)", d.Src, err)
	case errors.Is(err, unix.ENETUNREACH): // IPv4 says this of a foreign source, too
		return fmt.Errorf("no route to %s, or the source address %s is no longer this host's (%w)", d.Dst, d.Src, err)
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOBUFS):
		return fmt.Errorf("the send queue of this host is full (%w)", err)
	}
	return err
}

// permission names the capability that is missing.
func permission(err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return fmt.Errorf("%w (%w)", ErrPermission, err)
	}
	return err
}

// growBuffer asks for a receive buffer, past the system's bound if we may.
func growBuffer(fd, size int) {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, size) != nil {
		// Less is granted silently; what is then lost is counted as drops.
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, size)
	}
}

// dropAll is a filter that returns 0 for every packet.
var dropAll = []bpf.RawInstruction{{Op: unix.BPF_RET | unix.BPF_K}}

func attachFilter(fd int, filter []bpf.RawInstruction) error {
	prog := make([]unix.SockFilter, len(filter))
	for i, ins := range filter {
		prog[i] = unix.SockFilter{Code: ins.Op, Jt: ins.Jt, Jf: ins.Jf, K: ins.K}
	}
	fprog := &unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	return os.NewSyscallError("setsockopt SO_ATTACH_FILTER", unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, fprog))
}
