// Package session keeps an agent connected to a controller: it dials, says
// hello, sends reports and heartbeats, passes on what the controller asks for,
// and dials again when the stream ends. Call Run.
package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	grpcproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/proto"

	"github.com/synmesh/synmesh/agent/spool"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// Spool holds what is to be reported; see spool.Spool.
type Spool interface {
	Epochs() (fresh uint64, older []uint64)
	Begin(stored map[uint64]uint64, credit int64, previews bool)
	Next(context.Context) ([]byte, error) // an encoded SessionRequest
	Acknowledge(epoch, sequence uint64)
	Reject(epoch, sequence uint64)
	SetCredit(bytes int64)
	Landed(context.Context) error
	Status() spool.Status
}

// Tasks are what the controller asks for; see tasks.Tasks.
type Tasks interface {
	SetTimetable(*synmeshv1.Timetable)
	StartRun(m *synmeshv1.StartRun, at time.Time)
	CancelRun(run string)
	Refused() []*synmeshv1.Refusal
	Connected()
	Disconnected()
}

// Config has optional fields only at its end.
type Config struct {
	// Hello is who the agent is; the epochs are filled in.
	Hello *synmeshv1.Hello
	// Controllers returns the addresses to dial, as host:port, in any order. It
	// is asked before every attempt, for gossip may have learnt new ones.
	Controllers func() []string
	DialOptions []grpc.DialOption
	Spool       Spool
	Tasks       Tasks
	Logger      *slog.Logger
	// Spread is the time over which agents that have lost their controller come
	// back; 0 is 30 s.
	Spread time.Duration
	// Began is called when a session has been welcomed, with its connection, which ends
	// with it; and Ended when one has ended or none came about; nil: nobody is told.
	Began func(*grpc.ClientConn)
	Ended func(why error)
}

const (
	heartbeat   = 5 * time.Second
	helloWithin = 10 * time.Second
	// window is how many bytes the controller may have under way to here.
	window = 1 << 20
	// maxCredit bounds what a controller may have under way, in bytes: the spool
	// remembers each report of it, and does not drop what may have arrived.
	maxCredit = 8 << 20
)

// errNoController says that no address is known yet.
var errNoController = errors.New("gossip has told of no controller yet")

// Run keeps a session until ctx ends, and then returns nil.
func Run(ctx context.Context, c Config) error {
	if c.Spread == 0 {
		c.Spread = 30 * time.Second
	}
	again := retry{spread: c.Spread}
	for ctx.Err() == nil {
		address, others, err := c.choose(again.left)
		established := false
		if err == nil {
			established, err = c.once(ctx, address)
		}
		if ctx.Err() != nil {
			break
		}
		if c.Ended != nil {
			c.Ended(err)
		}
		wait := again.after(err, address, established, others)
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

// choose picks a controller, another than the one that was left if there is
// one, and tells whether there are others.
func (c *Config) choose(left string) (address string, others bool, err error) {
	known := c.Controllers()
	slices.Sort(known)
	known = slices.Compact(known)
	if len(known) == 0 {
		return "", false, errNoController
	}
	others = len(known) > 1
	if others {
		known = slices.DeleteFunc(known, func(a string) bool { return a == left })
	}
	return known[rand.IntN(len(known))], others, nil
}

// once holds one session, from dialling to its end, and tells whether it was one.
func (c *Config) once(ctx context.Context, address string) (established bool, err error) {
	conn, err := grpc.NewClient(address, append([]grpc.DialOption{
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}),
		// With windows that stay as they are, not every acknowledgement is followed by a ping that measures the way.
		grpc.WithStaticStreamWindowSize(window), grpc.WithStaticConnWindowSize(window),
	}, c.DialOptions...)...)
	if err != nil {
		return false, fmt.Errorf("controller %s: %w", address, err)
	}
	defer conn.Close()
	// Cancelling is what frees the stream, whichever way this ends.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := synmeshv1.NewAgentServiceClient(conn).Session(ctx, grpc.ForceCodecV2(codec{encoding.GetCodecV2(grpcproto.Name)}))
	if err == nil {
		err = c.greet(stream, cancel)
	}
	if err != nil {
		return false, fmt.Errorf("controller %s: %w", address, err)
	}
	c.Logger.Info("session", "controller", address)
	if c.Began != nil {
		c.Began(conn)
	}
	c.Tasks.Connected()
	defer c.Tasks.Disconnected()
	l := &live{Config: c, stream: stream, soon: make(chan struct{}, 1), drained: make(chan struct{})}
	return true, fmt.Errorf("controller %s: %w", address, l.serve(ctx))
}

type stream = grpc.BidiStreamingClient[synmeshv1.SessionRequest, synmeshv1.SessionResponse]

// greet says hello and waits for the welcome, but not for ever.
func (c *Config) greet(s stream, cancel context.CancelFunc) error {
	late := make(chan struct{})
	timer := time.AfterFunc(helloWithin, func() { close(late); cancel() })
	defer timer.Stop()
	hello := proto.CloneOf(c.Hello)
	hello.Epoch, hello.OlderEpochs = c.Spool.Epochs()
	if err := s.Send(&synmeshv1.SessionRequest{Message: &synmeshv1.SessionRequest_Hello{Hello: hello}}); err != nil && !errors.Is(err, io.EOF) {
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
	if len(w.GetOlderSequences()) != len(hello.GetOlderEpochs()) {
		return fmt.Errorf("its welcome tells of %d older epochs; %d were asked for", len(w.GetOlderSequences()), len(hello.GetOlderEpochs()))
	}
	stored := map[uint64]uint64{hello.GetEpoch(): w.GetSequence()}
	for i, epoch := range hello.GetOlderEpochs() {
		stored[epoch] = w.GetOlderSequences()[i]
	}
	c.Spool.Begin(stored, int64(min(w.GetCredit(), maxCredit)), w.GetPreviews())
	return nil
}
