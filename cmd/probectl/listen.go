package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/synmesh/synmesh/probe/rawsock"
)

const (
	maxOpen  = 256              // connections at a time; more wait to be accepted
	patience = 10 * time.Second // until we close a connection that the other end leaves open
)

func (a *app) listenCommand() *cobra.Command {
	address := ""
	c := &cobra.Command{
		Use:   "listen PORT",
		Short: "Be a target: accept connections and show them",
		Long: `listen accepts TCP connections on this host, reads nothing out of them, closes
them when the other end does, and shows each. As root, or with CAP_NET_RAW, it shows
handshakes as well that were never completed, such as those of probectl run. It
ends when it is interrupted.`,
		Example: `  probectl listen 7400
  probectl listen 7400 --address 127.0.0.1`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usage(errors.New("one port is wanted, as in probectl listen 7400"))
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			port, err := strconv.ParseUint(args[0], 10, 16)
			if err != nil || port == 0 {
				return usage(fmt.Errorf("port %q is not a number from 1 to 65535", args[0]))
			}
			var on netip.Addr
			if address != "" {
				if on, err = netip.ParseAddr(address); err != nil {
					return usage(fmt.Errorf("--address %q is no IP address of this host, such as 127.0.0.1 or ::1", address))
				}
			}
			return a.listen(c.Context(), on, uint16(port))
		},
	}
	c.Flags().StringVar(&address, "address", "", "address of this host to listen on (all)")
	return c
}

// listening is a listener and what it has seen.
type listening struct {
	app *app

	mu       sync.Mutex // guards the rest, and the output
	opened   int        // connections
	halfOpen int
	failed   error // of writing
}

func (a *app) listen(ctx context.Context, on netip.Addr, port uint16) error {
	host := ""
	if on.IsValid() {
		host = on.String()
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(int(port))))
	if err != nil {
		return err
	}
	s := &listening{app: a}
	watch, err := rawsock.OpenWatch(rawsock.PortRange{First: port, Last: port})
	if err != nil {
		fmt.Fprintln(a.err, "handshakes that are not completed are not shown:", err)
		watch = nil
	}
	fmt.Fprintf(a.err, "listening on %s; Ctrl-C ends it\n", l.Addr())
	g, running := errgroup.WithContext(ctx)
	g.Go(func() error { return s.accept(running, l) })
	if watch != nil {
		h := &halfOpens{to: s, port: port, on: on.Unmap().WithZone(""), under: make(map[netip.AddrPort]*attempt)}
		g.Go(func() error { return h.run(running, watch) })
	}
	err = g.Wait()
	if e := s.say("%d connections, %d half-open", s.opened, s.halfOpen); err == nil {
		err = e
	}
	if ctx.Err() != nil {
		return &exit{code: exitInterrupted}
	}
	return err
}

// accept serves connections until ctx ends, and waits for them.
func (s *listening) accept(ctx context.Context, l net.Listener) error {
	unhook := context.AfterFunc(ctx, func() { l.Close() })
	defer unhook()
	defer l.Close()
	var open errgroup.Group
	open.SetLimit(maxOpen)
	defer func() { _ = open.Wait() }() // it returns nil
	for {
		c, err := l.Accept()
		switch {
		case err == nil:
			open.Go(func() error { s.serve(ctx, c); return nil })
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		default: // out of file descriptors, say: that passes
			time.Sleep(10 * time.Millisecond)
		}
		s.mu.Lock()
		failed := s.failed
		s.mu.Unlock()
		if failed != nil {
			return failed
		}
	}
}

// serve waits for the other end to close the connection, and does so itself then.
func (s *listening) serve(ctx context.Context, c net.Conn) {
	began := time.Now()
	_ = c.SetReadDeadline(began.Add(patience)) // fails only if it is closed
	unhook := context.AfterFunc(ctx, func() { c.Close() })
	n, err := io.Copy(io.Discard, c)
	took := time.Since(began)
	unhook()
	_ = c.Close()
	how := "closed by the other end"
	switch {
	case ctx.Err() != nil:
		how = "closed by us, as we end"
	case errors.Is(err, syscall.ECONNRESET):
		how = "reset by the other end"
	case err != nil:
		how = fmt.Sprintf("closed by us after %v", patience)
	}
	if n > 0 {
		how += fmt.Sprintf(", %d bytes", n)
	}
	s.show(began, c.RemoteAddr().String(), "connection", took, how, &s.opened)
}

// show prints a line of what came, and counts it.
func (s *listening) show(began time.Time, remote, kind string, took time.Duration, how string, count *int) {
	s.mu.Lock()
	*count++
	s.mu.Unlock()
	_ = s.say("%s  %-22s  %-10s  %10s  %s", began.Format("15:04:05.000000"), remote, kind, milliseconds(took), how) // it is kept
}

func (s *listening) say(format string, args ...any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := fmt.Fprintf(s.app.out, format+"\n", args...); err != nil && s.failed == nil {
		s.failed = err
	}
	return s.failed
}
