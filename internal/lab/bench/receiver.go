//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
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
	"github.com/synmesh/synmesh/internal/lab"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// receiverAddress is where this program talks to a receiver, over the loopback device of its host.
const receiverAddress = "127.0.0.1:7400"

// receiver is a controller of its own that takes in results, and the agents that send them, all on one host.
type receiver struct {
	on       *lab.Node
	bin      string
	http     string // where it serves JSON and metrics
	folder   string
	program  *exec.Cmd
	log      *os.File
	operator *grpc.ClientConn
	feeders  []*feeder
	conns    []*grpc.ClientConn
}

// startReceiver starts a controller in a folder of its own, and has agents enrol.
func startReceiver(ctx context.Context, on *lab.Node, bin, http string, agents int) (r *receiver, err error) {
	r = &receiver{on: on, bin: bin, http: http}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	if r.folder, err = os.MkdirTemp("", "synmesh-bench-"); err != nil {
		return r, err
	}
	if r.log, err = os.Create(r.at("log")); err != nil {
		return r, err
	}
	if err := r.launch(ctx); err != nil {
		return r, err
	}
	if err := r.enrol(ctx, agents); err != nil {
		return r, fmt.Errorf("enrol: %w", err)
	}
	return r, nil
}

func (r *receiver) at(name string) string { return filepath.Join(r.folder, name) }

// launch starts the controller, also again, and waits until it answers.
func (r *receiver) launch(ctx context.Context) error {
	r.program = exec.Command(filepath.Join(r.bin, "probe-controller"), "--name", "receiver", "--data", r.at("data"),
		"--advertise", r.on.Addr4().String(), "--http", r.http)
	r.program.Stdout, r.program.Stderr = r.log, r.log
	if err := r.on.Start(r.program); err != nil {
		return fmt.Errorf("start the controller: %w", err)
	}
	return eventually(ctx, "the controller answers", r.greet)
}

func (r *receiver) greet(ctx context.Context) error {
	if r.operator == nil {
		saved, err := contexts.Read(r.at("data/operator.yaml"))
		if err != nil {
			return err
		}
		who, err := saved.Credentials()
		if err != nil {
			return err
		}
		r.operator, err = r.client(identity.ClientCredentials(identity.Fixed(who)), nil, grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
		if err != nil {
			return err
		}
	}
	_, err := synmeshv1.NewIdentityServiceClient(r.operator).WhoAmI(ctx, &synmeshv1.WhoAmIRequest{}, grpc.WaitForReady(true))
	return err
}

// client connects from an address of the controller's host; nil is any.
func (r *receiver) client(who credentials.TransportCredentials, from net.Addr, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+receiverAddress, append(options, grpc.WithTransportCredentials(who),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) { return dialOn(ctx, r.on, from, address) }))...)
}

// dialOn connects on a host to one of its own addresses.
func dialOn(ctx context.Context, on *lab.Node, from net.Addr, address string) (conn net.Conn, err error) {
	err = on.Do(func() (err error) {
		conn, err = (&net.Dialer{LocalAddr: from}).DialContext(ctx, "tcp", address)
		return err
	})
	return conn, err
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
	start := feederStart()
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
			r.conns[i], err = r.client(identity.ClientCredentials(identity.Fixed(who)), nil,
				grpc.WithDefaultCallOptions(grpc.ForceCodecV2(encoded{})), grpc.WithWriteBufferSize(128<<10), grpc.WithReadBufferSize(4<<10))
			return err
		})
	}
	return g.Wait()
}

// feederStart is when the first results are said to be measured: so that none is of the future.
func feederStart() time.Time { return time.Now().Add(-time.Hour).Truncate(time.Minute) }

// token makes a token for an agent.
func (r *receiver) token(ctx context.Context, agent string) (string, error) {
	made, err := synmeshv1.NewIdentityServiceClient(r.operator).CreateToken(ctx, &synmeshv1.CreateTokenRequest{Agent: agent})
	return made.GetText(), err
}

