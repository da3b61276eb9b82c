package agents

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/synmesh/synmesh/controller/api/apitest"
	"github.com/synmesh/synmesh/controller/feed"
	"github.com/synmesh/synmesh/controller/fleet"
	"github.com/synmesh/synmesh/internal/identity"
	"github.com/synmesh/synmesh/internal/selector"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench is the service with all around it, in a bubble of synctest.
type bench struct {
	*testing.T
	fleet   *fleet.Fleet
	feed    *feed.Feed
	history *apitest.History
	conn    *grpc.ClientConn
}

func run(t *testing.T, f func(*bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{T: t, fleet: fleet.New(), feed: feed.New(), history: &apitest.History{}}
		var s *Service
		t.Cleanup(func() { s.Wait() }) // after the server has stopped
		b.conn = apitest.Dial(t, func(r grpc.ServiceRegistrar) {
			s = Register(r, Config{Admit: everybody, Fleet: b.fleet, Feed: b.feed, History: b.history, Logger: slog.New(slog.DiscardHandler)})
		})
		f(b)
	})
}

func everybody(context.Context, string) error { return nil }

func hello() *synmeshv1.Hello {
	return &synmeshv1.Hello{Name: "fra-1", Labels: map[string]string{"dc": "fra"}, Version: "v1", Epoch: 5, Responder: "10.0.0.1:7401", Stamping: "quiet"}
}

func (b *bench) join() *apitest.Agent {
	b.Helper()
	return b.joinAs(hello())
}

func (b *bench) joinAs(h *synmeshv1.Hello) *apitest.Agent {
	b.Helper()
	a, _ := apitest.Join(b, b.conn, h)
	return a
}

func report(sequence uint64, results int) *synmeshv1.Report {
	return apitest.Report(5, sequence, apitest.Results("runs/a", "db.fra:5432", time.Unix(1e9, 0), results))
}

// agent returns what the fleet knows of the only agent.
func (b *bench) agent() fleet.Agent {
	b.Helper()
	synctest.Wait()
	all := b.fleet.Agents(selector.Selector{})
	if len(all) != 1 {
		b.Fatalf("the fleet has %d agents, want one", len(all))
	}
	return all[0]
}

// wantEnd looks why a session ended, and that no more was sent on it.
func (b *bench) wantEnd(a *apitest.Agent, code codes.Code, words string) {
	b.Helper()
	rest, err := a.End()
	if s := status.Convert(err); s.Code() != code || !strings.Contains(s.Message(), words) || strings.Contains(s.Message(), "\n") {
		b.Errorf("the session ended with %v, want %v and one line with %q", err, code, words)
	}
	if len(rest) > 0 {
		b.Errorf("before the end came %v", rest)
	}
}

// published returns what has been published to a subscription, as far as it has come.
func (b *bench) published(s *feed.Subscription) (got []string) {
	b.Helper()
	synctest.Wait()
	for len(s.Events()) > 0 {
		if e := <-s.Events(); e.Report == nil {
			got = append(got, fmt.Sprintf("session %d ended", e.Session))
		} else if e.Preview {
			got = append(got, fmt.Sprintf("session %d preview %d", e.Session, e.Report.GetPreview()))
		} else {
			got = append(got, fmt.Sprintf("session %d report %d", e.Session, e.Report.GetSequence()))
		}
	}
	return got
}

func TestASessionBeginsWithAWelcome(t *testing.T) {
	tests := []struct {
		name   string
		epoch  uint64
		stored uint64
	}{
		{"of an epoch of which nothing is stored, with 0", 6, 0},
		{"of an epoch of which something is, with the highest sequence", 5, 3},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			run(t, func(b *bench) {
				b.history.Put(time.Now(), "fra-1", report(3, 1))
				h := hello()
				h.Epoch = tt.epoch
				if _, sequence := apitest.Join(b, b.conn, h); sequence != tt.stored {
					b.Errorf("the welcome says %d, want %d", sequence, tt.stored)
				}
				a := b.agent()
				if a.State != fleet.Connected || a.Name != "fra-1" || a.Labels["dc"] != "fra" || a.Version != "v1" ||
					a.Responder != "10.0.0.1:7401" || a.Stamping != "quiet" {
					b.Errorf("the fleet knows %+v", a)
				}
			})
		})
	}
}

