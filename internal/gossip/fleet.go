package gossip

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// fleet is what is known of the others. memberlist calls its Notify methods
// with a lock of its own held: they must not call memberlist back, and they
// keep copies only.
type fleet struct {
	self string
	log  *slog.Logger

	mu       sync.Mutex
	closed   bool
	own      Announcement // what we tell; empty while we only listen
	listed   []byte       // what memberlist tells of us; own, but for a moment
	trust    *trust
	members  map[string]member
	lost     lost
	changed  chan struct{} // closed at the next change, then replaced
	stats    Stats
	remarked map[string]bool
}

// member is one that memberlist lists. It is a peer while it is believed.
type member struct {
	addr     netip.AddrPort
	told     []byte
	said     statement
	believed bool
}

func newFleet(self string, trust *trust, log *slog.Logger) *fleet {
	return &fleet{
		self: self, trust: trust, log: log,
		members: make(map[string]member), lost: make(lost), changed: make(chan struct{}),
		stats: Stats{Ignored: make(map[Reason]uint64)}, remarked: make(map[string]bool),
	}
}

// list returns copies of all peers, in the order of their names.
func (f *fleet) list() []Peer {
	f.mu.Lock()
	defer f.mu.Unlock()
	peers := make([]Peer, 0, len(f.members))
	now := time.Now()
	for _, m := range f.members {
		if m.believed && now.Before(m.said.notAfter) {
			peers = append(peers, m.said.peer.clone())
		}
	}
	slices.SortFunc(peers, func(a, b Peer) int { return strings.Compare(a.Name, b.Name) })
	return peers
}

// addrs returns where the members gossip, believed or not.
func (f *fleet) addrs() map[netip.AddrPort]bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	addrs := make(map[netip.AddrPort]bool, len(f.members))
	for _, m := range f.members {
		addrs[m.addr] = true
	}
	return addrs
}

// pickLost returns up to n addresses of lost members, at random.
func (f *fleet) pickLost(n int, not map[netip.AddrPort]bool) []netip.AddrPort {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lost.pick(n, not, time.Now())
}

func (f *fleet) next() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed
}

func (f *fleet) counts() Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stats.clone()
}

// close lets nothing more in.
func (f *fleet) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
}

// NotifyAlive implements memberlist.AliveDelegate: an error keeps what was told
// out of the list of members, and leaves what was known before. So the list
// grows by what a controller signed, and by nothing else.
func (f *fleet) NotifyAlive(n *memberlist.Node) error {
	if n.Name == f.self {
		return nil // memberlist refutes what others say of us
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if r := f.doubt(n, time.Now()); r != nil {
		f.ignore(n, r)
		return r.err
	}
	return nil
}

// doubt returns why n is not believed. f.mu is held.
func (f *fleet) doubt(n *memberlist.Node, now time.Time) *refusal {
	addr, err := addrOf(n)
	if err != nil {
		return refuse(ForeignAddress, err)
	}
	m, known := f.members[n.Name]
	same := known && addr == m.addr && bytes.Equal(n.Meta, m.told)
	if same && m.believed && now.Before(m.said.notAfter) {
		return nil // it was checked when it was told first; gossip repeats itself
	}
	s, r := f.trust.check(n.Name, addr, n.Meta, now)
	if r != nil {
		return r
	}
	latest := f.lost[n.Name].issued
	if known {
		latest = m.said.issued
	}
	if s.issued.Before(latest) {
		return refuse(Superseded, fmt.Errorf("its announcement is of %s, and one of %s is known", stamp(s.issued), stamp(latest)))
	}
	return nil
}

// NotifyJoin implements memberlist.EventDelegate.
func (f *fleet) NotifyJoin(n *memberlist.Node) { f.put(n) }

// NotifyUpdate implements memberlist.EventDelegate.
func (f *fleet) NotifyUpdate(n *memberlist.Node) { f.put(n) }

// NotifyLeave implements memberlist.EventDelegate.
func (f *fleet) NotifyLeave(n *memberlist.Node) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m, known := f.members[n.Name]
	if !known || f.closed {
		return
	}
	delete(f.members, n.Name)
	f.lost.add(n.Name, lostMember{m.addr, m.said.issued, time.Now()})
	if m.believed {
		f.wake()
	}
}

// NotifyConflict implements memberlist.ConflictDelegate.
func (f *fleet) NotifyConflict(existing, other *memberlist.Node) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conflict(existing, other)
}

func (f *fleet) put(n *memberlist.Node) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n.Name == f.self {
		f.listed = bytes.Clone(n.Meta)
		return
	}
	addr, err := addrOf(n)
	if f.closed || err != nil {
		return
	}
	said, r := f.trust.check(n.Name, addr, n.Meta, time.Now())
	if r != nil {
		return // NotifyAlive has refused it, and counted
	}
	before := f.members[n.Name]
	f.members[n.Name] = member{addr, bytes.Clone(n.Meta), said, true}
	delete(f.lost, n.Name)
	if !before.believed || !equal(before.said.peer, said.peer) {
		f.wake()
	}
}

// isTold tells whether memberlist has taken up what we tell.
func (f *fleet) isTold() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return bytes.Equal(f.listed, f.own)
}

func (f *fleet) wake() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// NodeMeta implements memberlist.Delegate.
func (f *fleet) NodeMeta(int) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.own
}

// NotifyMsg implements memberlist.Delegate. Nobody sends messages.
func (f *fleet) NotifyMsg([]byte) {}

// GetBroadcasts implements memberlist.Delegate.
func (f *fleet) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState implements memberlist.Delegate.
func (f *fleet) LocalState(bool) []byte { return nil }

// MergeRemoteState implements memberlist.Delegate.
func (f *fleet) MergeRemoteState([]byte, bool) {}

func addrOf(n *memberlist.Node) (netip.AddrPort, error) {
	addr, _ := netip.AddrFromSlice(n.Addr)
	at := netip.AddrPortFrom(addr.Unmap(), n.Port)
	return at, checkAddr(at)
}

// checkAddr refuses what nobody can gossip at.
func checkAddr(at netip.AddrPort) error {
	a := at.Addr()
	if !a.IsValid() || at.Port() == 0 || a.IsUnspecified() || a.IsMulticast() || a.Zone() != "" || a.Is4In6() {
		return errors.New("its gossip address is no host's")
	}
	return nil
}

func equal(a, b Peer) bool {
	return a.Name == b.Name && a.Role == b.Role && a.GRPC == b.GRPC && a.Responder == b.Responder &&
		a.Addr == b.Addr && maps.Equal(a.Labels, b.Labels)
}
