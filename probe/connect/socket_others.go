//go:build !linux || 386 || s390x

package connect

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"syscall"
	"time"

	"github.com/synmesh/synmesh/probe"
)

// nativeStamp is where round trips are measured if all goes well.
const nativeStamp = probe.StampUser

func checkSending(s *probe.Sending) error {
	if s.Interface != "" || s.DSCP != 0 || s.TTL != 0 {
		return fmt.Errorf("mode connect cannot choose interface, DSCP or TTL on %s/%s", runtime.GOOS, runtime.GOARCH)
	}
	return nil
}

// conn is a connection that the system is asked to make.
type conn struct {
	remote netip.AddrPort
	source netip.Addr
	called time.Time
	local  uint16 // of a connection that was opened
	ctx    context.Context
	cancel context.CancelFunc
}

// dial prepares a connection, whose SYN leaves when it is waited for: at once.
func dial(remote netip.AddrPort, how *probe.Sending, limit time.Duration) (*conn, error) {
	source := how.Source.Unmap()
	if source.IsValid() && source.Is6() != remote.Addr().Is6() {
		return nil, fmt.Errorf("the source %s and the target are of different IP versions", source)
	}
	c := &conn{remote: remote, source: source, called: time.Now()}
	c.ctx, c.cancel = context.WithDeadline(context.Background(), c.called.Add(limit))
	return c, nil
}

// wait returns what came of the SYN, and closes the connection.
func (c *conn) wait() found {
	defer c.cancel()
	d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error { return once(raw) }, KeepAlive: -1}
	if c.source.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(c.source, 0))
	}
	c.called = time.Now()
	opened, err := d.DialContext(c.ctx, "tcp", c.remote.String())
	elapsed := time.Since(c.called)
	if err == nil {
		c.local = opened.LocalAddr().(*net.TCPAddr).AddrPort().Port()
		err = opened.Close()
	}
	return judge(elapsed, err)
}

// judge tells what a call of connect says that took so long.
func judge(elapsed time.Duration, err error) found {
	d := found{outcome: probe.Error, stamp: probe.StampUser, elapsed: elapsed, syns: 1}
	switch {
	case err == nil:
		d.outcome, d.rtt = probe.Open, elapsed
	case errors.Is(err, errRefused):
		d.outcome, d.rtt = probe.Closed, elapsed
	case errors.Is(err, errTimedOut), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		d.outcome = probe.Timeout
	default:
		d.err = err
	}
	if d.outcome.Answered() && elapsed > MaxWait {
		d.syns = 2 // or more, for all we know
	}
	return d
}

// abandon has wait return at once.
func (c *conn) abandon() { c.cancel() }
