//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/synmesh/synmesh/internal/identity"
	"github.com/synmesh/synmesh/internal/identity/contexts"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// intakeRow is what came of sending results to the controller.
type intakeRow struct {
	agents     int
	results    int64
	took       time.Duration
	controller time.Duration // processor time
	generator  time.Duration
	peak       int64         // resident memory
	behind     int           // files of the intake that were finished and not archived at the end
	late       time.Duration // how long it took until they were
	disk       [2]int64      // bytes at the end, and then
}

// receiver is a controller of its own that takes in results, and the agents that send them.
type receiver struct {
	folder   string
	address  string
	program  *exec.Cmd
	log      *os.File
	operator *grpc.ClientConn
	feeders  []*feeder
	conns    []*grpc.ClientConn
}

// ingest measures how many results a second the controller stores for good.
func (b *suite) ingest(ctx context.Context, p *page) (err error) {
	if b.bin == "" {
		return errors.New("ingest: there is no probe-controller beside this program; `make build` makes it")
	}
	if err := b.calm(ctx); err != nil {
		return err
	}
	r := &receiver{}
	defer func() { err = errors.Join(err, r.close()) }()
	program := filepath.Join(b.bin, "probe-controller")
	if err := r.start(ctx, program); err != nil {
		return fmt.Errorf("ingest: %w", err)
	}
	b.say("ingest: %d agents enrol", b.options.ingest)
	if err := r.enrol(ctx, b.options.ingest); err != nil {
		return fmt.Errorf("ingest: enrol: %w", err)
	}
	b.say("ingest: they report for %v", b.ingestFor)
	row, err := r.run(ctx, b.ingestFor)
	if err != nil {
		return fmt.Errorf("ingest: %w", err)
	}
	if err := r.catchUp(ctx, &row); err != nil {
		return fmt.Errorf("ingest: %w", err)
	}
	b.say("ingest: is everything there?")
	if err := r.verify(ctx, program); err != nil {
		return fmt.Errorf("ingest: %w", err)
	}
	p.ingest(row)
	return nil
}

// start starts the controller in a folder of its own.
func (r *receiver) start(ctx context.Context, program string) (err error) {
	if r.folder, err = os.MkdirTemp("", "synmesh-bench-"); err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	r.address = l.Addr().String()
	if err := l.Close(); err != nil {
		return err
	}
	if r.log, err = os.Create(filepath.Join(r.folder, "log")); err != nil {
		return err
	}
	return r.launch(ctx, program)
}

// launch starts the controller, also again, and waits until it answers.
func (r *receiver) launch(ctx context.Context, program string) error {
	r.program = exec.Command(program, "--name", "ingest", "--data", filepath.Join(r.folder, "data"), "--listen", r.address, "--advertise", "127.0.0.1", "--gossip-listen", "127.0.0.1:0")
	r.program.Stdout, r.program.Stderr = r.log, r.log
	r.program.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := r.program.Start(); err != nil {
		return fmt.Errorf("start the controller: %w", err)
	}
	return eventually(ctx, "the controller answers", r.greet)
}

func (r *receiver) greet(ctx context.Context) error {
	if r.operator == nil {
		saved, err := contexts.Read(filepath.Join(r.folder, "data", "operator.yaml"))
		if err != nil {
			return err
		}
		who, err := saved.Credentials()
		if err != nil {
			return err
		}
		r.operator, err = grpc.NewClient("passthrough:///"+r.address, grpc.WithTransportCredentials(identity.ClientCredentials(identity.Fixed(who))),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
		if err != nil {
			return err
		}
	}
	_, err := synmeshv1.NewIdentityServiceClient(r.operator).WhoAmI(ctx, &synmeshv1.WhoAmIRequest{}, grpc.WaitForReady(true))
	return err
}

// eventually tries until it works, for half a minute.
func eventually(ctx context.Context, what string, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("waiting until %s: %w", what, err)
		}
	}
}

// enrol makes agents that have certificates.
func (r *receiver) enrol(ctx context.Context, agents int) error {
	r.feeders, r.conns = make([]*feeder, agents), make([]*grpc.ClientConn, agents)
	start := time.Now().Add(-time.Hour).Truncate(time.Minute)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for i := range agents {
		g.Go(func() error {
			l := newFeeder(i, start)
			who, err := r.enrolOne(ctx, l.name, &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+i/40))})
			if err != nil {
				return err
			}
			r.feeders[i] = l
			r.conns[i], err = dialFeeder(r.address, identity.Fixed(who))
			return err
		})
	}
	return g.Wait()
}

