package rawsock

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Guard keeps a source port for us on every address of the host: a TCP socket
// that is bound but does not listen. Nobody else gets the port, and the kernel answers a
// SYN-ACK to it with a RST, which is what ends a half-open handshake, even if we die.
type Guard struct {
	Port uint16
	fd   int
}

// HoldPort reserves the port. If somebody has it, the error wraps ErrPortInUse.
func HoldPort(port uint16) (*Guard, error) {
	fd, err := bindPort(unix.AF_INET6, &unix.SockaddrInet6{Port: int(port)})
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL) { // a host without IPv6
		fd, err = bindPort(unix.AF_INET, &unix.SockaddrInet4{Port: int(port)})
	}
	if errors.Is(err, unix.EADDRINUSE) {
		err = ErrPortInUse
	}
	if err != nil {
		return nil, fmt.Errorf("hold port %d: %w", port, err)
	}
	return &Guard{Port: port, fd: fd}, nil
}

func bindPort(domain int, sa unix.Sockaddr) (int, error) {
	fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return -1, err
	}
	if domain == unix.AF_INET6 { // IPv4 too
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0)
	}
	if err == nil {
		err = unix.Bind(fd, sa)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// Silence has the kernel swallow what comes to the port instead of answering
// with a RST: the socket listens, behind a filter that passes nothing. A Capture sees it all the
// same, so that whoever holds the Guard can answer.
func (g *Guard) Silence() error {
	if err := attachFilter(g.fd, dropAll); err != nil {
		return fmt.Errorf("silence port %d: %w", g.Port, err)
	}
	if err := unix.Listen(g.fd, 1); err != nil {
		return fmt.Errorf("silence port %d: %w", g.Port, os.NewSyscallError("listen", err))
	}
	return nil
}

// Close gives the port back.
func (g *Guard) Close() error { return unix.Close(g.fd) }
