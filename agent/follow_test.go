//go:build linux

package agent

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/synmesh/synmesh/agent/tasks"
	"github.com/synmesh/synmesh/internal/gossip"
	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// With a disk that takes nothing any more the keys are taken over as well.
func TestAnAgentTakesOverOtherKeysAndConfirmsEach(t *testing.T) {
	for _, full := range []bool{false, true} {
		t.Run(fmt.Sprintf("full disk %v", full), func(t *testing.T) {
			c := startController(t)
			g := startGossip(t, c)
			steps, err := gossip.Keys{Primary: gossipKey}.Rotate([]byte("abcdefghijklmnopabcdefghijklmnop"))
			if err != nil {
				t.Fatal(err)
			}
			seed, err := g.Addr(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			cfg := config(t, c.members)
			if full { // even for root
				if err := os.MkdirAll(filepath.Join(cfg.StateDir, toldFile+".tmp", "x"), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			confirmed := make(chan string)
			c.follow = func(ctx context.Context, agent, version string) (string, map[string][]byte, error) {
				select {
				case confirmed <- version:
				case <-ctx.Done():
					return "", nil, ctx.Err()
				}
				n := len(version)
				if agent != "fra-1" || n == len(steps) {
					<-ctx.Done()
					return "", nil, ctx.Err()
				}
				if err := g.SetKeys(steps[n]); err != nil {
					return "", nil, err
				}
				text, err := gossip.Secrets{Keys: steps[n], Trusted: []ed25519.PublicKey{c.members.CA.Announcer().Public().(ed25519.PublicKey)}}.Encode()
				return version + "+", map[string][]byte{gossip.SecretsFile: text}, err
			}
			cfg.Controllers = []string{c.address}
			cfg.Gossip = gossip.Config{Listen: netip.MustParseAddrPort("127.0.0.1:0"), Seeds: []string{seed.String()}}
			start(t, cfg)
			c.accept()
			for _, want := range []string{"", "+", "++", "+++"} {
				select {
				case got := <-confirmed:
					if got != want {
						t.Fatalf("it says that it uses %q, want %q", got, want)
					}
				case <-time.After(patience):
					t.Fatalf("it does not say that it uses %q", want)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if _, err := g.Wait(ctx, func(ps []gossip.Peer) bool { return len(ps) == 1 && ps[0].Name == "fra-1" }); err != nil {
				t.Error(err)
			}
			if full {
				return
			}
			var log bytes.Buffer
			a := &Agent{cfg: Config{StateDir: cfg.StateDir, Logger: slog.New(slog.NewTextHandler(&log, nil))}}
			s, _, known, err := a.readTold()
			if err != nil || !known || !bytes.Equal(s.Keys.Primary, steps[2].Primary) || len(s.Keys.Others) != 0 {
				t.Errorf("after a start it would have %v: %v", s.Keys, err)
			}
		})
	}
}

// Gossip is a hint, and what is kept for it must not keep an agent from starting.
func TestAnAgentStartsWithWhatItKeptForTheGossipDamaged(t *testing.T) {
	c := startController(t)
	for _, text := range []string{"", "{", `{"secrets":{"keys":"x"}}`} {
		cfg := config(t, c.members)
		if err := os.WriteFile(filepath.Join(cfg.StateDir, toldFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg.Controllers = []string{c.address}
		cfg.Gossip = gossip.Config{Listen: netip.MustParseAddrPort("127.0.0.1:0"), Seeds: []string{"127.0.0.1:1"}}
		stop := start(t, cfg)
		c.accept()
		stop()
	}
}

// busy is a prober that is at it until it is stopped.
type busy struct{}

// Do implements tasks.Prober.
func (busy) Do(ctx context.Context, _ probe.Spec, _ func(*probe.Result)) error {
	<-ctx.Done()
	return nil
}

type nowhere struct{}

// Add implements tasks.Sink.
func (nowhere) Add(*probe.Result) {}

// EndRun implements tasks.Sink.
func (nowhere) EndRun(*synmeshv1.RunEnd) {}

// A new certificate waits for runs, but not for long.
func TestASessionWithANewCertificateWaitsForRunsAnHourAtMost(t *testing.T) {
	for name, tt := range map[string]struct{ run, want time.Duration }{
		"no run": {0, 0}, "a run of a minute": {time.Minute, time.Minute}, "a run without an end": {10 * maxIdle, maxIdle},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &Agent{tasks: tasks.New(busy{}, nowhere{}, slog.New(slog.DiscardHandler))}
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- a.tasks.Run(ctx) }()
				if tt.run > 0 {
					a.tasks.StartRun(&synmeshv1.StartRun{Run: "runs/a", Spec: spec(0, "127.0.0.1:1")}, time.Now())
					synctest.Wait()
					if a.tasks.Runs() != 1 {
						t.Fatal("there is no run")
					}
					time.AfterFunc(tt.run, func() { a.tasks.CancelRun("runs/a") })
				}
				began := time.Now()
				if err := a.idle(ctx); err != errRenewed {
					t.Errorf("got %v", err)
				}
				if took := time.Since(began); took < tt.want || took > tt.want+2*time.Second {
					t.Errorf("it took %v, want %v", took, tt.want)
				}
				cancel()
				if err := <-ended; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestAClockThatIsSetIsNoticedWithinAMinute(t *testing.T) {
	if wait, early := doze(12 * time.Hour); wait > time.Minute || !early {
		t.Errorf("a long wait is one of %v, early %v", wait, early)
	}
	if wait, early := doze(time.Second); wait != time.Second || early {
		t.Errorf("a short one is %v, early %v", wait, early)
	}
}

func TestWhoIsToldToComeAgainDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		busy, err := status.New(codes.ResourceExhausted, "too many").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(7 * time.Second)})
		if err != nil {
			t.Fatal(err)
		}
		calls, began := 0, time.Now()
		got, err := patiently(t.Context(), func() (int, error) {
			if calls++; calls < 3 {
				return 0, busy.Err()
			}
			return calls, nil
		})
		if err != nil || got != 3 || time.Since(began) != 14*time.Second {
			t.Errorf("after %v: %d, %v", time.Since(began), got, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := patiently(ctx, func() (int, error) { return 0, busy.Err() }); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("a controller that has no time: %v", err)
		}
		if _, err := patiently(ctx, func() (int, error) { return 0, status.Error(codes.PermissionDenied, "no") }); status.Code(err) != codes.PermissionDenied {
			t.Errorf("a controller that refuses: %v", err)
		}
	})
}
