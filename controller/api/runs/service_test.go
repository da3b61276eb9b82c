package runs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/synmesh/synmesh/controller/api/apitest"
	"github.com/synmesh/synmesh/controller/feed"
	"github.com/synmesh/synmesh/controller/fleet"
	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench is the service and a fleet of which the test plays the agents, in a
// bubble of synctest.
type bench struct {
	*testing.T
	fleet  *fleet.Fleet
	feed   *feed.Feed
	client synmeshv1.RunServiceClient
}

func bubble(t *testing.T, f func(*bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{T: t, fleet: fleet.New(), feed: feed.New()}
		b.client = synmeshv1.NewRunServiceClient(apitest.Dial(t, func(r grpc.ServiceRegistrar) {
			Register(r, Config{Fleet: b.fleet, Feed: b.feed, Logger: slog.New(slog.DiscardHandler)})
		}))
		f(b)
	})
}

// player is an agent, as seen by the controller.
type player struct {
	b       *bench
	name    string
	session *fleet.Session
}

// join adds an agent, in the data centre that its name begins with.
func (b *bench) join(name string) *player {
	s := b.fleet.Connect(fleet.Agent{Name: name, Labels: map[string]string{"dc": name[:3]}, Responder: "10.0.0.1:7401"}, &synmeshv1.SessionResponse{})
	<-s.Queue() // the welcome
	return &player{b, name, s}
}

// told returns what the agent has been told, as far as it has come.
func (p *player) told() (got []string) {
	p.b.Helper()
	synctest.Wait()
	for len(p.session.Queue()) > 0 {
		m := <-p.session.Queue()
		if m.GetStartRun() != nil {
			got = append(got, "start "+m.GetStartRun().GetRun())
		} else {
			got = append(got, "cancel "+m.GetCancelRun().GetRun())
		}
	}
	return got
}

// report publishes what the agent has reported and the history has stored.
func (p *player) report(results []probe.Result, ends ...*synmeshv1.RunEnd) {
	p.b.feed.Publish(feed.Event{Agent: p.name, Session: p.session.ID, Report: apitest.Report(1, 1, results, ends...)})
}

// preview publishes results that are not stored yet.
func (p *player) preview(number uint64, results []probe.Result) {
	p.publish(number, true, results)
}

// stored is report, of results of which there was a preview, or may have been.
func (p *player) stored(number uint64, results []probe.Result, ends ...*synmeshv1.RunEnd) {
	p.publish(number, false, results, ends...)
}

func (p *player) publish(number uint64, preview bool, results []probe.Result, ends ...*synmeshv1.RunEnd) {
	r := apitest.Report(1, 1, results, ends...)
	r.Preview = number
	p.b.feed.Publish(feed.Event{Agent: p.name, Session: p.session.ID, Report: r, Preview: preview})
}

// leave ends the session as the agents' service does.
func (p *player) leave() {
	p.session.End("the stream has ended")
	p.b.feed.Publish(feed.Event{Agent: p.name, Session: p.session.ID})
}

func found(run string, n int) []probe.Result {
	return apitest.Results(run, "db.fra:5432", time.Unix(1e9, 0), n)
}

func spec(count int64, targets ...string) *synmeshv1.ProbeSpec {
	s := &synmeshv1.ProbeSpec{Count: count, Interval: durationpb.New(time.Second), Timeout: durationpb.New(3 * time.Second), Flows: 1}
	for _, t := range targets {
		s.Targets = append(s.Targets, &synmeshv1.Target{Name: t})
	}
	return s
}

// viewer is a client that looks at a run.
type viewer struct {
	b      *bench
	stream grpc.ServerStreamingClient[synmeshv1.RunResponse]
	leave  context.CancelFunc
	run    string
}