func TestAReportIsAcknowledgedOnceItIsStored(t *testing.T) {
	run(t, func(b *bench) {
		durable := make(chan error)
		b.history.BeforeAppend = func(*synmeshv1.Report) error { return <-durable }
		sub := b.feed.Subscribe("runs/a")
		defer sub.Close()
		a := b.join()
		acknowledged := make(chan uint64, 1)
		a.Report(report(1, 3))
		go func() { acknowledged <- a.Acknowledged() }()
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(acknowledged) > 0 || len(b.published(sub)) > 0 {
			b.Fatal("the report is acknowledged or published, and Append has not returned")
		}
		durable <- nil
		if n := <-acknowledged; n != 1 {
			b.Errorf("report %d is acknowledged, want 1", n)
		}
		if got := b.published(sub); len(got) != 1 || got[0] != "session 1 report 1" {
			b.Errorf("published is %q", got)
		}
	})
}

func TestWhatIsSentTwiceIsStoredAndPublishedOnce(t *testing.T) {
	run(t, func(b *bench) {
		sub := b.feed.Subscribe("runs/a")
		defer sub.Close()
		a := b.join()
		for n := range uint64(3) {
			a.Report(report(n+1, 2))
			a.Acknowledged()
		}
		a.Leave() // and the agent has seen no acknowledgement, say
		synctest.Wait()
		a, sequence := apitest.Join(b, b.conn, hello())
		if sequence != 3 {
			b.Errorf("the welcome says %d, want 3", sequence)
		}
		for _, n := range []uint64{1, 2, 3, 4} {
			a.Report(report(n, 2))
			if got := a.Acknowledged(); got != n {
				b.Errorf("report %d is acknowledged, want %d", got, n)
			}
		}
		if n := len(b.history.Entries()); n != 4 {
			b.Errorf("%d reports are stored, want 4", n)
		}
		want := "[session 1 report 1 session 1 report 2 session 1 report 3 session 1 ended session 2 report 4]"
		if got := fmt.Sprint(b.published(sub)); got != want {
			b.Errorf("published is %s, want %s", got, want)
		}
	})
}

func TestASessionEndsWhereTheHistoryFails(t *testing.T) {
	full := errors.New("no space left on device")
	t.Run("and the report that was not stored is not acknowledged", func(t *testing.T) {
		run(t, func(b *bench) {
			b.history.BeforeAppend = func(r *synmeshv1.Report) error {
				if r.GetSequence() == 2 {
					return full
				}
				return nil
			}
			sub := b.feed.Subscribe("runs/a")
			defer sub.Close()
			a := b.join()
			a.Report(report(1, 1))
			if n := a.Acknowledged(); n != 1 {
				b.Errorf("report %d is acknowledged, want 1", n)
			}
			a.Report(report(2, 1))
			b.wantEnd(a, codes.Unavailable, "report 2 was not stored (no space left on device); keep it and send it again")
			if got := fmt.Sprint(b.published(sub)); got != "[session 1 report 1 session 1 ended]" {
				b.Errorf("published is %s", got)
			}
			if b.agent().State != fleet.Disconnected {
				b.Error("the agent still counts as connected")
			}
		})
	})
	t.Run("and none begins that cannot tell what is stored", func(t *testing.T) {
		run(t, func(b *bench) {
			b.history.SequenceError = full
			a := apitest.Open(b, b.conn)
			a.Hello(hello())
			b.wantEnd(a, codes.Unavailable, "the history cannot be read (no space left on device)")
			if n := len(b.fleet.Agents(selector.Selector{})); n != 0 {
				b.Errorf("the fleet has %d agents, want none", n)
			}
		})
	})
}

func TestASecondSessionOfANameEndsTheFirst(t *testing.T) {
	run(t, func(b *bench) {
		sub := b.feed.Subscribe("runs/a")
		defer sub.Close()
		first := b.join()
		second := b.join()
		b.wantEnd(first, codes.Aborted, "a newer session of this agent has begun; two hosts must not share a state folder")
		if b.agent().State != fleet.Connected {
			b.Error("the end of the first session took the second along")
		}
		second.Report(report(1, 1))
		second.Acknowledged()
		if got := fmt.Sprint(b.published(sub)); got != "[session 1 ended session 2 report 1]" {
			b.Errorf("published is %s", got)
		}
	})
}

