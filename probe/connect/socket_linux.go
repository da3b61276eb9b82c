//go:build !386 && !s390x

// On 386 and s390x package syscall has no getsockopt for TCP_INFO.

package connect

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"github.com/synmesh/synmesh/probe"
)

// nativeStamp is where round trips are measured if all goes well.
const nativeStamp = probe.StampTCPInfo

// What package syscall does not have.
const (
	bindAddressNoPort = 24 // IP_BIND_ADDRESS_NO_PORT
	tcpSynSent        = 2
	tcpClose          = 7
)

// checkSending finds nothing: Linux can do all that is asked.
func checkSending(*probe.Sending) error { return nil }

// conn is a connection that the kernel is asked to make. The socket is
// non-blocking, and waited for by the runtime's poller.
type conn struct {
	file   *os.File
	raw    syscall.RawConn
	called time.Time
	limit  time.Duration
	local  uint16
	v6     bool
}

// maxSelf is how often in a row a connection to itself is taken for bad luck.
const maxSelf = 8

// dial sends the SYN, whose answer is to be waited for until the limit.
func dial(remote netip.AddrPort, how *probe.Sending, limit time.Duration) (*conn, error) {
	for range maxSelf {
		c, self, err := dialOnce(remote, how, limit)
		if err != nil || !self {
			return c, err
		}
		// On its own host, a port that nobody listens on may get a SYN from
		// itself, which opens a connection (RFC 9293 section 3.5).
		defer c.file.Close() // so that the next has another port
	}
	return nil, fmt.Errorf("the kernel connects %s to itself", remote)
}

func dialOnce(remote netip.AddrPort, how *probe.Sending, limit time.Duration) (c *conn, self bool, err error) {
	to, err := sockaddr(remote)
	if err != nil {
		return nil, false, err
	}
	c = &conn{v6: remote.Addr().Is6(), limit: limit}
	domain := syscall.AF_INET
	if c.v6 {
		domain = syscall.AF_INET6
	}
	fd, err := syscall.Socket(domain, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, syscall.IPPROTO_TCP)
	if err != nil {
		return nil, false, fmt.Errorf("open a socket to %s: %w", remote.Addr(), err)
	}
	if err := c.prepare(fd, how); err != nil {
		return nil, false, errors.Join(err, syscall.Close(fd))
	}
	c.called = time.Now()
	if err := syscall.Connect(fd, to); err != nil && err != syscall.EINPROGRESS {
		return nil, false, errors.Join(connectError(remote, err), syscall.Close(fd))
	}
	local, err := localOf(fd)
	if err != nil {
		return nil, false, errors.Join(err, syscall.Close(fd))
	}
	c.local = local.Port()
	c.file = os.NewFile(uintptr(fd), "connection")
	if c.raw, err = c.file.SyscallConn(); err == nil {
		err = c.file.SetWriteDeadline(c.called.Add(limit))
	}
	if err != nil {
		return nil, false, errors.Join(fmt.Errorf("wait for a connection: %w", err), c.file.Close())
	}
	return c, local == remote, nil
}

// connectError is about a SYN that was not sent.
func connectError(remote netip.AddrPort, err error) error {
	switch err {
	case syscall.ENETUNREACH, syscall.EHOSTUNREACH:
		return fmt.Errorf("no route from this host to %s (%w)", remote.Addr(), err)
	case syscall.EADDRNOTAVAIL:
		return fmt.Errorf("no source port is left for %s, those of closed connections are kept for a minute; probe it less often, or in mode half-open (%w)", remote, err)
	}
	return fmt.Errorf("connect to %s: %w", remote, err)
}

// prepare sets what has to be so before the SYN leaves.
func (c *conn) prepare(fd int, how *probe.Sending) error {
	level, recvErr, tos, hops := syscall.IPPROTO_IP, syscall.IP_RECVERR, syscall.IP_TOS, syscall.IP_TTL
	if c.v6 {
		level, recvErr, tos, hops = syscall.IPPROTO_IPV6, syscall.IPV6_RECVERR, syscall.IPV6_TCLASS, syscall.IPV6_UNICAST_HOPS
	}
	if err := syscall.SetsockoptInt(fd, level, recvErr, 1); err != nil {
		return fmt.Errorf("have ICMP errors queued: %w", err)
	}
	// Should this process be stopped, the kernel is not to go on for minutes.
	if err := syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_SYNCNT, 1); err != nil {
		return fmt.Errorf("bound the number of SYNs: %w", err)
	}
	if how.Interface != "" {
		if err := syscall.SetsockoptString(fd, syscall.SOL_SOCKET, syscall.SO_BINDTODEVICE, how.Interface); err != nil {
			return fmt.Errorf("interface %q: %w", how.Interface, err)
		}
	}
	if how.DSCP != 0 {
		if err := syscall.SetsockoptInt(fd, level, tos, int(how.DSCP)<<2); err != nil {
			return fmt.Errorf("DSCP %d: %w", how.DSCP, err)
		}
	}
	if how.TTL != 0 {
		if err := syscall.SetsockoptInt(fd, level, hops, int(how.TTL)); err != nil {
			return fmt.Errorf("TTL %d: %w", how.TTL, err)
		}
	}
	if how.Source.IsValid() {
		return c.bind(fd, how.Source)
	}
	return nil
}

