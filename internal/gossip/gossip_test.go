package gossip

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/memberlist"
)

func TestAllFindEachOtherByOneSeed(t *testing.T) {
	config := agentConfig("controller-1")
	config.Self = Peer{Name: "controller-1", Role: Controller, GRPC: "controller.example:7443"}
	controller := run(t, config)
	nodes := []*node{controller}
	all := []string{"controller-1"}
	for i := range 6 {
		name := fmt.Sprintf("agent-%d", i)
		nodes = append(nodes, run(t, agentConfig(name, controller.addr)))
		all = append(all, name)
	}
	var got []Peer
	for i, n := range nodes {
		others := append(append([]string(nil), all[:i]...), all[i+1:]...)
		got = n.sees(t, others...)
	}
	want := []Peer{
		{Name: "agent-0", Role: Agent, Labels: map[string]string{"dc": "fra"}, Responder: "127.0.0.1:9", Addr: netip.MustParseAddrPort(nodes[1].addr)},
		{Name: "controller-1", Role: Controller, Labels: map[string]string{}, GRPC: "controller.example:7443", Addr: netip.MustParseAddrPort(controller.addr)},
	}
	if diff := cmp.Diff(want, []Peer{got[0], got[len(got)-1]}, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Errorf("the peers are not what they told (-want +got):\n%s", diff)
	}
	for _, n := range nodes {
		s := n.Stats()
		delete(s.Ignored, Unannounced) // as everybody is at first
		if len(s.Ignored) > 0 || s.Conflicts > 0 {
			t.Errorf("%s refused something: %+v", n.addr, s)
		}
	}
}

func TestPeersAreTheCallersOwn(t *testing.T) {
	a := run(t, agentConfig("a"))
	b := run(t, agentConfig("b", a.addr))
	b.sees(t, "a")[0].Labels["dc"] = "nyc"
	if got := b.sees(t, "a")[0].Labels["dc"]; got != "fra" {
		t.Errorf("a caller changed what is known: dc=%s", got)
	}
}

func TestSeedThatComesLaterIsJoined(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := free.Addr().String()
	free.Close()
	early := agentConfig("early", addr, "localhost:1")
	refused := make(chan struct{})
	early.Logger = slog.New(&firstWarning{Handler: slog.DiscardHandler, seen: refused})
	a := run(t, early)
	within(t, "a warning that the seed is not reached", refused)
	late := agentConfig("late")
	late.Listen = netip.MustParseAddrPort(addr)
	b := run(t, late)
	a.sees(t, "late")
	b.sees(t, "early")
}

func TestOwnAddressAmongTheSeedsIsPassedOver(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := free.Addr().String()
	free.Close()
	config := agentConfig("a", addr)
	config.Listen = netip.MustParseAddrPort(addr)
	a := run(t, config)
	if lost, errs := a.lostSeeds(t.Context()); len(lost)+len(errs) > 0 {
		t.Errorf("it would dial %v, %v", lost, errs)
	}
}

func TestWhoLeavesIsGoneAtOnce(t *testing.T) {
	slow := func(c *memberlist.Config) { quick(c); c.ProbeInterval = time.Hour } // so that nobody finds it dead
	ca := agentConfig("a")
	ca.tune = slow
	a := run(t, ca)
	cb := agentConfig("b", a.addr)
	cb.tune = slow
	b := run(t, cb)
	a.sees(t, "b")
	b.sees(t, "a")
	changed := a.Changed()
	b.stop()
	a.sees(t)
	select {
	case <-changed:
	default:
		t.Error("the peers changed and Changed did not tell")
	}
}

func TestWhoComesBackElsewhereIsTaken(t *testing.T) {
	a := run(t, agentConfig("a"))
	b := run(t, agentConfig("b", a.addr))
	a.sees(t, "b")
	b.stop()
	a.sees(t)
	b = run(t, agentConfig("b", a.addr))
	b.sees(t, "a")
	_, err := a.Wait(soon(t), func(peers []Peer) bool { return len(peers) == 1 && peers[0].Addr.String() == b.addr })
	if err != nil {
		t.Errorf("a sees %+v, want b at %s: %v", a.Peers(), b.addr, err)
	}
}

func TestPartedFleetComesTogetherAgain(t *testing.T) {
	var c cable
	split := func(conf *memberlist.Config) { quick(conf); c.plug(conf) }
	ca := agentConfig("a")
	ca.tune = split
	a := run(t, ca)
	cb := agentConfig("b", a.addr)
	cb.tune = split
	b := run(t, cb)
	a.sees(t, "b")
	b.sees(t, "a")
	c.cut(a.addr)
	a.sees(t)
	b.sees(t)
	c.cut()
	a.sees(t, "b")
	b.sees(t, "a")
}

func TestGarbageIsIgnoredAndCounted(t *testing.T) {
	good := announced(t, Peer{Name: "mallory", Role: Agent, Addr: netip.MustParseAddrPort("127.0.0.1:7946")})
	tests := []struct {
		name string
		meta []byte
		want Reason
	}{
		{"no announcement", nil, Unannounced},
		{"something of somebody else's making", []byte(strings.Repeat("\xff", memberlist.MetaMaxSize)), Unreadable},
		{"an announcement that is cut", good[:len(good)-2], Unreadable},
		{"an announcement of another member", announced(t, Peer{Name: "a", Role: Agent, Addr: netip.MustParseAddrPort("127.0.0.1:7946")}), ForeignName},
		{"an announcement for another address", good, ForeignAddress},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := run(t, agentConfig("a"))
			mallory := raw(t, "mallory", tt.meta)
			if _, err := mallory.Join([]string{a.addr}); err != nil {
				t.Fatal(err)
			}
			eventually(t, "it is counted", func() bool { return a.Stats().Ignored[tt.want] > 0 })
			b := run(t, agentConfig("b", a.addr))
			a.sees(t, "b")
			b.sees(t, "a")
		})
	}
}