// start begins a run and reads its first message.
func (b *bench) start(selector string, s *synmeshv1.ProbeSpec, agents ...string) *viewer {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	b.Cleanup(cancel)
	stream, err := b.client.Run(ctx, &synmeshv1.RunRequest{Selector: selector, Spec: s})
	if err != nil {
		b.Fatal(err)
	}
	v := &viewer{b: b, stream: stream, leave: cancel}
	first := v.next().GetStarted()
	if !strings.HasPrefix(first.GetRun(), "runs/") || !slices.Equal(first.GetAgents(), agents) {
		b.Fatalf("the run began with %v, want the agents %q", first, agents)
	}
	v.run = first.GetRun()
	synctest.Wait() // until the agents have been told
	return v
}

func (v *viewer) next() *synmeshv1.RunResponse {
	v.b.Helper()
	m, err := v.stream.Recv()
	if err != nil {
		v.b.Fatalf("receive: %v", err)
	}
	return m
}

// wantResults looks how many results the next message has.
func (v *viewer) wantResults(agent string, n int) {
	v.b.Helper()
	rs := v.next().GetResults().GetResults()
	if len(rs) != n {
		v.b.Fatalf("got %d results in a message, want %d", len(rs), n)
	}
	for _, r := range rs {
		if r.GetAgent() != agent || r.GetSource() != v.run {
			v.b.Fatalf("got the result %v, want one of %s", r, agent)
		}
	}
}

func (v *viewer) wantEnded(agent string, missing uint64, words string) {
	v.b.Helper()
	e := v.next().GetAgentEnded()
	if e.GetAgent() != agent || e.GetMissing() != missing || !strings.Contains(e.GetError(), words) || (words == "") != (e.GetError() == "") {
		v.b.Errorf("got %v, want that %s ended with %d missing and error %q", e, agent, missing, words)
	}
}

func (v *viewer) wantOver() {
	v.b.Helper()
	if m, err := v.stream.Recv(); !errors.Is(err, io.EOF) {
		v.b.Errorf("got %v and %v, want the end of the stream", m, err)
	}
}

// wantFault looks how a stream ended, skipping what came before.
func wantFault(t testing.TB, stream grpc.ServerStreamingClient[synmeshv1.RunResponse], code codes.Code, words string) {
	t.Helper()
	for {
		if _, err := stream.Recv(); err != nil {
			if s := status.Convert(err); s.Code() != code || !strings.Contains(s.Message(), words) || strings.Contains(s.Message(), "\n") {
				t.Errorf("got %v, want %v and one line with %q", err, code, words)
			}
			return
		}
	}
}

func TestResultsAreStreamedUntilEveryAgentHasEnded(t *testing.T) {
	bubble(t, func(b *bench) {
		nyc, fra := b.join("nyc-1"), b.join("fra-1")
		b.join("sin-1")
		v := b.start("dc in (fra,nyc)", spec(3, "db.fra:5432"), "fra-1", "nyc-1")
		for _, p := range []*player{fra, nyc} {
			if got := fmt.Sprint(p.told()); got != "[start "+v.run+"]" {
				b.Errorf("%s was told %s", p.name, got)
			}
		}
		fra.report(found(v.run, 2))
		v.wantResults("fra-1", 2)
		nyc.report(found(v.run, 3), &synmeshv1.RunEnd{Run: v.run, Produced: 3})
		v.wantResults("nyc-1", 3)
		v.wantEnded("nyc-1", 0, "")
		fra.report(append(found("measurements/web", 5), found(v.run, 1)...), &synmeshv1.RunEnd{Run: "runs/other"})
		v.wantResults("fra-1", 1)
		fra.report(nil, &synmeshv1.RunEnd{Run: v.run, Produced: 3})
		v.wantEnded("fra-1", 0, "")
		v.wantOver()
		if told := append(fra.told(), nyc.told()...); len(told) > 0 {
			b.Errorf("agents that had ended were told %q", told)
		}
	})
}