// enrolOne enrols an agent from an address of this host: some dozens share each, for one
// address may not ask too often.
func (r *receiver) enrolOne(ctx context.Context, name string, from net.Addr) (*identity.Credentials, error) {
	made, err := synmeshv1.NewIdentityServiceClient(r.operator).CreateToken(ctx, &synmeshv1.CreateTokenRequest{Agent: name})
	if err != nil {
		return nil, err
	}
	token, err := identity.ParseToken(made.GetText())
	if err != nil {
		return nil, err
	}
	key, err := identity.NewKey()
	if err != nil {
		return nil, err
	}
	request, err := identity.NewRequest(key)
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient("passthrough:///"+r.address, grpc.WithTransportCredentials(credentials.NewTLS(identity.PinnedTLS(token, nil))),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return (&net.Dialer{LocalAddr: from}).DialContext(ctx, "tcp", address)
		}))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	for {
		resp, err := synmeshv1.NewEnrolmentServiceClient(conn).Enroll(ctx, &synmeshv1.EnrollRequest{Token: made.GetText(), CertificateRequest: request})
		if status.Code(err) == codes.ResourceExhausted {
			time.Sleep(200 * time.Millisecond)
			continue
		}
		if err != nil {
			return nil, err
		}
		chain, err := identity.ParseChain(resp.GetCredentials().GetChain())
		if err != nil {
			return nil, err
		}
		roots, err := identity.ParseChain(resp.GetCredentials().GetRoots())
		if err != nil {
			return nil, err
		}
		return identity.NewCredentials(key, chain, roots)
	}
}

// run has all agents report for some time.
func (r *receiver) run(ctx context.Context, length time.Duration) (row intakeRow, err error) {
	sessions, cancel := context.WithCancel(ctx)
	defer cancel()
	streams := make([]grpc.ClientStream, len(r.feeders))
	var opening errgroup.Group
	opening.SetLimit(16)
	for i, l := range r.feeders {
		opening.Go(func() (err error) {
			streams[i], err = l.session(sessions, r.conns[i])
			return err
		})
	}
	if err := opening.Wait(); err != nil {
		return row, err
	}
	before, err := r.usage()
	if err != nil {
		return row, err
	}
	own, err := processorTime()
	if err != nil {
		return row, err
	}
	began := time.Now()
	timed, stop := context.WithTimeout(ctx, length)
	defer stop()
	var results atomic.Int64
	var g errgroup.Group
	for i, l := range r.feeders {
		g.Go(func() error { return l.report(timed, streams[i], func(n int) { results.Add(int64(n)) }) })
	}
	if err := errors.Join(g.Wait(), ctx.Err()); err != nil {
		return row, err
	}
	row = intakeRow{agents: len(r.feeders), results: results.Load(), took: time.Since(began)}
	after, err := r.usage()
	if err != nil {
		return row, err
	}
	ownAfter, err := processorTime()
	row.controller, row.generator = after-before, ownAfter-own
	if err != nil {
		return row, err
	}
	if row.peak, err = field(fmt.Sprintf("/proc/%d/status", r.program.Process.Pid), "VmHWM:", 1); err != nil {
		return row, err
	}
	row.peak <<= 10
	row.behind, row.disk[0], err = r.files()
	return row, err
}

// usage is the processor time of the controller so far.
func (r *receiver) usage() (time.Duration, error) {
	return processorTimeOf(r.program.Process.Pid)
}

// processorTimeOf is what another process has used.
func processorTimeOf(pid int) (time.Duration, error) {
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every architecture of Linux that Go knows
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	words := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	var user, system int64
	if len(words) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(words))
	}
	_, err = fmt.Sscan(words[11]+" "+words[12], &user, &system)
	return time.Duration(user+system) * tick, err
}

// files looks how many files of the intake wait to be archived, and how large the history is.
func (r *receiver) files() (behind int, size int64, err error) {
	entries, err := os.ReadDir(filepath.Join(r.folder, "data", "history"))
	if err != nil {
		return 0, 0, err
	}
	intake := 0
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "intake-") && strings.HasSuffix(e.Name(), ".db") {
			intake++
		}
		info, err := e.Info()
		if err != nil {
			continue // it has been archived or merged
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			size += st.Blocks * 512
		}
	}
	return max(intake-1, 0), size, nil
}

