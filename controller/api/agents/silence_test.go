package agents

import (
	"context"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/test/bufconn"

	"github.com/synmesh/synmesh/controller/api/apitest"
	"github.com/synmesh/synmesh/controller/feed"
	"github.com/synmesh/synmesh/controller/fleet"
	"github.com/synmesh/synmesh/internal/selector"
)

// swallowing is a connection of which nothing comes through while it is dark.
type swallowing struct {
	net.Conn
	dark *atomic.Bool
}

func (s *swallowing) Write(b []byte) (int, error) {
	if s.dark.Load() {
		return len(b), nil
	}
	return s.Conn.Write(b)
}

// An agent behind a link that swallows everything is given up within 45 s, by
// the keepalive that the server has.
func TestAnAgentThatIsNotHeardIsGivenUpInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := grpc.NewServer(grpc.KeepaliveParams(keepalive.ServerParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}))
		known := fleet.New()
		s := Register(server, Config{Admit: func(context.Context, string) error { return nil }, Fleet: known, Feed: feed.New(), History: &apitest.History{}, Logger: slog.New(slog.DiscardHandler)})
		pipe := bufconn.Listen(64 << 10)
		served := make(chan error, 1)
		go func() { served <- server.Serve(pipe) }()
		var dark atomic.Bool
		conn, err := grpc.NewClient("passthrough:///controller", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
				c, err := pipe.DialContext(ctx)
				if err != nil {
					return nil, err
				}
				return &swallowing{c, &dark}, nil
			}))
		if err != nil {
			t.Fatal(err)
		}
		apitest.Join(t, conn, hello())
		time.Sleep(time.Minute)
		state := func() fleet.State {
			synctest.Wait()
			return known.Agents(selector.Selector{})[0].State
		}
		if state() != fleet.Connected {
			t.Error("the agent is given up, and nothing was swallowed")
		}
		dark.Store(true)
		began := time.Now()
		for state() == fleet.Connected && time.Since(began) < time.Hour {
			time.Sleep(time.Second)
		}
		took := time.Since(began)
		t.Logf("it took %v to notice", took)
		if took > 45*time.Second {
			t.Errorf("it took %v to notice", took)
		}
		dark.Store(false)
		server.Stop()
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
		s.Wait()
	})
}