func TestManyResultsComeInSeveralMessages(t *testing.T) {
	bubble(t, func(b *bench) {
		fra := b.join("fra-1")
		v := b.start("", spec(1, "db.fra:1"), "fra-1")
		fra.report(found(v.run, 2500), &synmeshv1.RunEnd{Run: v.run, Produced: 2500})
		v.wantResults("fra-1", 1000)
		v.wantResults("fra-1", 1000)
		v.wantResults("fra-1", 500)
		v.wantEnded("fra-1", 0, "")
		v.wantOver()
	})
}

func TestHowAnAgentsPartEnds(t *testing.T) {
	tests := []struct {
		name    string
		end     func(fra *player, run string)
		missing uint64
		words   string
	}{
		{"with what is missing counted", func(fra *player, run string) {
			fra.report(nil, &synmeshv1.RunEnd{Run: run, Produced: 7})
		}, 5, ""},
		{"never with fewer than none missing", func(fra *player, run string) {
			fra.report(nil, &synmeshv1.RunEnd{Run: run, Produced: 1})
		}, 0, ""},
		{"with the agent's own error", func(fra *player, run string) {
			fra.report(nil, &synmeshv1.RunEnd{Run: run, Produced: 2, Error: "no source port is free"})
		}, 0, "no source port is free"},
		{"when the agent is lost", func(fra *player, _ string) { fra.leave() }, 0, "it was lost: its session ended in the middle of the run"},
		{"when the agent is lost and comes back", func(fra *player, _ string) {
			fra.b.join("fra-1")
			fra.leave()
		}, 0, "it was lost"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(b *bench) {
				fra, nyc := b.join("fra-1"), b.join("nyc-1")
				v := b.start("", spec(3, "db.fra:5432"), "fra-1", "nyc-1")
				fra.report(found(v.run, 2))
				v.wantResults("fra-1", 2)
				tt.end(fra, v.run)
				v.wantEnded("fra-1", tt.missing, tt.words)
				nyc.report(nil, &synmeshv1.RunEnd{Run: v.run})
				v.wantEnded("nyc-1", 0, "")
				v.wantOver()
			})
		})
	}
}

func TestTheEndOfAnEarlierSessionIsNoLoss(t *testing.T) {
	bubble(t, func(b *bench) {
		old := b.join("fra-1")
		fra := b.join("fra-1")
		v := b.start("", spec(1, "db.fra:5432"), "fra-1")
		old.leave()
		fra.report(found(v.run, 1), &synmeshv1.RunEnd{Run: v.run, Produced: 1})
		v.wantResults("fra-1", 1)
		v.wantEnded("fra-1", 0, "")
		v.wantOver()
	})
}

func TestAClientThatGoesAwayTakesTheRunAlong(t *testing.T) {
	bubble(t, func(b *bench) {
		fra, nyc := b.join("fra-1"), b.join("nyc-1")
		v := b.start("", spec(0, "db.fra:5432"), "fra-1", "nyc-1")
		fra.report(nil, &synmeshv1.RunEnd{Run: v.run})
		v.wantEnded("fra-1", 0, "")
		time.Sleep(24 * time.Hour) // a run without a count goes on and on
		v.leave()
		if got := fmt.Sprint(fra.told()); got != "[start "+v.run+"]" {
			b.Errorf("the agent that had ended was told %s", got)
		}
		if got := fmt.Sprint(nyc.told()); got != "[start "+v.run+" cancel "+v.run+"]" {
			b.Errorf("the agent that was at it was told %s", got)
		}
	})
}

