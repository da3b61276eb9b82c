// Package apitest is what the tests of the controller's services share: a
// connection to a service in memory, a history in memory, and an agent that
// does just what a test tells it. Only tests import it. Begin with Dial.
package apitest

import (
	"context"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/synmesh/synmesh/internal/convert"
	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// Dial serves what register adds, over a pipe in memory, and returns a
// connection to it. Both end with the test.
func Dial(t testing.TB, register func(grpc.ServiceRegistrar)) *grpc.ClientConn {
	t.Helper()
	return Connect(t, serve(t, register, insecure.NewCredentials()), insecure.NewCredentials())
}

// serve serves what register adds, over a pipe in memory, until the test ends.
func serve(t testing.TB, register func(grpc.ServiceRegistrar), as credentials.TransportCredentials) *bufconn.Listener {
	t.Helper()
	server := grpc.NewServer(grpc.Creds(as), grpc.WaitForHandlers(true))
	register(server)
	pipe := bufconn.Listen(64 << 10)
	served := make(chan error, 1)
	go func() { served <- server.Serve(pipe) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return pipe
}

// Connect returns a connection to whoever serves the pipe. It ends with the test.
func Connect(t testing.TB, pipe *bufconn.Listener, as credentials.TransportCredentials) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///controller",
		grpc.WithTransportCredentials(as),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return pipe.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Errorf("close the connection: %v", err)
		}
	})
	return conn
}

// Results returns n results of one target, the i-th of them one millisecond
// after the one before and with a round trip of i+1 microseconds.
func Results(source, target string, start time.Time, n int) []probe.Result {
	rs := make([]probe.Result, n)
	for i := range rs {
		rs[i] = probe.Result{
			Time: start.Add(time.Duration(i) * time.Millisecond), Source: source, Target: target, LocalPort: 61000,
			Outcome: probe.Open, RTT: time.Duration(i+1) * time.Microsecond, Attempts: 1, Stamp: probe.StampKernel,
		}
	}
	return rs
}

// Report returns a report of the results.
func Report(epoch, sequence uint64, results []probe.Result, ends ...*synmeshv1.RunEnd) *synmeshv1.Report {
	var blocks convert.Blocks
	for i := range results {
		blocks.Add(&results[i])
	}
	return &synmeshv1.Report{Epoch: epoch, Sequence: sequence, Blocks: blocks.Take(), RunEnds: ends}
}