func TestMalformedReportsAreRefusedByTheColumn(t *testing.T) {
	block := func(r *synmeshv1.Report) *synmeshv1.ResultBlock { return r.GetBlocks()[0] }
	tests := []struct {
		name   string
		change func(*synmeshv1.Report)
		words  string
	}{
		{"with a round trip too few", func(r *synmeshv1.Report) { block(r).Rtts = block(r).Rtts[1:] }, "blocks[0]: rtts"},
		{"with a time too many", func(r *synmeshv1.Report) { block(r).TimeDeltas = append(block(r).TimeDeltas, 1) }, "time_deltas"},
		{"without local ports", func(r *synmeshv1.Report) { block(r).LocalPorts = nil }, "local_ports"},
		{"with an optional column that is too short", func(r *synmeshv1.Report) { block(r).Attempts = []uint32{1} }, "attempts"},
		{"with an address of 5 bytes", func(r *synmeshv1.Report) { block(r).Address = make([]byte, 5) }, "address"},
		{"with a port that is none", func(r *synmeshv1.Report) { block(r).Port = 65536 }, "port"},
		{"with an outcome that is none", func(r *synmeshv1.Report) { block(r).Outcomes[1] = 9 }, "outcomes[1]"},
		{"with a SYN-ACK that is not there", func(r *synmeshv1.Report) { block(r).SynAckIndexes[0] = 1 }, "syn_ack_indexes[0]"},
		{"with a note about no row", func(r *synmeshv1.Report) { block(r).Notes = []*synmeshv1.ResultNote{{Row: 2}} }, "notes[0]"},
		{"with an ICMP error from nowhere", func(r *synmeshv1.Report) {
			block(r).Notes = []*synmeshv1.ResultNote{{Icmp: &synmeshv1.Icmp{Type: 3}}}
		}, "icmp.from"},
		{"with a fault in a later block", func(r *synmeshv1.Report) {
			r.Blocks = append(r.Blocks, &synmeshv1.ResultBlock{Outcomes: []synmeshv1.Outcome{1}})
		}, "blocks[1]: time_deltas"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			run(t, func(b *bench) {
				a := b.join()
				r := report(1, 2)
				tt.change(r)
				a.Report(r)
				m := a.Recv().GetReject()
				if m.GetEpoch() != 5 || m.GetSequence() != 1 || !strings.Contains(m.GetReason(), tt.words) {
					b.Errorf("got %v, want that report 1 is rejected because of %q", m, tt.words)
				}
				if n := len(b.history.Entries()); n != 0 {
					b.Errorf("%d reports are stored, want none", n)
				}
			})
		})
	}
}

// Until the agent has taken in that a report was rejected, none of those behind
// it may count as stored: their numbers would stand for that one, too.
func TestBehindARejectedReportNothingIsStoredUntilAResume(t *testing.T) {
	run(t, func(b *bench) {
		a := b.join()
		bad := report(2, 2)
		bad.Blocks[0].Rtts = nil
		a.Report(report(1, 2))
		a.Report(bad)
		a.Report(report(3, 2))
		other := report(1, 2)
		other.Epoch = 6
		a.Report(other)
		if n := a.Acknowledged(); n != 1 {
			b.Errorf("report %d is acknowledged, want 1", n)
		}
		if m := a.Recv().GetReject(); m.GetSequence() != 2 {
			b.Errorf("got %v, want that report 2 is rejected", m)
		}
		if m := a.Recv().GetAcknowledge(); m.GetEpoch() != 6 || m.GetSequence() != 1 {
			b.Errorf("got %v, want that of the other epoch", m)
		}
		a.Resume(5)
		a.Report(report(3, 2))
		if n := a.Acknowledged(); n != 3 || len(b.history.Entries()) != 3 {
			b.Errorf("report %d is acknowledged and %d are stored, want 3", n, len(b.history.Entries()))
		}
	})
}

// Whether a hello names them or not, and over however many sessions: each epoch
// that is new costs the history a mark.
func TestAnAgentMayNotUseEpochsUp(t *testing.T) {
	run(t, func(b *bench) {
		epoch := func(n uint64) *synmeshv1.Report {
			r := report(1, 1)
			r.Epoch = n
			return r
		}
		for n := uint64(1); n < epochsAtOnce; {
			h := hello()
			for i := range uint64(1000) {
				h.OlderEpochs = append(h.OlderEpochs, n+i)
			}
			a, _ := apitest.Join(b, b.conn, h)
			for range 1000 {
				a.Report(epoch(n))
				a.Acknowledged()
				n++
			}
		}
		a := b.join()
		a.Report(epoch(1)) // which is stored
		a.Acknowledged()
		a.Report(epoch(3000))
		b.wantEnd(a, codes.ResourceExhausted, "reports of more than 2000 new epochs")
		time.Sleep(epochEvery)
		a = b.join()
		a.Report(epoch(3000))
		a.Acknowledged()
	})
}