// raw is a member that holds the key and tells what it likes.
func raw(t *testing.T, name string, meta []byte) *memberlist.Memberlist {
	t.Helper()
	c := memberlist.DefaultLocalConfig()
	quick(c)
	c.Name, c.BindAddr, c.BindPort, c.AdvertisePort = name, "127.0.0.1", 0, 0
	c.SecretKey, c.Label = key, label
	c.Delegate = &fleet{own: meta}
	c.Logger = log.New(discard{}, "", 0)
	list, err := memberlist.Create(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = list.Shutdown() })
	return list
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

func TestSecondMemberOfANameIsIgnoredAndCounted(t *testing.T) {
	a := run(t, agentConfig("a"))
	first := run(t, agentConfig("b", a.addr))
	a.sees(t, "b")
	run(t, agentConfig("b", a.addr))
	eventually(t, "the conflict is counted", func() bool { return a.Stats().Conflicts > 0 })
	if got := a.sees(t, "b"); got[0].Addr.String() != first.addr {
		t.Errorf("a sees %+v, want b at %s", got, first.addr)
	}
}

func TestOnlyAKeyThatIsKnownLetsIn(t *testing.T) {
	tests := []struct {
		name string
		set  func(a, b *Config)
		in   bool
	}{
		{"the same key", func(*Config, *Config) {}, true},
		{"a key that is being changed", func(a, b *Config) {
			a.Keys, b.Keys = Keys{key, [][]byte{otherKey}}, Keys{otherKey, [][]byte{key}}
		}, true},
		{"another key", func(_, b *Config) { b.Keys.Primary = otherKey }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ca, cb := agentConfig("a"), agentConfig("b")
			tt.set(&ca, &cb)
			refused := make(chan struct{})
			cb.Logger = slog.New(&firstWarning{Handler: slog.DiscardHandler, seen: refused})
			a := run(t, ca)
			cb.Seeds = []string{a.addr}
			b := run(t, cb)
			if tt.in {
				a.sees(t, "b")
				b.sees(t, "a")
				return
			}
			within(t, "a warning that b cannot join", refused)
			if len(a.Peers())+len(b.Peers()) > 0 {
				t.Errorf("a sees %v, b sees %v", names(a.Peers()), names(b.Peers()))
			}
		})
	}
}

func TestMembersOutsideTheAllowedNetworksAreIgnored(t *testing.T) {
	ca := agentConfig("a")
	ca.Allowed = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	a := run(t, ca)
	outside := agentConfig("outside", a.addr)
	outside.Listen = netip.MustParseAddrPort("127.0.0.2:0")
	o := run(t, outside)
	o.sees(t, "a") // it has had a's answer
	run(t, agentConfig("inside", a.addr))
	a.sees(t, "inside")
}

func TestRunEndsAtOnceWhileASeedIsSilent(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // it takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	config := agentConfig("a", silent.Addr().String())
	config.tune = nil
	a := run(t, config)
	if _, err := silent.Accept(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	a.stop()
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("Run took %v to end", took)
	}
}

func TestRunSaysWhyItCannotBegin(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	tests := []struct {
		name string
		set  func(*Config)
		want string
	}{
		{"the port is taken", func(c *Config) { c.Listen = netip.MustParseAddrPort(taken.Addr().String()) }, "address already in use"},
		{"its own network is not allowed", func(c *Config) { c.Allowed = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")} }, "our own address 127.0.0.1 is in none of the allowed networks"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			config := agentConfig("a")
			tt.set(&config)
			g, err := New(config)
			if err != nil {
				t.Fatal(err)
			}
			if err := g.Run(t.Context()); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Run: %v, want %q", err, tt.want)
			}
			if _, err := g.Addr(t.Context()); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Addr: %v, want %q", err, tt.want)
			}
			if err := g.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "was called before") {
				t.Errorf("the second Run: %v", err)
			}
		})
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	g, err := New(agentConfig("a"))
	if err != nil {
		t.Fatal(err)
	}
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if _, err := g.Wait(ctx, func(peers []Peer) bool { return len(peers) > 0 }); !errors.Is(err, why) {
		t.Errorf("Wait: %v", err)
	}
	if _, err := g.Addr(ctx); !errors.Is(err, why) {
		t.Errorf("Addr: %v", err)
	}
	if peers, err := g.Wait(ctx, func(peers []Peer) bool { return len(peers) == 0 }); err != nil || !reflect.DeepEqual(peers, []Peer{}) {
		t.Errorf("Wait for what holds already: %v, %v", peers, err)
	}
}

func TestPausesGrowWhileNobodyIsKnown(t *testing.T) {
	const first, interval = 500 * time.Millisecond, 30 * time.Second
	for alone, longest := range map[int]time.Duration{1: first, 2: 2 * first, 5: 16 * first, 7: interval, 60: interval} {
		for range 200 {
			if got := pause(first, interval, alone); got < longest/2 || got > longest {
				t.Errorf("alone for %d rounds: %v, want up to %v", alone, got, longest)
			}
		}
	}
	for range 200 {
		if got := pause(first, interval, 0); got < interval || got >= 2*interval {
			t.Errorf("with peers: %v, want one to two intervals", got)
		}
	}
}