func TestARunThatTakesTooLongIsEnded(t *testing.T) {
	bubble(t, func(b *bench) {
		players := []*player{b.join("fra-1"), b.join("nyc-1")}
		v := b.start("", spec(10, "db.fra:5432"), "fra-1", "nyc-1")
		began := time.Now()
		players[0].report(found(v.run, 1))
		v.wantResults("fra-1", 1)
		v.wantEnded("fra-1", 0, "it did not finish within 28s")
		v.wantEnded("nyc-1", 0, "it did not finish within 28s")
		v.wantOver()
		if took := time.Since(began); took != 28*time.Second {
			b.Errorf("it was ended after %v; 10 probes, a second apart, of 3s, and 15s of grace are 28s", took)
		}
		for _, p := range players {
			if got := fmt.Sprint(p.told()); got != "[start "+v.run+" cancel "+v.run+"]" {
				b.Errorf("%s was told %s", p.name, got)
			}
		}
	})
}

func TestHowLongARunMayTake(t *testing.T) {
	for _, tt := range []struct {
		name string
		spec probe.Spec
		want time.Duration
	}{
		{"one probe", probe.Spec{Count: 1, Interval: time.Second, Timeout: 3 * time.Second}, 19 * time.Second},
		{"a day", probe.Spec{Count: 86400, Interval: time.Second, Timeout: time.Minute}, 24*time.Hour + 75*time.Second},
		{"with retries, after 1, 2 and 4 seconds", probe.Spec{Count: 1, Interval: time.Second, Timeout: time.Second, Retries: 3}, 24 * time.Second},
		{"longer than can be counted", probe.Spec{Count: probe.MaxCount, Interval: probe.MaxInterval, Timeout: time.Second}, math.MaxInt64},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := (&run{spec: tt.spec}).within(); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestASlowReaderIsToldWhereTheRestIs(t *testing.T) {
	bubble(t, func(b *bench) {
		fra := b.join("fra-1")
		v := b.start("", spec(0, "db.fra:5432"), "fra-1")
		for n := range 40_000 { // which nobody reads
			fra.report(found(v.run, 1))
			if n%100 == 0 {
				synctest.Wait()
			}
		}
		wantFault(b, v.stream, codes.ResourceExhausted, "those of "+v.run+" can be listed with probectl get results --source "+v.run)
		if got := fmt.Sprint(fra.told()); got != "[start "+v.run+" cancel "+v.run+"]" {
			b.Errorf("the agent was told %s", got)
		}
	})
}

func TestTargetsMayBeAgents(t *testing.T) {
	bubble(t, func(b *bench) {
		fra := b.join("fra-1")
		b.join("nyc-1").leave()
		s := spec(1, "nyc-1", "db.fra:5432")
		s.Targets = append(s.Targets, &synmeshv1.Target{Name: "db", Address: "10.0.0.9:5432"})
		v := b.start("dc=fra", s, "fra-1")
		synctest.Wait()
		var got []string
		for _, t := range (<-fra.session.Queue()).GetStartRun().GetSpec().GetTargets() {
			got = append(got, t.GetName()+"@"+t.GetAddress())
		}
		if want := []string{"nyc-1@10.0.0.1:7401", "db.fra:5432@db.fra:5432", "db@10.0.0.9:5432"}; !slices.Equal(got, want) {
			b.Errorf("the agent was told to probe %q, want %q", got, want)
		}
		v.leave()
	})
}

func TestARunThatCannotBeginSaysWhy(t *testing.T) {
	tests := []struct {
		name     string
		selector string
		spec     *synmeshv1.ProbeSpec
		code     codes.Code
		words    string
	}{
		{"with a bad selector", "dc=", spec(1, "a:1"), codes.InvalidArgument, "at 4: a value is missing"},
		{"with a selector that matches nobody", "dc=ams", spec(1, "a:1"), codes.FailedPrecondition, `no agent matches "dc=ams"; see probectl get agents`},
		{"with a selector of agents that are all away", "dc=nyc", spec(1, "a:1"), codes.FailedPrecondition, `none of the 1 agents that match "dc=nyc" is connected`},
		{"with a target that is neither an address nor an agent", "", spec(1, "ams-1"), codes.InvalidArgument,
			`target "ams-1": no port; write ams-1:443; nor is it an agent of this fleet: see probectl get agents`},
		{"with an IPv6 address that has no port", "", spec(1, "2001:db8::1"), codes.InvalidArgument, "write [2001:db8::1]:443"},
		{"with a target that is an agent without a responder", "", spec(1, "sin-1"), codes.FailedPrecondition, `agent "sin-1" has no responder`},
		{"with a target that has several ports", "", spec(1, "a:1,2"), codes.InvalidArgument, "one is wanted"},
		{"with a target that is malformed", "", spec(1, "a:http"), codes.InvalidArgument, `"http" is not a number`},
		{"without a target", "", spec(1), codes.InvalidArgument, "no target; name at least one"},
		{"with a count below nothing", "", spec(-1, "a:1"), codes.InvalidArgument, "count -1 is outside"},
		{"without a timeout", "", &synmeshv1.ProbeSpec{Targets: []*synmeshv1.Target{{Name: "a:1"}}, Interval: durationpb.New(1e9), Flows: 1},
			codes.InvalidArgument, "timeout 0s is outside"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(b *bench) {
				fra := b.join("fra-1")
				b.join("nyc-1").leave()
				b.fleet.SetGossiped([]fleet.Agent{{Name: "sin-1"}})
				stream, err := b.client.Run(b.Context(), &synmeshv1.RunRequest{Selector: tt.selector, Spec: tt.spec})
				if err != nil {
					b.Fatal(err)
				}
				wantFault(b, stream, tt.code, tt.words)
				if told := fra.told(); len(told) > 0 {
					b.Errorf("an agent was told %q", told)
				}
			})
		})
	}
	t.Run("with nobody connected at all", func(t *testing.T) {
		bubble(t, func(b *bench) {
			stream, err := b.client.Run(b.Context(), &synmeshv1.RunRequest{Spec: spec(1, "a:1")})
			if err != nil {
				b.Fatal(err)
			}
			wantFault(b, stream, codes.FailedPrecondition, "no agent is connected; start one with probe-agent")
		})
	})
}