func TestNobodyKeepsTheOthersFromConnecting(t *testing.T) {
	g := greeting{of: make(map[identity.Identity]int)}
	mute, other := identity.Identity{Kind: identity.Agent, Name: "fra-1"}, identity.Identity{Kind: identity.Agent, Name: "fra-2"}
	entered := 0
	for range maxGreeting {
		if g.enter(mute) {
			entered++
		}
	}
	if entered != ownGreeting || !g.enter(other) {
		t.Fatalf("one agent entered %d times; %d are allowed, and another agent then, too", entered, ownGreeting)
	}
	g.leave(mute)
	if !g.enter(mute) || g.enter(mute) {
		t.Error("who leaves makes room for one")
	}
	for range entered {
		g.leave(mute)
	}
	if g.leave(other); g.all != 0 || len(g.of) != 0 {
		t.Errorf("nobody is left, and %d of %v are counted", g.all, g.of)
	}
}

func TestTheWelcomeTellsOfOlderEpochsAndCredit(t *testing.T) {
	run(t, func(b *bench) {
		old := report(3, 1)
		old.Epoch = 3
		b.history.Put(time.Now(), "fra-1", old)
		h := hello()
		h.OlderEpochs = []uint64{2, 3}
		a := apitest.Open(b, b.conn)
		a.Hello(h)
		w := a.Recv().GetWelcome()
		if fmt.Sprint(w.GetOlderSequences()) != "[0 3]" || w.GetCredit() != maxCredit {
			b.Errorf("the welcome is %v", w)
		}
	})
}

func TestOnlySoManyConnectAtOnce(t *testing.T) {
	run(t, func(b *bench) {
		var silent []*apitest.Agent
		for range maxGreeting {
			silent = append(silent, apitest.Open(b, b.conn))
		}
		synctest.Wait()
		_, err := apitest.Open(b, b.conn).End()
		s := status.Convert(err)
		if s.Code() != codes.ResourceExhausted || len(s.Details()) != 1 {
			b.Fatalf("one too many: %v with %v", err, s.Details())
		}
		if info, ok := s.Details()[0].(*errdetails.RetryInfo); !ok || info.GetRetryDelay().AsDuration() >= fleet.Return {
			b.Errorf("it is told %v", s.Details())
		}
		silent[0].Hello(hello())
		silent[0].Recv()
		b.join()
	})
}

func TestAStoppingControllerLetsNobodyIn(t *testing.T) {
	run(t, func(b *bench) {
		b.fleet.Drain("the controller is stopping")
		_, err := apitest.Open(b, b.conn).End()
		if s := status.Convert(err); s.Code() != codes.Unavailable || len(s.Details()) != 1 {
			b.Errorf("got %v with %v, want Unavailable and when to come back", err, s.Details())
		}
	})
}

func TestAHeartbeatIsEchoed(t *testing.T) {
	run(t, func(b *bench) {
		a := b.join()
		at := timestamppb.New(time.Unix(7, 0))
		a.Heartbeat(&synmeshv1.Heartbeat{Time: at})
		m := a.Recv().GetEcho()
		if m.GetHeartbeatTime().AsTime() != at.AsTime() || !m.GetTime().AsTime().Equal(time.Now()) {
			b.Errorf("the echo is %v", m)
		}
	})
}

func TestWhoeverDoesNotIntroduceItselfIsRefused(t *testing.T) {
	tests := []struct {
		name  string
		say   func(*apitest.Agent)
		words string
	}{
		{"with a report instead of a hello", func(a *apitest.Agent) { a.Report(report(1, 1)) }, "the first message of a session is a hello"},
		{"with a label that stands for the name", func(a *apitest.Agent) {
			h := hello()
			h.Labels = map[string]string{"name": "x"}
			a.Hello(h)
		}, "hello: label \"name=x\""},
		{"with a responder that is no address", func(a *apitest.Agent) {
			h := hello()
			h.Responder = "db.fra:5432"
			a.Hello(h)
		}, `hello: responder "db.fra:5432" is not address:port`},
		{"by saying nothing", func(*apitest.Agent) {}, "no hello came within 10s"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			run(t, func(b *bench) {
				a := apitest.Open(b, b.conn)
				tt.say(a)
				b.wantEnd(a, codes.InvalidArgument, tt.words)
				if n := len(b.fleet.Agents(selector.Selector{})); n != 0 {
					b.Errorf("the fleet has %d agents, want none", n)
				}
			})
		})
	}
}