// catchUp waits until what is finished of the intake is archived.
func (r *receiver) catchUp(ctx context.Context, row *intakeRow) (err error) {
	began := time.Now()
	for {
		behind, size, err := r.files()
		if err != nil {
			return err
		}
		row.late, row.disk[1] = time.Since(began), size
		if behind == 0 {
			return nil
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// verified is of how many agents it is looked whether everything is there; each takes reading
// what is not archived yet.
const verified = 3

// verify kills the controller, starts it again, and looks whether everything that some agents saw
// acknowledged is stored, once, as it was sent: how many results, and their round trips together.
func (r *receiver) verify(ctx context.Context, program string) error {
	if err := r.program.Process.Kill(); err != nil {
		return err
	}
	_ = r.program.Wait() // it was killed
	if err := r.launch(ctx, program); err != nil {
		return err
	}
	for i := 0; i < len(r.feeders); i += max(1, len(r.feeders)/verified) {
		l := r.feeders[i]
		results, sum, err := r.stored(ctx, l)
		if err != nil {
			return err
		}
		want := int64(l.next-1) * feederSeries
		// The means are rounded down, by less than a nanosecond for each result.
		if off := l.sum - sum; results != want || off < 0 || off > want {
			return fmt.Errorf("of %s, %d results were acknowledged, whose round trips are %v together, and %d are stored, of %v",
				l.name, want, time.Duration(l.sum), results, time.Duration(sum))
		}
	}
	return nil
}

// stored returns how many results of an agent are stored, and their round trips together.
func (r *receiver) stored(ctx context.Context, l *feeder) (results, sum int64, err error) {
	q := &synmeshv1.QueryRequest{Filter: &synmeshv1.SeriesFilter{Source: feederSource, Agents: l.name}, PageSize: 1000,
		StartTime: timestamppb.New(time.Unix(0, l.start)), EndTime: timestamppb.New(l.second().Add(time.Minute))}
	for {
		resp, err := synmeshv1.NewResultServiceClient(r.operator).Query(ctx, q)
		if err != nil {
			return 0, 0, err
		}
		for _, series := range resp.GetSeries() {
			for _, s := range series.GetSteps() {
				results += s.GetSent()
				sum += s.GetTimed() * int64(s.GetMean().AsDuration())
			}
		}
		if q.PageToken = resp.GetNextPageToken(); q.PageToken == "" {
			return results, sum, nil
		}
	}
}

func (r *receiver) close() error {
	var errs []error
	for _, c := range append(r.conns, r.operator) {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	if r.program != nil && r.program.Process != nil {
		_ = r.program.Process.Signal(syscall.SIGTERM) // it may have ended
		errs = append(errs, r.program.Wait())
	}
	if r.log != nil {
		errs = append(errs, r.log.Close())
	}
	if r.folder != "" {
		errs = append(errs, os.RemoveAll(r.folder))
	}
	return errors.Join(errs...)
}

func (p *page) ingest(r intakeRow) {
	p.section("Ingest", fmt.Sprintf(`
%d agents, each of which reports one result of each of its %d series at a time, over its own
session with mTLS, and the next when that is acknowledged, for %v: to probe-controller,
a process of its own on the same cores. The agents' clocks run so that it is once a second for
them. Results count when they are acknowledged; then they are on the disk. At the end
the controller is killed and started again, and it is looked whether all results of %d agents are there. What is
behind are files that have taken in all that they will, and are not archived yet.`, r.agents, feederSeries, p.options.ingestFor, min(r.agents, verified)))
	each := func(d time.Duration) string { return fmt.Sprintf("%.0f ns", float64(d)/float64(r.results)) }
	bytes := func(n int64) string { return fmt.Sprintf("%.1f", float64(n)/float64(r.results)) }
	p.table([]string{"", ours}, [][]string{
		{"results acknowledged a second", fmt.Sprintf("%.0f", float64(r.results)/r.took.Seconds())},
		{"processor time of the controller, each", each(r.controller)},
		{"of the generator, each", each(r.generator)},
		{"both, of one core", fmt.Sprintf("%.0f %%", 100*(r.controller+r.generator).Seconds()/r.took.Seconds())},
		{"resident memory of the controller at most", fmt.Sprintf("%.0f MiB", float64(r.peak)/(1<<20))},
		{"files behind at the end", fmt.Sprint(r.behind)},
		{"archived after another", r.late.Round(100 * time.Millisecond).String()},
		{"bytes on disk for each result at the end", bytes(r.disk[0])},
		{"and then", bytes(r.disk[1])},
	})
}
