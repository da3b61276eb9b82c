//go:build linux

// Package oracle_test kills agents and controllers, again and again, and cuts the
// links between them, and then counts: every result is stored once, or dropped for a reason that was counted.
// Agents and controllers are processes of their own, on hosts of a lab: this test
// binary, executed again.
package oracle_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/synmesh/synmesh/agent/session"
	"github.com/synmesh/synmesh/agent/spool"
	"github.com/synmesh/synmesh/controller/api/agents"
	"github.com/synmesh/synmesh/controller/feed"
	"github.com/synmesh/synmesh/controller/fleet"
	"github.com/synmesh/synmesh/controller/history"
	"github.com/synmesh/synmesh/internal/lab"
	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// asProgram names the program that the test binary is to be.
const asProgram = "SYNMESH_ORACLE_PROGRAM"

func TestMain(m *testing.M) {
	programs := map[string]func(context.Context, []string) error{"agent": runAgent, "controller": runController}
	program := programs[os.Getenv(asProgram)]
	if program == nil {
		if err := lab.Enter(); err != nil { // for networks of namespaces
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := program(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, os.Getenv(asProgram)+":", err)
		os.Exit(1)
	}
}

// runController is a controller as far as agents know it: its history and the
// service that they call. It writes a line to its standard output when it listens.
func runController(ctx context.Context, args []string) error {
	log := slog.New(slog.DiscardHandler)
	store, err := history.Open(history.Config{Dir: args[0], Logger: log})
	if err != nil {
		return err
	}
	keep, release := context.WithCancel(context.Background())
	defer release()
	stored := make(chan error, 1)
	go func() { stored <- store.Run(keep) }()
	l, err := net.Listen("tcp", ":"+port)
	if err != nil {
		return err
	}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(1<<20),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}))
	known := fleet.New()
	service := agents.Register(server, agents.Config{Admit: func(context.Context, string) error { return nil }, Fleet: known, Feed: feed.New(), History: store, Logger: log})
	fmt.Println("listening")
	unhook := context.AfterFunc(ctx, func() {
		known.Drain("it is over")
		server.GracefulStop()
	})
	defer unhook()
	if err := server.Serve(l); err != nil {
		return err
	}
	service.Wait()
	release()
	if err := <-stored; err != nil {
		return err
	}
	return store.Close()
}

// journal is what an agent writes to its standard output, a line for each
// event, for the parent to read when the agent is dead.
type journal struct{ *spool.Spool }

// Acknowledge notes what the agent was told.
func (j journal) Acknowledge(epoch, sequence uint64) {
	fmt.Printf("acknowledged %d %d\n", epoch, sequence)
	j.Spool.Acknowledge(epoch, sequence)
}

// noTasks notes sessions in the same place.
type noTasks struct{}

func (noTasks) SetTimetable(*synmeshv1.Timetable)       {}
func (noTasks) StartRun(*synmeshv1.StartRun, time.Time) {}
func (noTasks) CancelRun(string)                        {}
func (noTasks) Refused() []*synmeshv1.Refusal           { return nil }
func (noTasks) Connected()                              { fmt.Println("connected") }
func (noTasks) Disconnected()                           { fmt.Println("disconnected", time.Now().UnixNano()) }

// runAgent is an agent's spool and session, with results that are made up: each
// is told by its round trip, the life of the process and a number. Arguments:
// name, folder, the limit in bytes, controller or "", life, results a second, and
// after how many it stops, or 0.
func runAgent(ctx context.Context, args []string) error {
	number := func(i int) int64 {
		n, err := strconv.ParseInt(args[i], 10, 64)
		if err != nil {
			panic(err)
		}
		return n
	}
	s, err := spool.Open(spool.Config{Dir: args[1], Limit: number(2), MaxReport: perReport * 320,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		return err
	}
	keep, release := context.WithCancel(context.Background())
	defer release()
	spooled := make(chan error, 1)
	go func() { spooled <- s.Run(keep) }()
	connected := make(chan error, 1)
	go func() {
		if args[3] == "" {
			connected <- nil
			return
		}
		connected <- session.Run(ctx, session.Config{
			Hello: &synmeshv1.Hello{Name: args[0]}, Controllers: func() []string { return []string{args[3]} },
			DialOptions: []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())},
			Spool:       journal{s}, Tasks: noTasks{}, Spread: 100 * time.Millisecond, Logger: slog.New(slog.DiscardHandler),
		})
	}()
	produce(ctx, s, number(4), number(5), number(6))
	<-ctx.Done()
	if err := <-connected; err != nil {
		return err
	}
	release()
	err = <-spooled
	tell(s)
	return err
}

// perReport is about how many results share a report.
const perReport = 20

// produce makes results: rate a second, or as fast as the disk takes them if that is 0.
func produce(ctx context.Context, s *spool.Spool, life, rate, most int64) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	r := probe.Result{Source: "measurements/oracle", Target: "db.fra:5432", Outcome: probe.Open, Attempts: 1, Stamp: probe.StampKernel, LocalPort: 61000}
	began := time.Now()
	for n, told := int64(0), 0; ctx.Err() == nil && (most < 0 || n < most); told++ {
		due := most
		switch {
		case rate > 0:
			due = int64(time.Since(began).Seconds() * float64(rate))
		case s.Status().Pending < 50_000:
			due = min(most, n+10_000)
		default:
			due = n
		}
		for ; n < due; n++ {
			r.Time = time.Now()
			r.RTT = time.Duration(life<<32 | n)
			s.Add(&r)
		}
		fmt.Printf("produced %d %d\n", n, time.Now().UnixNano())
		if told%20 == 0 {
			tell(s)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	for ctx.Err() == nil {
		tell(s)
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// tell writes the counts.
func tell(s *spool.Spool) {
	st := s.Status()
	d := st.Dropped
	fmt.Printf("status %d %d %d %d %d %d %d %d\n", st.Produced, st.Held, st.Pending, d[spool.Full], d[spool.Disk], d[spool.Rejected], d[spool.Corrupt], d[spool.Crash])
}
