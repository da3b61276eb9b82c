package gossip

import (
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"

	"github.com/hashicorp/memberlist"
)

func member(t *testing.T, name string) *memberlist.Node {
	t.Helper()
	meta, err := tell(Peer{Name: name, Role: Agent, Labels: map[string]string{"dc": "fra"}})
	if err != nil {
		t.Fatal(err)
	}
	return &memberlist.Node{Name: name, Addr: net.IPv4(127, 0, 0, 1), Port: 7946, Meta: meta}
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
			f := newFleet("self", nil, slog.New(slog.DiscardHandler))
			n := member(t, "b")
			n.Addr, n.Port = tt.addr, tt.port
			if err := f.NotifyAlive(n); err == nil {
				t.Error("it was taken")
			}
			f.NotifyJoin(n)
			if got := f.counts().Ignored; got != 1 || len(f.list()) > 0 {
				t.Errorf("%d ignored, peers %v", got, f.list())
			}
		})
	}
}

func TestWhatIsSaidOfUsIsLeftToMemberlist(t *testing.T) {
	f := newFleet("self", nil, slog.New(slog.DiscardHandler))
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
	f := newFleet("self", nil, slog.New(slog.DiscardHandler))
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
		{"a member joins", func() { f.NotifyJoin(member(t, "b")) }, true},
		{"it says the same again", func() { f.NotifyUpdate(member(t, "b")) }, false},
		{"it moves", func() { n := member(t, "b"); n.Port++; f.NotifyUpdate(n) }, true},
		{"an unknown one leaves", func() { f.NotifyLeave(member(t, "c")) }, false},
		{"it leaves", func() { f.NotifyLeave(member(t, "b")) }, true},
		{"somebody joins after the end", func() { f.close(); f.NotifyJoin(member(t, "d")) }, false},
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
	f := newFleet("self", nil, logger)
	for range 5 {
		if err := f.NotifyAlive(&memberlist.Node{Name: strings.Repeat("m", 5000), Addr: make(net.IP, 5000), Meta: []byte("\x01")}); err == nil {
			t.Fatal("garbage was taken")
		}
		f.NotifyConflict(member(t, "b"), &memberlist.Node{Name: "b", Addr: net.IPv4(127, 0, 0, 9), Port: 1})
	}
	if got := f.counts(); got != (Stats{Ignored: 5, Conflicts: 5}) {
		t.Errorf("counted %+v", got)
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
	f := newFleet("self", nil, slog.New(slog.DiscardHandler))
	for i := range 3 * maxRemarked {
		if err := f.NotifyAlive(&memberlist.Node{Name: fmt.Sprint(i)}); err == nil {
			t.Fatal("garbage was taken")
		}
	}
	if got := len(f.remarked); got > maxRemarked {
		t.Errorf("%d faults are remembered", got)
	}
}