// enrolOne enrols an agent from an address of this host: some dozens share each, for one
// address may not ask too often.
func (r *receiver) enrolOne(ctx context.Context, name string, from net.Addr) (*identity.Credentials, error) {
	text, err := r.token(ctx, name)
	if err != nil {
		return nil, err
	}
	token, err := identity.ParseToken(text)
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
	conn, err := r.client(credentials.NewTLS(identity.PinnedTLS(token, nil)), from)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	for {
		resp, err := synmeshv1.NewEnrolmentServiceClient(conn).Enroll(ctx, &synmeshv1.EnrollRequest{Token: text, CertificateRequest: request})
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

// sessions opens one for each agent. They end with the context.
func (r *receiver) sessions(ctx context.Context) ([]grpc.ClientStream, error) {
	streams := make([]grpc.ClientStream, len(r.feeders))
	var opening errgroup.Group
	opening.SetLimit(16)
	for i, l := range r.feeders {
		opening.Go(func() (err error) {
			streams[i], err = l.session(ctx, r.conns[i])
			return err
		})
	}
	return streams, opening.Wait()
}

// usage is the processor time of the controller so far.
func (r *receiver) usage() (time.Duration, error) {
	return processorTimeOf(r.program.Process.Pid)
}

// peakOf is how much memory another process has had resident at most.
func peakOf(pid int) (int64, error) {
	kib, err := field(fmt.Sprintf("/proc/%d/status", pid), "VmHWM:", 1)
	return kib << 10, err
}

// occupied is what a folder takes of the disk.
func occupied(folder string) (size int64, err error) {
	err = filepath.WalkDir(folder, func(_ string, e fs.DirEntry, err error) error {
		if err == nil {
			var info fs.FileInfo
			if info, err = e.Info(); err == nil {
				size += info.Sys().(*syscall.Stat_t).Blocks * 512
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it has been archived or merged
		}
		return err
	})
	return size, err
}

func (r *receiver) disk() (int64, error) { return occupied(r.at("data/history")) }

// behind is how many files of the intake are finished, and not archived yet.
func (r *receiver) behind() (int, error) {
	intake, err := filepath.Glob(r.at("data/history/intake-*.db"))
	return max(len(intake)-1, 0), err
}

// catchUp waits until what is finished of the intake is archived, for some time.
func (r *receiver) catchUp(ctx context.Context, most time.Duration) (took time.Duration, behind int, err error) {
	for began := time.Now(); ; {
		behind, err := r.behind()
		if took = time.Since(began); err != nil || behind == 0 || took > most {
			return took, behind, err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return took, behind, ctx.Err()
		}
	}
}

// restart kills the controller and starts it again.
func (r *receiver) restart(ctx context.Context) error {
	if err := r.program.Process.Kill(); err != nil {
		return err
	}
	_ = r.program.Wait() // it was killed
	return r.launch(ctx)
}

// verify looks whether everything that an agent saw acknowledged is stored, once, as it was sent: how many
// results, and their round trips together.
func (r *receiver) verify(ctx context.Context, l *feeder) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	stream, err := synmeshv1.NewResultServiceClient(r.operator).Export(ctx, &synmeshv1.ExportRequest{
		Filter:    &synmeshv1.SeriesFilter{Source: feederSource, Agents: l.name},
		StartTime: timestamppb.New(time.Now().Add(-time.Hour))})
	if err != nil {
		return err
	}
	var results, sum int64
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("look whether all results of %s are stored: %w", l.name, err)
		}
		for _, one := range m.GetResults() {
			results++
			sum += int64(one.GetRtt().AsDuration())
		}
	}
	if want := int64(l.next-1) * feederSeries; results != want || sum != l.sum {
		return fmt.Errorf("of %s, %d results were acknowledged, whose round trips are %v together, and %d are stored, of %v",
			l.name, want, time.Duration(l.sum), results, time.Duration(sum))
	}
	return nil
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
