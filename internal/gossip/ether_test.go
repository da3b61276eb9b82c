package gossip

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// ether is a network in memory, so that a test can live through minutes in no
// time (testing/synctest).
type ether struct {
	mu    sync.Mutex
	ports map[string]*port
}

// port is one address of it.
type port struct {
	of      *ether
	at      netip.AddrPort
	packets chan *memberlist.Packet
	streams chan net.Conn
}

// bind stands in for the package's own: each is at the address it asks for.
func (e *ether) bind(_ context.Context, at netip.AddrPort, _ []netip.Prefix, _ *log.Logger) (network, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ports == nil {
		e.ports = make(map[string]*port)
	}
	if e.ports[at.String()] != nil {
		return nil, fmt.Errorf("%v is taken", at)
	}
	p := &port{e, at, make(chan *memberlist.Packet, 1024), make(chan net.Conn, 64)}
	e.ports[at.String()] = p
	return p, nil
}

func (e *ether) port(addr string) *port {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.ports[addr]
}

// send hands a packet over. Like UDP it tells nobody that it could not.
func (e *ether) send(b []byte, from netip.AddrPort, to string) {
	p := e.port(to)
	if p == nil {
		return
	}
	select {
	case p.packets <- &memberlist.Packet{Buf: append([]byte(nil), b...), From: net.UDPAddrFromAddrPort(from), Timestamp: time.Now()}:
	default:
	}
}

func (p *port) GetAutoBindPort() int { return int(p.at.Port()) }

func (p *port) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return p.at.Addr().AsSlice(), int(p.at.Port()), nil
}

func (p *port) WriteTo(b []byte, to string) (time.Time, error) {
	p.of.send(b, p.at, to)
	return time.Now(), nil
}

func (p *port) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	return p.WriteTo(b, a.Addr)
}

func (p *port) DialTimeout(to string, _ time.Duration) (net.Conn, error) {
	other := p.of.port(to)
	if other == nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
	}
	here, there := net.Pipe()
	select {
	case other.streams <- there:
		return here, nil
	default:
		return nil, errors.Join(errors.New("too many streams"), here.Close(), there.Close())
	}
}

func (p *port) DialAddressTimeout(a memberlist.Address, d time.Duration) (net.Conn, error) {
	return p.DialTimeout(a.Addr, d)
}

func (p *port) PacketCh() <-chan *memberlist.Packet { return p.packets }

func (p *port) StreamCh() <-chan net.Conn { return p.streams }

func (p *port) Shutdown() error {
	p.of.mu.Lock()
	defer p.of.mu.Unlock()
	delete(p.of.ports, p.at.String())
	return nil
}
