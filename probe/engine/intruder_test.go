//go:build linux

package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/probe/rawsock"
)

// intruders are what another process may do with a port within our range.
func intruders(t *testing.T, n network) map[string]func(port uint16) (io.Closer, error) {
	listen := func(network, host string, options ...int) func(uint16) (io.Closer, error) {
		return func(port uint16) (io.Closer, error) {
			c := net.ListenConfig{Control: reusing(options)}
			return c.Listen(context.Background(), network, net.JoinHostPort(host, fmt.Sprint(port)))
		}
	}
	connect := func(from, to string) func(uint16) (io.Closer, error) {
		return func(port uint16) (io.Closer, error) {
			local := &net.TCPAddr{IP: net.ParseIP(from), Port: int(port)}
			return (&net.Dialer{LocalAddr: local}).Dial("tcp", net.JoinHostPort(to, "444"))
		}
	}
	return map[string]func(uint16) (io.Closer, error){
		"listens on every address":     listen("tcp", ""),
		"listens on IPv4":              listen("tcp4", "0.0.0.0"),
		"listens on IPv6":              listen("tcp6", "::"),
		"listens on one address":       listen("tcp4", "127.0.0.1"),
		"shares addresses":             listen("tcp", "", unix.SO_REUSEADDR),
		"shares addresses and ports":   listen("tcp", "", unix.SO_REUSEADDR, unix.SO_REUSEPORT),
		"connects from there, by IPv4": connect(n.from.Addr4().String(), n.to.Addr4().String()),
		"connects from there, by IPv6": connect(n.from.Addr6().String(), n.to.Addr6().String()),
	}
}

// reusing sets options of a socket before it is bound.
func reusing(options []int) func(string, string, syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) (err error) {
		failed := c.Control(func(fd uintptr) {
			for _, o := range options {
				err = errors.Join(err, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, o, 1))
			}
		})
		return errors.Join(failed, err)
	}
}

func TestAnotherProcessWithinTheRangeIsPassedOverOrRefused(t *testing.T) {
	n := twoHosts(t)
	listenOn(t, n.to, "tcp", ":443")
	listenOn(t, n.to, "tcp", ":444") // for the other process: a connection of its own is none of ours
	s := spec(t, 2, n.to.Addr4().String()+":443", "["+n.to.Addr6().String()+"]:443")
	for name, intrude := range intruders(t, n) {
		t.Run(name, func(t *testing.T) {
			inside(t, n.from, func() {
				e := start(t, Config{Ports: rawsock.PortRange{First: 61000, Last: 61001}})
				intruder, err := intrude(61000)
				must(t, err)
				for _, r := range do(t, e, s) {
					if r.Outcome != probe.Open || r.LocalPort != 61001 {
						t.Errorf("%v %q from port %d, want open from 61001", r.Outcome, r.Err, r.LocalPort)
					}
				}
				both := s
				both.Flows = 2
				err = e.Do(context.Background(), both, func(*probe.Result) { t.Error("a result") })
				if err == nil || !strings.Contains(err.Error(), "2 source ports are wanted, and only 1 of 61000-61001 are free") {
					t.Errorf("Do: %v", err)
				}
				must(t, intruder.Close())
				for _, mode := range []probe.Mode{probe.HalfOpen, probe.Full} {
					s := s
					s.Mode, s.Count = mode, 1
					refused := 0
					must(t, e.Do(context.Background(), s, func(r *probe.Result) {
						if r.Outcome != probe.Open {
							t.Errorf("mode %v: %v %q", mode, r.Outcome, r.Err)
						}
						intruder, err := intrude(r.LocalPort)
						if errors.Is(err, unix.EADDRINUSE) {
							refused++
						} else {
							t.Errorf("mode %v: the other process gets our port %d: %v", mode, r.LocalPort, err)
						}
						if err == nil {
							must(t, intruder.Close())
						}
					}))
					if refused != 2 {
						t.Errorf("mode %v: refused %d times, want 2", mode, refused)
					}
				}
			})
		})
	}
}
