package gossip

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/memberlist"
)

// maxRemarked bounds what is remembered of faults that were logged.
const maxRemarked = 256

// Stats counts what gossip refused to believe. The counts never fall.
type Stats struct {
	// Ignored counts what was told with metadata that cannot be read, with a
	// foreign name, or with an address that is no host's.
	Ignored uint64
	// Conflicts counts what was told by a second member under a name in use.
	Conflicts uint64
}

// fleet is what is known of the others. memberlist calls its Notify methods
// with a lock of its own held: they must not call memberlist back, and they
// keep copies only.
type fleet struct {
	self string
	told []byte // our own metadata
	log  *slog.Logger

	mu       sync.Mutex
	closed   bool
	peers    map[string]Peer
	changed  chan struct{} // closed at the next change, then replaced
	stats    Stats
	remarked map[string]bool
}

func newFleet(self string, told []byte, log *slog.Logger) *fleet {
	return &fleet{
		self: self, told: told, log: log,
		peers: make(map[string]Peer), changed: make(chan struct{}), remarked: make(map[string]bool),
	}
}

// list returns copies of all peers, in the order of their names.
func (f *fleet) list() []Peer {
	f.mu.Lock()
	defer f.mu.Unlock()
	peers := make([]Peer, 0, len(f.peers))
	for _, p := range f.peers {
		peers = append(peers, p.clone())
	}
	slices.SortFunc(peers, func(a, b Peer) int { return strings.Compare(a.Name, b.Name) })
	return peers
}

// addrs returns where the peers gossip.
func (f *fleet) addrs() map[netip.AddrPort]bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	addrs := make(map[netip.AddrPort]bool, len(f.peers))
	for _, p := range f.peers {
		addrs[p.Addr] = true
	}
	return addrs
}

func (f *fleet) next() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed
}

func (f *fleet) counts() Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stats
}

// close lets nothing more in.
func (f *fleet) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
}

// NotifyAlive implements memberlist.AliveDelegate: an error keeps what was told
// out of the list of members, and leaves what was known before.
func (f *fleet) NotifyAlive(n *memberlist.Node) error {
	if n.Name == f.self {
		return nil // memberlist refutes what others say of us
	}
	_, err := peerOf(n)
	if err == nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stats.Ignored++
	f.remark("gossip: a member is ignored", n, err)
	return err
}

// NotifyJoin implements memberlist.EventDelegate.
func (f *fleet) NotifyJoin(n *memberlist.Node) { f.put(n) }

// NotifyUpdate implements memberlist.EventDelegate.
func (f *fleet) NotifyUpdate(n *memberlist.Node) { f.put(n) }

// NotifyLeave implements memberlist.EventDelegate.
func (f *fleet) NotifyLeave(n *memberlist.Node) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, known := f.peers[n.Name]; known && !f.closed {
		delete(f.peers, n.Name)
		f.wake()
	}
}

// NotifyConflict implements memberlist.ConflictDelegate.
func (f *fleet) NotifyConflict(existing, other *memberlist.Node) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stats.Conflicts++
	f.remark("gossip: two members have one name; the second is ignored", other,
		fmt.Errorf("the first is at %s", existing.Address()))
}

func (f *fleet) put(n *memberlist.Node) {
	if n.Name == f.self {
		return
	}
	p, err := peerOf(n)
	if err != nil {
		return // NotifyAlive has refused it, and counted
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || equal(f.peers[n.Name], p) {
		return
	}
	f.peers[n.Name] = p
	f.wake()
}

func (f *fleet) wake() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// remark logs a fault once for each member: gossip repeats what it hears.
func (f *fleet) remark(what string, n *memberlist.Node, err error) {
	name, addr := truncate(n.Name), truncate(n.Address())
	key := what + name + addr + err.Error()
	if f.closed || f.remarked[key] {
		return
	}
	if len(f.remarked) >= maxRemarked {
		clear(f.remarked)
	}
	f.remarked[key] = true
	f.log.Warn(what, "member", name, "address", addr, "err", err)
}

// NodeMeta implements memberlist.Delegate.
func (f *fleet) NodeMeta(int) []byte { return f.told }

// NotifyMsg implements memberlist.Delegate. Nobody sends messages.
func (f *fleet) NotifyMsg([]byte) {}

// GetBroadcasts implements memberlist.Delegate.
func (f *fleet) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState implements memberlist.Delegate.
func (f *fleet) LocalState(bool) []byte { return nil }

// MergeRemoteState implements memberlist.Delegate.
func (f *fleet) MergeRemoteState([]byte, bool) {}

// peerOf reads what a member told of itself and refuses what cannot be so.
func peerOf(n *memberlist.Node) (Peer, error) {
	m, err := parseMetadata(n.Meta)
	if err != nil {
		return Peer{}, err
	}
	if m.peer.Name != n.Name {
		return Peer{}, fmt.Errorf("it tells of %s, which is another's name", m.peer.Name)
	}
	addr, ok := netip.AddrFromSlice(n.Addr)
	addr = addr.Unmap()
	if !ok || n.Port == 0 || addr.IsUnspecified() || addr.IsMulticast() {
		return Peer{}, errors.New("its gossip address is no host's")
	}
	m.peer.Addr = netip.AddrPortFrom(addr, n.Port)
	return m.peer, nil
}

func equal(a, b Peer) bool {
	return a.Name == b.Name && a.Role == b.Role && a.GRPC == b.GRPC && a.Responder == b.Responder &&
		a.Addr == b.Addr && maps.Equal(a.Labels, b.Labels)
}

func truncate(s string) string { return s[:min(len(s), 80)] }