func (c *conn) bind(fd int, source netip.Addr) error {
	source = source.Unmap()
	if source.Is6() != c.v6 {
		return fmt.Errorf("the source %s and the target are of different IP versions", source)
	}
	// The port is then chosen with the target known, of which there are more.
	// Without it there are fewer, and that is all.
	_ = syscall.SetsockoptInt(fd, syscall.IPPROTO_IP, bindAddressNoPort, 1)
	from, err := sockaddr(netip.AddrPortFrom(source, 0))
	if err == nil {
		err = syscall.Bind(fd, from)
	}
	if err != nil {
		return fmt.Errorf("send from %s: %w", source, err)
	}
	return nil
}

// wait returns what came of the SYN, and closes the connection.
func (c *conn) wait() (d found) {
	known := false
	look := func(fd uintptr) bool {
		d, known = c.look(int(fd))
		return known
	}
	err := c.raw.Write(look)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		// On a busy host, an answer may have come that nobody has looked at.
		// The kernel's round trip tells whether that was in time.
		err = c.raw.Control(func(fd uintptr) { look(fd) })
		if !known || d.stamp == probe.StampTCPInfo && d.rtt > c.limit {
			d = found{outcome: probe.Timeout, elapsed: d.elapsed, syns: d.syns}
		}
	}
	if err = errors.Join(err, c.file.Close()); err != nil && d.err == nil {
		d = found{outcome: probe.Error, elapsed: d.elapsed, syns: max(1, d.syns), err: fmt.Errorf("wait for an answer: %w", err)}
	}
	return d
}

// abandon has wait return at once. The connection is closed by then, or about to be.
func (c *conn) abandon() {
	_ = c.file.SetWriteDeadline(time.Unix(0, 0)) // fails if it is closed, which is as well
}

// look tells what has become of the SYN, or false if nothing has yet.
func (c *conn) look(fd int) (d found, known bool) {
	d = found{outcome: probe.Error, elapsed: time.Since(c.called)}
	info, err := tcpInfo(fd)
	if err != nil {
		d.syns, d.err = 1, err
		return d, true
	}
	d.syns = 1 + int(info.Total_retrans)
	// A connection that was open may be closed again by now, even by a RST:
	// what tells is whether there was a round trip.
	if info.Rtt > 0 || info.State != tcpSynSent && info.State != tcpClose {
		d.outcome, d.stamp, d.rtt = probe.Open, probe.StampTCPInfo, time.Duration(info.Rtt)*time.Microsecond
		if info.Rtt == 0 && d.syns == 1 {
			d.outcome, d.err = probe.Error, errors.New("the connection was opened, but the kernel has not measured its round trip")
		}
		return d, true
	}
	// An ICMP error may be here without having ended the connection: one that
	// came while connect() was at work does not.
	if d.icmp, err = icmpError(fd); err != nil {
		d.err = err
		return d, true
	}
	if d.icmp != nil {
		d.outcome = probe.Unreachable
		return d, true
	}
	if info.State == tcpSynSent {
		return d, false
	}
	failed, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_ERROR)
	switch why := syscall.Errno(failed); {
	case err != nil:
		d.err = fmt.Errorf("read the socket's error: %w", err)
	case why == syscall.ECONNREFUSED:
		d.outcome, d.stamp, d.rtt = probe.Closed, probe.StampUser, d.elapsed
	case why == syscall.ETIMEDOUT:
		d.outcome = probe.Timeout
	case why == 0:
		d.err = errors.New("the connection ended, and the kernel does not tell why")
	default:
		d.err = fmt.Errorf("the connection failed, and the kernel does not tell who said so: %w", why)
	}
	return d, true
}

// tcpInfo reads what the kernel knows of a connection (tcp(7)).
func tcpInfo(fd int) (*syscall.TCPInfo, error) {
	var info syscall.TCPInfo
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := syscall.Syscall6(syscall.SYS_GETSOCKOPT, uintptr(fd), syscall.IPPROTO_TCP, syscall.TCP_INFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	switch {
	case errno != 0:
		return nil, fmt.Errorf("read TCP_INFO: %w", errno)
	case uintptr(size) < unsafe.Sizeof(info):
		return nil, fmt.Errorf("this kernel's TCP_INFO has %d bytes, which is too short", size)
	}
	return &info, nil
}

func localOf(fd int) (netip.AddrPort, error) {
	sa, err := syscall.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("read the source port: %w", err)
	}
	switch a := sa.(type) {
	case *syscall.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)), nil
	case *syscall.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port)), nil
	}
	return netip.AddrPort{}, errors.New("read the source port: the socket has no IP address")
}

func sockaddr(a netip.AddrPort) (syscall.Sockaddr, error) {
	if a.Addr().Is4() {
		return &syscall.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}, nil
	}
	scope, err := scopeOf(a.Addr())
	return &syscall.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16(), ZoneId: scope}, err
}

// scopeOf is the number of the interface that a zone names (RFC 4007 section 11.2).
func scopeOf(a netip.Addr) (uint32, error) {
	if a.Zone() == "" {
		return 0, nil
	}
	if n, err := strconv.ParseUint(a.Zone(), 10, 32); err == nil {
		return uint32(n), nil
	}
	i, err := net.InterfaceByName(a.Zone())
	if err != nil {
		return 0, fmt.Errorf("zone %q of %s: %w", a.Zone(), a, err)
	}
	return uint32(i.Index), nil
}
