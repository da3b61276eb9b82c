// Package session keeps an agent connected to a controller: it dials, says
// hello, sends reports and heartbeats, passes on what the controller asks for,
// and dials again when the stream ends.
package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// Spool holds what is to be reported; see spool.Spool.
type Spool interface {
	Next(context.Context) (*synmeshv1.Report, error)
	Rewind(stored uint64)
	Acknowledge(sequence uint64)
	Counts() (held int, dropped uint64)
}

// Tasks are what the controller asks for; see tasks.Tasks.
type Tasks interface {
	SetTimetable(*synmeshv1.Timetable)
	StartRun(*synmeshv1.StartRun)
	CancelRun(run string)
	Connected()
	Disconnected()
}

// Config has no optional fields.
type Config struct {
	Hello *synmeshv1.Hello
	// Controllers returns the addresses to dial, as host:port, in any order. It
	// is asked before every attempt, for gossip may have learnt new ones.
	Controllers func() []string
	DialOptions []grpc.DialOption
	Spool       Spool
	Tasks       Tasks
	Logger      *slog.Logger
}

const (
	heartbeat   = 5 * time.Second
	helloWithin = 10 * time.Second
	maxBackoff  = 30 * time.Second
)

// errNoController says that no address is known yet.
var errNoController = errors.New("gossip has told of no controller yet")

// Run keeps a session until ctx ends, and then returns nil.
func Run(ctx context.Context, c Config) error {
	for failures := 0; ctx.Err() == nil; failures++ {
		began := time.Now()
		err := c.once(ctx)
		if ctx.Err() != nil {
			break
		}
		if time.Since(began) > maxBackoff {
			failures = 0
		}
		wait := backoff(failures)
		c.Logger.Warn("no session with a controller", "reason", err, "retry_in", wait)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
	return nil
}

// backoff doubles from a quarter of a second, and is spread so that a fleet
// that lost its controller does not come back all at once.
func backoff(failures int) time.Duration {
	ceiling := min(maxBackoff, 500*time.Millisecond<<min(failures, 10))
	return ceiling/2 + rand.N(ceiling/2)
}

// once holds one session, from dialling to its end.
func (c *Config) once(ctx context.Context) error {
	addresses := c.Controllers()
	if len(addresses) == 0 {
		return errNoController
	}
	address := addresses[rand.IntN(len(addresses))]
	conn, err := grpc.NewClient(address, append([]grpc.DialOption{
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}),
	}, c.DialOptions...)...)
	if err != nil {
		return fmt.Errorf("controller %s: %w", address, err)
	}
	defer conn.Close()
	// Cancelling is what frees the stream, whichever way this ends.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := synmeshv1.NewAgentServiceClient(conn).Session(ctx)
	if err == nil {
		err = c.greet(stream, cancel)
	}
	if err != nil {
		return fmt.Errorf("controller %s: %w", address, err)
	}
	c.Logger.Info("session", "controller", address)
	c.Tasks.Connected()
	defer c.Tasks.Disconnected()
	if err := c.serve(ctx, stream); err != nil {
		return fmt.Errorf("controller %s: %w", address, err)
	}
	return nil
}

type stream = grpc.BidiStreamingClient[synmeshv1.SessionRequest, synmeshv1.SessionResponse]

// greet says hello and waits for the welcome, but not for ever.
func (c *Config) greet(s stream, cancel context.CancelFunc) error {
	late := make(chan struct{})
	timer := time.AfterFunc(helloWithin, func() { close(late); cancel() })
	defer timer.Stop()
	if err := s.Send(&synmeshv1.SessionRequest{Message: &synmeshv1.SessionRequest_Hello{Hello: c.Hello}}); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	m, err := s.Recv() // has the reason if Send had io.EOF
	if err != nil {
		select {
		case <-late:
			return fmt.Errorf("it did not answer the hello within %v", helloWithin)
		default:
			return err
		}
	}
	w := m.GetWelcome()
	if w == nil {
		return fmt.Errorf("its first message is %T; a welcome was expected", m.GetMessage())
	}
	c.Spool.Rewind(w.GetSequence())
	return nil
}

// serve sends and receives until either ends.
func (c *Config) serve(ctx context.Context, s stream) error {
	g, ctx := errgroup.WithContext(ctx)
	reports := make(chan *synmeshv1.Report)
	g.Go(func() error {
		for {
			r, err := c.Spool.Next(ctx)
			if err != nil {
				return err
			}
			select {
			case reports <- r:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	g.Go(func() error { return c.send(ctx, s, reports) })
	g.Go(func() error { return c.receive(s) })
	return g.Wait()
}

// send is the only one that sends on the stream.
func (c *Config) send(ctx context.Context, s stream, reports <-chan *synmeshv1.Report) error {
	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	for {
		var m *synmeshv1.SessionRequest
		select {
		case r := <-reports:
			m = &synmeshv1.SessionRequest{Message: &synmeshv1.SessionRequest_Report{Report: r}}
		case <-tick.C:
			held, dropped := c.Spool.Counts()
			m = &synmeshv1.SessionRequest{Message: &synmeshv1.SessionRequest_Heartbeat{
				Heartbeat: &synmeshv1.Heartbeat{Backlog: uint64(held), Dropped: dropped}}}
		case <-ctx.Done():
			return s.CloseSend()
		}
		if err := s.Send(m); err != nil && !errors.Is(err, io.EOF) { // io.EOF: receive has the reason
			return err
		}
	}
}

func (c *Config) receive(s stream) error {
	for {
		m, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return errors.New("the controller ended the session")
		}
		if err != nil {
			return err
		}
		switch m := m.GetMessage().(type) {
		case *synmeshv1.SessionResponse_Timetable:
			c.Tasks.SetTimetable(m.Timetable)
		case *synmeshv1.SessionResponse_StartRun:
			c.Tasks.StartRun(m.StartRun)
		case *synmeshv1.SessionResponse_CancelRun:
			c.Tasks.CancelRun(m.CancelRun.GetRun())
		case *synmeshv1.SessionResponse_Acknowledge:
			c.Spool.Acknowledge(m.Acknowledge.GetSequence())
		default: // of a newer controller
			c.Logger.Warn("message not understood", "type", fmt.Sprintf("%T", m))
		}
	}
}
