package gossip

import (
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/memberlist"
)

// listed is a member as memberlist tells of it.
func listed(t *testing.T, name string) *memberlist.Node {
	t.Helper()
	p := Peer{Name: name, Role: Agent, Labels: map[string]string{"dc": "fra"}, Addr: netip.MustParseAddrPort("127.0.0.1:7946")}
	return nodeOf(p, announced(t, p))
}

func nodeOf(p Peer, told []byte) *memberlist.Node {
	return &memberlist.Node{Name: p.Name, Addr: p.Addr.Addr().AsSlice(), Port: p.Addr.Port(), Meta: told}
}

func testFleet(t *testing.T, log *slog.Logger) *fleet {
	t.Helper()
	believed, err := newTrust(fleetName, []ed25519.PublicKey{public(signer)})
	if err != nil {
		t.Fatal(err)
	}
	return newFleet("self", believed, log)
}

func TestMembersAtNoHostsAddressAreIgnored(t *testing.T) {
	tests := []struct {
		name string
		addr net.IP
		port uint16
	}{
		{"no address", nil, 1},
		{"an address of five bytes", net.IP{1, 2, 3, 4, 5}, 1},
		{"every address", net.IPv4zero, 1},
		{"a group's address", net.IPv4(224, 0, 0, 1), 1},
		{"no port", net.IPv4(127, 0, 0, 1), 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := testFleet(t, slog.New(slog.DiscardHandler))
			n := listed(t, "b")
			n.Addr, n.Port = tt.addr, tt.port
			if err := f.NotifyAlive(n); err == nil {
				t.Error("it was taken")
			}
			f.NotifyJoin(n)
			if got := f.counts().Ignored[ForeignAddress]; got != 1 || len(f.list()) > 0 {
				t.Errorf("%d ignored, peers %v", got, f.list())
			}
		})
	}
}

func TestWhatIsSaidOfUsIsLeftToMemberlist(t *testing.T) {
	f := testFleet(t, slog.New(slog.DiscardHandler))
	n := &memberlist.Node{Name: "self", Meta: []byte("garbage")}
	if err := f.NotifyAlive(n); err != nil {
		t.Errorf("it cannot refute what it does not hear: %v", err)
	}
	f.NotifyJoin(n)
	f.NotifyLeave(n)
	if got := f.list(); len(got) > 0 {
		t.Errorf("we are our own peer: %v", got)
	}
}

func TestChangesAreToldOnceEach(t *testing.T) {
	f := testFleet(t, slog.New(slog.DiscardHandler))
	told := func() bool {
		select {
		case <-f.changed:
			return true
		default:
			return false
		}
	}
	steps := []struct {
		name string
		do   func()
		want bool
	}{
		{"a member joins", func() { f.NotifyJoin(listed(t, "b")) }, true},
		{"it says the same again", func() { f.NotifyUpdate(listed(t, "b")) }, false},
		{"it moves", func() {
			p := Peer{Name: "b", Role: Agent, Addr: netip.MustParseAddrPort("127.0.0.2:7946")}
			f.NotifyUpdate(nodeOf(p, announced(t, p)))
		}, true},
		{"an unknown one leaves", func() { f.NotifyLeave(listed(t, "c")) }, false},
		{"it leaves", func() { f.NotifyLeave(listed(t, "b")) }, true},
		{"somebody joins after the end", func() { f.close(); f.NotifyJoin(listed(t, "d")) }, false},
	}
	for _, s := range steps {
		before := f.next()
		s.do()
		if got := before != f.next(); got != s.want {
			t.Errorf("%s: told %t, want %t", s.name, got, s.want)
		}
		if told() {
			t.Errorf("%s: the next change is told already", s.name)
		}
	}
}

func TestFaultsAreLoggedOnceEach(t *testing.T) {
	out, logger := newText(slog.LevelDebug)
	f := testFleet(t, logger)
	for range 5 {
		if err := f.NotifyAlive(&memberlist.Node{Name: strings.Repeat("m", 5000), Addr: net.IPv4(127, 0, 0, 9), Port: 1, Meta: []byte("\x01")}); err == nil {
			t.Fatal("garbage was taken")
		}
		f.NotifyConflict(listed(t, "b"), &memberlist.Node{Name: "b", Addr: net.IPv4(127, 0, 0, 9), Port: 1})
	}
	if diff := cmp.Diff(Stats{Ignored: map[Reason]uint64{Unreadable: 5}, Conflicts: 5}, f.counts()); diff != "" {
		t.Errorf("counted otherwise (-want +got):\n%s", diff)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 2 || len(out.String()) > 1000 {
		t.Fatalf("%d lines, %d bytes:\n%s", len(lines), out.Len(), out)
	}
	const want = `level=WARN msg="gossip: two members have one name; the second is ignored" member=b address=127.0.0.9:1 err="the first is at 127.0.0.1:7946"`
	if lines[1] != want {
		t.Errorf("\n got %s\nwant %s", lines[1], want)
	}
}

func TestMemoryOfFaultsIsBounded(t *testing.T) {
	f := testFleet(t, slog.New(slog.DiscardHandler))
	for i := range 3 * maxRemarked {
		if err := f.NotifyAlive(&memberlist.Node{Name: fmt.Sprint(i), Meta: []byte("garbage")}); err == nil {
			t.Fatal("garbage was taken")
		}
	}
	if got := len(f.remarked); got > maxRemarked {
		t.Errorf("%d faults are remembered", got)
	}
}

func TestOlderAnnouncementsAreRefused(t *testing.T) {
	f := testFleet(t, slog.New(slog.DiscardHandler))
	first := listed(t, "b")
	second := listed(t, "b")
	if err := f.NotifyAlive(second); err != nil {
		t.Fatal(err)
	}
	f.NotifyJoin(second)
	if err := f.NotifyAlive(first); err == nil {
		t.Error("it was taken while a newer one is known")
	}
	f.NotifyLeave(second)
	if err := f.NotifyAlive(first); err == nil {
		t.Error("it was taken though the newer one was lost only now")
	}
	if err := f.NotifyAlive(second); err != nil {
		t.Errorf("the lost one cannot come back: %v", err)
	}
	f.NotifyJoin(second)
	if len(f.lost) > 0 || len(f.list()) != 1 {
		t.Errorf("back again: %d lost, peers %v", len(f.lost), f.list())
	}
	if got := f.counts().Ignored[Superseded]; got != 2 {
		t.Errorf("%d are counted as superseded, want 2", got)
	}
}

func TestLostMembersAreRememberedByWhereTheyWere(t *testing.T) {
	f := testFleet(t, slog.New(slog.DiscardHandler))
	f.NotifyJoin(listed(t, "b"))
	if got := f.pickLost(redials, nil); len(got) > 0 {
		t.Errorf("%v is lost, and nobody left", got)
	}
	f.NotifyLeave(listed(t, "b"))
	if got := f.pickLost(redials, nil); len(got) != 1 || got[0].String() != "127.0.0.1:7946" {
		t.Errorf("lost are %v, want 127.0.0.1:7946", got)
	}
}
