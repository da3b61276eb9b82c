package gossip

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"
)

// testTransport returns a transport that the test shuts down, and its address.
func testTransport(t *testing.T, ctx context.Context, allowed ...netip.Prefix) (*transport, string) {
	t.Helper()
	tr, err := newTransport(ctx, loopback, allowed, log.New(discard{}, "", 0))
	if err != nil {
		t.Fatal(err)
	}
	return tr, netip.AddrPortFrom(loopback.Addr(), uint16(tr.GetAutoBindPort())).String()
}

func TestStreamsFromOutsideTheAllowedNetworksAreClosed(t *testing.T) {
	tr, addr := testTransport(t, t.Context(), netip.MustParsePrefix("127.0.0.1/32"))
	defer tr.Shutdown()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	outside, err := d.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer outside.Close()
	if err := read(outside); !errors.Is(err, io.EOF) {
		t.Errorf("reading from outside: %v, want the end", err)
	}
	inside, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	select {
	case c := <-tr.StreamCh():
		if got, want := c.RemoteAddr().String(), inside.LocalAddr().String(); got != want {
			t.Errorf("the stream is from %s, want %s", got, want)
		}
	case <-soon(t).Done():
		t.Error("a stream from inside was not passed on")
	}
}

func TestShutdownEndsThoughNobodyListens(t *testing.T) {
	tr, addr := testTransport(t, t.Context())
	for range 3 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		p, err := net.Dial("udp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		if _, err := p.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	ended := make(chan struct{})
	go func() { tr.Shutdown(); tr.Shutdown(); close(ended) }()
	within(t, "Shutdown", ended)
}

func TestStreamsEndWithTheContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	tr, addr := testTransport(t, ctx)
	defer tr.Shutdown()
	out, err := tr.DialTimeout(addr, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := read(out); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the stream lives on: %v", err)
	}
	if c, err := tr.DialTimeout(addr, time.Second); err == nil || c != nil {
		t.Errorf("a new one was dialled: %v, %v", c, err)
	}
}

func TestStreamsBeyondTheMostAreRefused(t *testing.T) {
	tr, addr := testTransport(t, t.Context())
	defer tr.Shutdown()
	tr.mu.Lock()
	for range maxStreams {
		tr.open[&stream{Conn: nowhere{}, of: tr}] = struct{}{}
	}
	tr.mu.Unlock()
	if c, err := tr.DialTimeout(addr, time.Second); err == nil || c != nil {
		t.Errorf("one more was dialled: %v, %v", c, err)
	}
	in, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if err := read(in); !errors.Is(err, io.EOF) {
		t.Errorf("reading: %v, want the end", err)
	}
}

// read waits for something, but not for ever.
func read(c net.Conn) error {
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	_, err := c.Read(make([]byte, 1))
	return err
}

// nowhere is a connection that can be closed and nothing else.
type nowhere struct{ net.Conn }

func (nowhere) Close() error { return nil }