func TestRunsDoNotSeeEachOther(t *testing.T) {
	bubble(t, func(b *bench) {
		fra := b.join("fra-1")
		one, two := b.start("", spec(1, "a:1"), "fra-1"), b.start("", spec(1, "a:1"), "fra-1")
		if one.run == two.run {
			b.Fatalf("both are called %s", one.run)
		}
		fra.report(append(found(one.run, 1), found(two.run, 2)...), &synmeshv1.RunEnd{Run: one.run, Produced: 1}, &synmeshv1.RunEnd{Run: two.run, Produced: 2})
		one.wantResults("fra-1", 1)
		one.wantEnded("fra-1", 0, "")
		one.wantOver()
		two.wantResults("fra-1", 2)
		two.wantEnded("fra-1", 0, "")
		two.wantOver()
	})
}

// sent is a stream that keeps what is sent on it.
type sent struct {
	grpc.ServerStreamingServer[synmeshv1.RunResponse]
	messages []*synmeshv1.RunResponse
}

func (s *sent) Send(m *synmeshv1.RunResponse) error {
	s.messages = append(s.messages, m)
	return nil
}

func (s *sent) Context() context.Context { return context.Background() }

// Between looking at the fleet and telling an agent, that may leave.
func TestAnAgentMayLeaveBeforeItIsTold(t *testing.T) {
	st := &sent{}
	r := &run{service: &service{Config: Config{Fleet: fleet.New(), Feed: feed.New(), Logger: slog.New(slog.DiscardHandler)}},
		stream: st, name: "runs/a", waiting: make(map[string]*part)}
	if err := r.do([]fleet.Agent{{Name: "fra-1"}}); err != nil {
		t.Fatal(err)
	}
	if n := len(st.messages); n != 2 || st.messages[1].GetAgentEnded().GetError() != "disconnected before the run began" {
		t.Errorf("sent was %v", st.messages)
	}
}