func TestAnAgentWithoutAResponderIsWelcome(t *testing.T) {
	run(t, func(b *bench) {
		h := hello()
		h.Responder = ""
		apitest.Join(b, b.conn, h)
		b.agent()
	})
}

func TestHeartbeatsAndReportsShowThatAnAgentIsAlive(t *testing.T) {
	run(t, func(b *bench) {
		began := time.Now()
		a := b.join()
		time.Sleep(5 * time.Second)
		a.Heartbeat(&synmeshv1.Heartbeat{Dropped: 7, Backlog: 8})
		if got := b.agent(); got.Dropped != 7 || got.Backlog != 8 || got.LastSeen.Sub(began) != 5*time.Second {
			b.Errorf("after a heartbeat the fleet knows %+v", got)
		}
		time.Sleep(5 * time.Second)
		a.Report(report(1, 1))
		a.Acknowledged()
		if got := b.agent(); got.Dropped != 7 || got.LastSeen.Sub(began) != 10*time.Second {
			b.Errorf("after a report the fleet knows %+v", got)
		}
	})
}

func TestMessagesForAnAgentReachItInOrder(t *testing.T) {
	run(t, func(b *bench) {
		a := b.join()
		s := b.fleet.Session("fra-1")
		for i := range 100 {
			s.Send(&synmeshv1.SessionResponse{Message: &synmeshv1.SessionResponse_CancelRun{CancelRun: &synmeshv1.CancelRun{Run: fmt.Sprint("runs/", i)}}})
		}
		for i := range 100 {
			if got, want := a.Recv().GetCancelRun().GetRun(), fmt.Sprint("runs/", i); got != want {
				b.Fatalf("got %s, want %s", got, want)
			}
		}
	})
}

func TestTheEndOfASessionIsPublished(t *testing.T) {
	tests := []struct {
		name string
		end  func(*bench, *apitest.Agent)
	}{
		{"when the agent is lost", func(_ *bench, a *apitest.Agent) { a.Leave() }},
		{"when the controller stops", func(b *bench, a *apitest.Agent) {
			b.fleet.Drain("the controller is stopping; connect again later")
			if m := a.Recv().GetDrain(); m.GetReason() != "the controller is stopping; connect again later" {
				b.Errorf("got %v, want a drain", m)
			}
			b.wantEnd(a, codes.Unavailable, "the controller is stopping")
		}},
		{"when the agent does not read what it is told", func(b *bench, _ *apitest.Agent) {
			s := b.fleet.Session("fra-1")
			big := &synmeshv1.SessionResponse{Message: &synmeshv1.SessionResponse_CancelRun{CancelRun: &synmeshv1.CancelRun{Run: strings.Repeat("r", 10_000)}}}
			for range 1000 {
				s.Send(big)
				synctest.Wait()
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			run(t, func(b *bench) {
				sub := b.feed.Subscribe("runs/a")
				defer sub.Close()
				a := b.join()
				tt.end(b, a)
				if got := fmt.Sprint(b.published(sub)); got != "[session 1 ended]" {
					b.Errorf("published is %s", got)
				}
				if b.agent().State != fleet.Disconnected {
					b.Error("the agent still counts as connected")
				}
			})
		})
	}
}

// Agents are told apart by their names, and reports by epoch and sequence.
func TestManyAgentsReportAtOnce(t *testing.T) {
	const agents, reports = 10, 20
	run(t, func(b *bench) {
		var all sync.WaitGroup
		for i := range agents {
			all.Go(func() {
				h := hello()
				h.Name = fmt.Sprint("fra-", i)
				a, _ := apitest.Join(b, b.conn, h)
				for n := range uint64(reports) {
					a.Report(report(n+1, 1))
					if got := a.Acknowledged(); got != n+1 {
						b.Errorf("report %d of %s is acknowledged, want %d", got, h.Name, n+1)
					}
				}
			})
		}
		all.Wait()
		if n := len(b.history.Entries()); n != agents*reports {
			b.Errorf("%d reports are stored, want %d", n, agents*reports)
		}
	})
}
