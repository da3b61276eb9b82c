package gossip

import (
	"crypto/ed25519"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestOneSeedTellsOfControllersAndResponders(t *testing.T) {
	controller := agentConfig("controller-1")
	controller.Self = Peer{Name: "controller-1", Role: Controller, GRPC: "controller.example:7443"}
	first := run(t, agentConfig("agent-1"))
	c := run(t, func() Config { controller.Seeds = []string{first.addr}; return controller }())
	last := run(t, agentConfig("agent-2", c.addr))
	last.sees(t, "agent-1", "controller-1")
	// It knows one agent, has only the key of the gossip, and is being enrolled.
	fresh := listen(t, agentConfig("fresh", first.addr))
	got := fresh.sees(t, "agent-1", "agent-2", "controller-1")
	if got[1].Responder != "127.0.0.1:9" || got[2].Role != Controller || got[2].GRPC != "controller.example:7443" {
		t.Errorf("it was told %+v", got)
	}
	for _, n := range []*node{first, c, last} {
		if len(n.Peers()) != 2 {
			t.Errorf("%s sees %v, among them one that nobody announced", n.config.Self.Name, names(n.Peers()))
		}
	}
	eventually(t, "it is counted", func() bool { return first.Stats().Ignored[Unannounced] > 0 })
	fresh.announce(t)
	for _, n := range []*node{first, c, last} {
		if _, err := n.Wait(soon(t), func(peers []Peer) bool { return len(peers) == 3 }); err != nil {
			t.Errorf("%s sees %v: %v", n.config.Self.Name, names(n.Peers()), err)
		}
	}
}

func TestAnnouncementIsReplacedLive(t *testing.T) {
	a := run(t, agentConfig("a"))
	b := run(t, agentConfig("b", a.addr))
	a.sees(t, "b")
	p := b.config.Self
	p.Addr, p.Labels = netip.MustParseAddrPort(b.addr), map[string]string{"dc": "nyc"}
	if err := b.SetAnnouncement(announced(t, p)); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Wait(soon(t), func(peers []Peer) bool { return len(peers) == 1 && peers[0].Labels["dc"] == "nyc" }); err != nil {
		t.Errorf("a sees %+v: %v", a.Peers(), err)
	}
}

// memberlist drops an update that meets a refutation of its own.
func TestAnnouncementAmidAccusationsIsTold(t *testing.T) {
	a := run(t, agentConfig("a"))
	to, err := net.Dial("udp", a.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	var accusing sync.WaitGroup
	var enough atomic.Bool
	accusing.Go(func() {
		for i := uint32(1); !enough.Load(); i++ {
			to.Write(alive(t, 1000*i, "a", netip.MustParseAddrPort(a.addr), nil))
		}
	})
	for range 2000 {
		a.announce(t)
		if !a.fleet.isTold() {
			t.Error("memberlist tells something else of us")
			break
		}
	}
	enough.Store(true)
	accusing.Wait()
}

func TestAnnouncementOfALifeBeforeIsToldAgain(t *testing.T) {
	a := run(t, agentConfig("a"))
	b := run(t, agentConfig("b", a.addr))
	a.sees(t, "b")
	kept := Announcement(b.fleet.NodeMeta(0))
	b.stop()
	a.sees(t)
	again := agentConfig("b", a.addr)
	again.Listen, again.Announcement = netip.MustParseAddrPort(b.addr), kept
	listen(t, again)
	a.sees(t, "b")
	moved := agentConfig("b", a.addr)
	moved.Announcement = kept
	if m := listen(t, moved); len(m.fleet.NodeMeta(0)) > 0 {
		t.Error("at another address it tells what was announced of the first")
	}
}

func TestOwnAnnouncementThatNobodyWouldBelieveIsRefused(t *testing.T) {
	g := run(t, agentConfig("a"))
	self := g.config.Self
	self.Addr = netip.MustParseAddrPort(g.addr)
	sign := func(p Peer, fleet string, issued time.Time, by ed25519.PrivateKey) Announcement {
		a, err := announce(statement{peer: p, issued: issued, notAfter: issued.Add(time.Hour).Truncate(time.Second)}, fleet, by)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	other, moved := self, self
	other.Name = "b"
	moved.Addr = netip.MustParseAddrPort("10.0.0.2:7946")
	now := time.Now()
	tests := []struct {
		name string
		a    Announcement
		want string
	}{
		{"nothing", nil, "gossip: our announcement: announcement: it ends too early"},
		{"another's", sign(other, fleetName, now, signer), "it tells of b, which is another's name"},
		{"for another address", sign(moved, fleetName, now, signer), "it was announced for the gossip address 10.0.0.2:7946 and is said to be at " + g.addr},
		{"for another fleet", sign(self, "fleet-2", now, signer), `made for another fleet than "fleet-1"`},
		{"a stranger's", sign(self, fleetName, now, stranger), "which is not trusted"},
		{"one that has ended", sign(self, fleetName, now.Add(-2*time.Hour), signer), "its announcement ended at"},
		{"one of tomorrow", sign(self, fleetName, now.Add(24*time.Hour), signer), "which is yet to come; compare the clocks"},
		{"an older one", sign(self, fleetName, now.Add(-time.Minute), signer), "and what is told now later"},
	}
	before := string(g.fleet.NodeMeta(0))
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := g.SetAnnouncement(tt.a); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if string(g.fleet.NodeMeta(0)) != before {
				t.Error("it is told")
			}
		})
	}
}

