package identity

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// What a connection is good for whose certificate is not: to enrol, to renew, or to
// be told why not. gRPC takes a message in before anybody is asked whether the
// call is allowed, so there has to be a bound to what is taken.
const (
	strangerStay  = time.Minute
	strangerBytes = 64 << 10
	// maxStrangers is how many may be connected at once who never were of the fleet.
	maxStrangers = 500
)

var errStranger = errors.New("too much was said on a connection without a certificate of the fleet")

// stranger is the connection of somebody whose certificate is not good.
type stranger struct {
	net.Conn
	left  atomic.Int64 // bytes that are still read
	end   *time.Timer
	leave func()
}

// receive takes in the connection of somebody who is refused for a reason.
func (s *server) receive(conn net.Conn, why error) (net.Conn, error) {
	leave := func() {}
	if !errors.Is(why, ErrExpired) { // many agents may come to renew at once
		if s.strangers.Add(1) > maxStrangers {
			s.strangers.Add(-1)
			return nil, errors.Join(fmt.Errorf("%d connections have no certificate of the fleet, and that is the most", maxStrangers), conn.Close())
		}
		leave = sync.OnceFunc(func() { s.strangers.Add(-1) })
	}
	c := &stranger{Conn: conn, leave: leave}
	c.left.Store(strangerBytes)
	c.end = time.AfterFunc(strangerStay, func() { _ = conn.Close() })
	return c, nil
}

// Read implements net.Conn.
func (c *stranger) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.left.Add(int64(-n)) < 0 {
		return 0, errors.Join(errStranger, c.Close())
	}
	return n, err
}

// Close implements net.Conn.
func (c *stranger) Close() error {
	c.end.Stop()
	c.leave()
	return c.Conn.Close()
}
