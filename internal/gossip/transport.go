package gossip

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// dialTimeout leaves time to send the SYN three times.
	dialTimeout = 4 * time.Second
	// maxStreams bounds the streams that are open at once, either way.
	maxStreams = 256
	// bindAttempts is how often a port is tried that the kernel chose for TCP
	// and that must be free for UDP too.
	bindAttempts = 10
)

// transport is memberlist's own, held to what Run promises: dials end with the
// context, no stream outlives Shutdown, and who may open one is checked before
// a byte of it is read. (memberlist checks the sources of packets only.)
type transport struct {
	*memberlist.NetTransport
	ctx     context.Context // of Run; memberlist passes none to the methods below
	allowed []netip.Prefix
	streams chan net.Conn
	done    chan struct{} // closed when no more streams will come
	wg      sync.WaitGroup

	mu     sync.Mutex
	closed bool
	open   map[*stream]struct{}
}

// stream is a connection that the transport knows until it is closed.
type stream struct {
	net.Conn
	of *transport
}

// bind opens the sockets and starts to listen; Shutdown ends that.
func bind(ctx context.Context, at netip.AddrPort, allowed []netip.Prefix, logger *log.Logger) (network, error) {
	t, err := newTransport(ctx, at, allowed, logger)
	if err != nil {
		return nil, err // and not a network that is no transport
	}
	return t, nil
}

func newTransport(ctx context.Context, at netip.AddrPort, allowed []netip.Prefix, logger *log.Logger) (*transport, error) {
	attempts := 1
	if at.Port() == 0 {
		attempts = bindAttempts
	}
	var nt *memberlist.NetTransport
	var err error
	for range attempts {
		nt, err = memberlist.NewNetTransport(&memberlist.NetTransportConfig{
			BindAddrs: []string{at.Addr().String()}, BindPort: int(at.Port()), Logger: logger,
		})
		if err == nil {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("binding %v: %w", at, err)
	}
	t := &transport{
		NetTransport: nt, ctx: ctx, allowed: allowed,
		streams: make(chan net.Conn), done: make(chan struct{}), open: make(map[*stream]struct{}),
	}
	t.wg.Go(t.accept)
	t.wg.Go(t.breakOff)
	return t, nil
}

// breakOff closes the streams when the context ends: a join that waits for its
// peer's answer knows no other end than its timeout.
func (t *transport) breakOff() {
	select {
	case <-t.ctx.Done():
		t.closeStreams()
	case <-t.done:
	}
}

// accept passes on the streams that are welcome.
func (t *transport) accept() {
	for {
		select {
		case c := <-t.NetTransport.StreamCh():
			if !t.welcome(c.RemoteAddr()) {
				c.Close()
			} else if s, err := t.track(c); err == nil {
				select {
				case t.streams <- s:
				case <-t.done:
					s.Close()
				}
			}
		case <-t.done:
			return
		}
	}
}

func (t *transport) welcome(from net.Addr) bool {
	if len(t.allowed) == 0 {
		return true
	}
	a, err := netip.ParseAddrPort(from.String())
	return err == nil && contains(t.allowed, a.Addr())
}

// StreamCh implements memberlist.Transport.
func (t *transport) StreamCh() <-chan net.Conn { return t.streams }

// DialTimeout implements memberlist.Transport.
func (t *transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	d := net.Dialer{Timeout: min(timeout, dialTimeout)}
	c, err := d.DialContext(t.ctx, "tcp", addr)
	if err != nil {
		return nil, err // memberlist looks for a bare *net.OpError
	}
	return t.track(c)
}

// DialAddressTimeout implements memberlist.NodeAwareTransport.
func (t *transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return t.DialTimeout(a.Addr, timeout)
}

// Shutdown implements memberlist.Transport. It may be called more than once.
func (t *transport) Shutdown() error {
	t.mu.Lock()
	first := !t.closed
	t.closed = true
	t.mu.Unlock()
	if first {
		t.wg.Go(t.drain)
	}
	err := t.NetTransport.Shutdown()
	if first {
		close(t.done)
	}
	t.wg.Wait()
	t.closeStreams()
	return err
}

// drain takes what the listeners hold when nobody else does: they cannot end before.
func (t *transport) drain() {
	for {
		select {
		case <-t.PacketCh():
		case c := <-t.streams:
			c.Close()
		case <-t.done:
			return
		}
	}
}

// closeStreams breaks off every stream that is open.
func (t *transport) closeStreams() {
	t.mu.Lock()
	open := t.open
	t.open = make(map[*stream]struct{})
	t.mu.Unlock()
	for s := range open {
		s.Conn.Close()
	}
}

// track takes c over: it returns it as a stream, or closes it.
func (t *transport) track(c net.Conn) (net.Conn, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var err error
	switch {
	case t.closed, t.ctx.Err() != nil: // breakOff, which needs the lock, would not see it
		err = net.ErrClosed
	case len(t.open) >= maxStreams:
		err = fmt.Errorf("%d gossip streams are open; that is the most", maxStreams)
	default:
		s := &stream{c, t}
		t.open[s] = struct{}{}
		return s, nil
	}
	return nil, errors.Join(err, c.Close())
}

// Close implements net.Conn.
func (s *stream) Close() error {
	s.of.mu.Lock()
	delete(s.of.open, s)
	s.of.mu.Unlock()
	return s.Conn.Close()
}

func contains(prefixes []netip.Prefix, a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}