func TestPeerIsGoneWhenItsAnnouncementEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := testFleet(t, nil)
		forgetting := make(chan struct{})
		go func() { f.forget(t.Context()); close(forgetting) }()
		put := func(valid time.Duration) {
			p := Peer{Name: "b", Role: Agent, Addr: loopbackAt(7946)}
			a, err := Announce(p, fleetName, time.Now().Add(valid), signer)
			if err != nil {
				t.Fatal(err)
			}
			n := nodeOf(p, a)
			if err := f.NotifyAlive(n); err != nil {
				t.Fatal(err)
			}
			f.NotifyUpdate(n)
		}
		put(10 * time.Second)
		changed := f.next()
		began := time.Now()
		put(3 * time.Hour) // the same peer: nothing to tell, but it stays longer
		put(2 * time.Hour)
		<-changed
		if took := time.Since(began); took != 2*time.Hour || len(f.list()) > 0 {
			t.Errorf("after %v there are %d peers", took, len(f.list()))
		}
		put(time.Hour)
		if len(f.list()) != 1 {
			t.Error("announced anew it is not believed")
		}
	})
}

func loopbackAt(port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)
}

func TestSigningKeyOfAFleetIsChangedLive(t *testing.T) {
	a := run(t, agentConfig("a"))
	b := run(t, agentConfig("b", a.addr))
	a.sees(t, "b")
	b.sees(t, "a")
	changed := b.Changed()
	for _, n := range []*node{a, b} {
		if err := n.SetTrusted([]ed25519.PublicKey{public(signer), public(stranger)}); err != nil {
			t.Fatal(err)
		}
	}
	p := a.config.Self
	p.Addr = netip.MustParseAddrPort(a.addr)
	anew, err := Announce(p, fleetName, time.Now().Add(time.Hour), stranger)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.SetAnnouncement(anew); err != nil {
		t.Fatal(err)
	}
	eventually(t, "b has the new one", func() bool {
		b.fleet.mu.Lock()
		defer b.fleet.mu.Unlock()
		return string(b.fleet.members["a"].told) == string(anew)
	})
	for _, n := range []*node{a, b} {
		if err := n.SetTrusted([]ed25519.PublicKey{public(stranger)}); err != nil {
			t.Fatal(err)
		}
	}
	if b.Changed() != changed {
		t.Error("a was announced anew in time, and b was told of a change")
	}
	b.sees(t, "a")
	a.sees(t) // for b still tells what the first key signed
	if err := a.SetTrusted([]ed25519.PublicKey{public(signer)}); err != nil {
		t.Fatal(err)
	}
	a.sees(t, "b")
}

func TestChangesThatCannotBeAreRefused(t *testing.T) {
	g, err := New(agentConfig("a"))
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		err  error
		want string
	}{
		{"trust in nobody", g.SetTrusted(nil), "no key is trusted"},
		{"keys that are none", g.SetKeys(Keys{Primary: key[:3]}), "has 3 bytes"},
	}
	for _, tt := range tests {
		if tt.err == nil || !strings.Contains(tt.err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, tt.err, tt.want)
		}
	}
}
