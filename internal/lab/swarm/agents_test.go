//go:build linux

package swarm_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/synmesh/synmesh/agent/session"
	"github.com/synmesh/synmesh/agent/spool"
	"github.com/synmesh/synmesh/agent/tasks"
	"github.com/synmesh/synmesh/internal/identity"
	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// nameOf is that of an agent.
func nameOf(i int) string { return fmt.Sprintf("agent-%04d", i) }

// ahead is by how much the clock of an agent is.
func ahead(i int) time.Duration { return time.Duration(i%61-30) * time.Second }

// runAgents is some agents. Arguments: the folder of their states, the controller,
// over how long they come back, the number of the first, and that behind the last.
func runAgents(ctx context.Context, args []string) error {
	spread, err := time.ParseDuration(args[2])
	if err != nil {
		return err
	}
	first, err := strconv.Atoi(args[3])
	if err != nil {
		return err
	}
	end, err := strconv.Atoi(args[4])
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	for i := first; i < end; i++ {
		g.Go(func() error {
			if err := runAgent(ctx, i, filepath.Join(args[0], nameOf(i)), args[1], spread); err != nil {
				return fmt.Errorf("%s: %w", nameOf(i), err)
			}
			return nil
		})
	}
	return g.Wait()
}

// runAgent is what agent.Agent is but for an engine, a responder and gossip. It waits
// for other keys of the gossip all the same, as each agent does that gossips.
func runAgent(ctx context.Context, i int, dir, controller string, spread time.Duration) (err error) {
	folder, err := identity.OpenFolder(filepath.Join(dir, "identity"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, folder.Close()) }()
	log := slog.New(slog.DiscardHandler)
	s, err := spool.Open(spool.Config{Dir: filepath.Join(dir, "spool"), Logger: log})
	if err != nil {
		return err
	}
	keep, release := context.WithCancel(context.WithoutCancel(ctx))
	spooled := make(chan error, 1)
	go func() { spooled <- s.Run(keep) }()
	defer func() {
		release()
		err = errors.Join(err, <-spooled)
	}()
	p := prober{nameOf(i)}
	t := tasks.New(p, s, log)
	hello := &synmeshv1.Hello{Name: nameOf(i), Labels: map[string]string{"dc": fmt.Sprintf("dc%d", i%20), "rack": strconv.Itoa(i % 7)},
		Version: "swarm", Responder: fmt.Sprintf("10.%d.%d.%d:7401", 1+i/65536, i/256%256, i%256), Stamping: "quiet"}
	began := make(chan *grpc.ClientConn, 1)
	clock := wrongBy(ahead(i))
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return t.Run(ctx) })
	g.Go(func() error { return follow(ctx, began) })
	g.Go(func() error {
		return session.Run(ctx, session.Config{
			Hello: hello, Controllers: func() []string { return []string{controller} }, Spool: s, Tasks: told{t, p}, Logger: log, Spread: spread,
			DialOptions: []grpc.DialOption{grpc.WithTransportCredentials(identity.ClientCredentials(folder)), grpc.WithStreamInterceptor(clock)},
			Began: func(conn *grpc.ClientConn) {
				select {
				case began <- conn:
				case <-ctx.Done():
				}
			},
		})
	})
	return g.Wait()
}

// follow waits for other keys of the gossip over the connection of each session that
// begins, until that ends, and throws them away.
func follow(ctx context.Context, began <-chan *grpc.ClientConn) error {
	for {
		var conn *grpc.ClientConn
		select {
		case conn = <-began:
		case <-ctx.Done():
			return nil
		}
		version := ""
		for {
			resp, err := synmeshv1.NewEnrolmentServiceClient(conn).Follow(ctx, &synmeshv1.FollowRequest{Version: version})
			if err != nil {
				break
			}
			version = resp.GetVersion()
		}
	}
}

// told tells when an agent hears of a run, which is before that begins, and when it is
// to begin that: how late it does is its host's affair, on which it has others beside it.
type told struct {
	*tasks.Tasks
	prober prober
}

// StartRun implements session.Tasks.
func (k told) StartRun(m *synmeshv1.StartRun, at time.Time) {
	now := time.Now()
	k.prober.tell("told", now)
	if at.Before(now) {
		at = now
	}
	k.prober.tell("due", at)
	k.Tasks.StartRun(m, at)
}

// wrongBy has the clock of an agent be ahead by so much: it sees the controller's
// times as so much earlier as they are. Its own are right, and can be compared with
// those of others.
func wrongBy(by time.Duration) grpc.StreamClientInterceptor {
	return func(ctx context.Context, d *grpc.StreamDesc, c *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		s, err := open(ctx, d, c, method, opts...)
		if err != nil {
			return nil, err
		}
		return &skewed{s, by}, nil
	}
}

type skewed struct {
	grpc.ClientStream
	by time.Duration
}

// RecvMsg implements grpc.ClientStream.
func (s *skewed) RecvMsg(m any) error {
	if err := s.ClientStream.RecvMsg(m); err != nil {
		return err
	}
	if r, ok := m.(*synmeshv1.SessionResponse); ok {
		for _, at := range []*timestamppb.Timestamp{r.GetEcho().GetTime(), r.GetStartRun().GetStartTime()} {
			if at != nil {
				earlier := timestamppb.New(at.AsTime().Add(-s.by))
				at.Seconds, at.Nanos = earlier.GetSeconds(), earlier.GetNanos()
			}
		}
	}
	return nil
}

// runTarget is what runs probe, and no measurement does.
const runTarget = "run.invalid:9"

// prober makes up a result for each target and interval, spread over the interval as
// an engine spreads its probes, and tells when a run stopped.
type prober struct{ agent string }

// Do implements tasks.Prober.
func (p prober) Do(ctx context.Context, s probe.Spec, emit func(*probe.Result)) error {
	run := s.Targets[0].Name == runTarget
	if run {
		defer func() { p.tell("stopped", time.Now()) }()
	}
	if !run { // agents do not keep time together
		pause := time.NewTimer(rand.N(s.Interval))
		select {
		case <-pause.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	tick := time.NewTicker(s.Interval / time.Duration(len(s.Targets)))
	defer tick.Stop()
	for n := 0; s.Count == 0 || n < s.Count*len(s.Targets); n++ {
		if n > 0 {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		t := s.Targets[n%len(s.Targets)]
		emit(&probe.Result{Time: time.Now(), Target: t.Name, Remote: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, 1}), 7401), LocalPort: 61000, Outcome: probe.Open,
			RTT: 20*time.Millisecond + time.Duration(n%977)*time.Microsecond, Attempts: 1, Stamp: probe.StampKernel,
			Lateness: 50 * time.Microsecond, HostDelay: 30 * time.Microsecond})
	}
	return nil
}

var telling sync.Mutex

// tell writes a line for the parent.
func (p prober) tell(what string, at time.Time) {
	telling.Lock()
	defer telling.Unlock()
	fmt.Println(what, p.agent, at.UnixNano())
}
