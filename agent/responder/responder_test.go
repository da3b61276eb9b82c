package responder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func listen(t *testing.T) *Responder {
	t.Helper()
	r, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func address(r *Responder) string { return fmt.Sprintf("127.0.0.1:%d", r.Port()) }

func TestRunAcceptsAndClosesAtOnce(t *testing.T) {
	r := listen(t)
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- r.Run(ctx) }()
	for range 20 {
		c, err := net.Dial("tcp", address(r))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("read %d bytes and %v, want the end at once", n, err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	cancel()
	if err := <-ran; err != nil {
		t.Errorf("Run: %v", err)
	}
	if c, err := net.Dial("tcp", address(r)); err == nil {
		c.Close()
		t.Error("the port is still open after Run")
	}
}

func TestHandshakesEndInTheKernel(t *testing.T) {
	r := listen(t) // and nobody accepts
	c, err := net.Dial("tcp", address(r))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.Close(), r.Close()); err != nil {
		t.Error(err)
	}
}

func TestListenSaysWhichPortIsTaken(t *testing.T) {
	r := listen(t)
	defer r.Close()
	_, err := Listen(address(r))
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "responder: ") || !strings.Contains(err.Error(), address(r)) {
		t.Errorf("got %v, want that the responder's %s is in use", err, address(r))
	}
}

func TestRunSaysWhenSomebodyElseClosedThePort(t *testing.T) {
	r := listen(t)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := r.Run(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v, want net.ErrClosed", err)
	}
}
