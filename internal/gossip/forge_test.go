package gossip

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// alive is memberlist's own message, encrypted: that a member of this name is
// at this address and tells this. Any holder of the key can make one.
func alive(t *testing.T, incarnation uint32, name string, at netip.AddrPort, told []byte) []byte {
	t.Helper()
	raw := func(b []byte, field string, value []byte) []byte {
		b = append(append(b, 0xa0|byte(len(field))), field...)
		return append(binary.BigEndian.AppendUint16(append(b, 0xda), uint16(len(value))), value...)
	}
	b := append([]byte{4, 0x86, 0xa0 | 11}, "Incarnation\xce"...)
	b = binary.BigEndian.AppendUint32(b, incarnation)
	b = raw(b, "Node", []byte(name))
	b = raw(b, "Addr", at.Addr().AsSlice())
	b = binary.BigEndian.AppendUint16(append(b, "\xa4Port\xcd"...), at.Port())
	b = raw(b, "Meta", told)
	b = raw(b, "Vsn", []byte{1, 5, 2, 0, 0, 0})
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	nonce := make([]byte, gcm.NonceSize())
	if _, err := rand.Read(nonce); err != nil {
		t.Fatal(err)
	}
	packet := append([]byte{244, byte(len(label))}, label...)
	packet = append(append(packet, 1), nonce...)
	return gcm.Seal(packet, nonce, b, []byte(label))
}

// forgery is one way to lie about a victim.
type forgery struct {
	name string
	want Reason
	// make returns who is said to be where, and what is told of it.
	make func(i int, victim Peer, told Announcement) (string, netip.AddrPort, []byte)
}

// forgeries are what a holder of the gossip key may try, who has no
// controller's key, but has read everything that was said, today and before.
func forgeries(t *testing.T, old map[string]Announcement) []forgery {
	sign := func(s statement, fleet string, by int) []byte {
		key := signer
		if by > 0 {
			key = stranger
		}
		a, err := announce(s, fleet, key)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	now := time.Now()
	hour := func(p Peer) statement {
		return statement{peer: p, issued: now, notAfter: now.Add(time.Hour).Truncate(time.Second)}
	}
	elsewhere := netip.MustParseAddrPort("10.6.6.6:7946")
	return []forgery{
		{"signed by a stranger", UnknownKey, func(_ int, v Peer, _ Announcement) (string, netip.AddrPort, []byte) {
			v.Responder, v.GRPC = swapped(v)
			return v.Name, v.Addr, sign(hour(v), fleetName, 1)
		}},
		{"signed by a stranger in another's name", BadSignature, func(_ int, v Peer, _ Announcement) (string, netip.AddrPort, []byte) {
			a := sign(hour(v), fleetName, 1)
			id := idOf(public(signer))
			copy(a[len(a)-64-keyIDSize:], id[:])
			return v.Name, v.Addr, a
		}},
		{"with another responder under the signature", BadSignature, func(_ int, v Peer, told Announcement) (string, netip.AddrPort, []byte) {
			s, _, err := parseAnnouncement(told)
			if err != nil {
				t.Fatal(err)
			}
			s.peer.Responder, s.peer.GRPC = swapped(v)
			b, err := s.encode()
			if err != nil {
				t.Fatal(err)
			}
			return v.Name, v.Addr, append(b, told[len(told)-64:]...)
		}},
		{"of another fleet", BadSignature, func(_ int, v Peer, _ Announcement) (string, netip.AddrPort, []byte) {
			v.Responder, v.GRPC = swapped(v)
			return v.Name, v.Addr, sign(hour(v), "fleet-2", 0)
		}},
		{"repeated under a new name", ForeignName, func(i int, v Peer, told Announcement) (string, netip.AddrPort, []byte) {
			return fmt.Sprintf("mallory-%d", i), v.Addr, told
		}},
		{"repeated from another address", ForeignAddress, func(_ int, v Peer, told Announcement) (string, netip.AddrPort, []byte) {
			return v.Name, elsewhere, told
		}},
		{"ended", Untimely, func(_ int, v Peer, _ Announcement) (string, netip.AddrPort, []byte) {
			v.Responder, v.GRPC = swapped(v)
			s := hour(v)
			s.issued, s.notAfter = now.Add(-time.Hour), now.Add(-time.Second)
			return v.Name, v.Addr, sign(s, fleetName, 0)
		}},
		{"of before", Superseded, func(_ int, v Peer, _ Announcement) (string, netip.AddrPort, []byte) {
			return v.Name, v.Addr, old[v.Name]
		}},
		{"none", Unannounced, func(i int, v Peer, _ Announcement) (string, netip.AddrPort, []byte) {
			return fmt.Sprintf("mallory-%d", i), elsewhere, nil
		}},
		{"garbage", Unreadable, func(i int, v Peer, told Announcement) (string, netip.AddrPort, []byte) {
			return v.Name, v.Addr, told[:i%len(told)/2+1]
		}},
	}
}

// swapped returns a responder and a gRPC address of the forger's own, where
// the peer's role has them.
func swapped(p Peer) (responder, grpc string) {
	if p.Role == Controller {
		return "", "10.6.6.6:7443"
	}
	return "10.6.6.6:7401", ""
}

func TestTenThousandForgedAnnouncementsChangeNothing(t *testing.T) {
	const each = 1000 // of ten kinds
	inTheEther(t, 10, func(t *testing.T, c *crowd, e *ether) {
		old := make(map[string]Announcement)
		for _, n := range c.nodes { // what is told now is replaced, and so becomes old
			old[n.config.Self.Name] = n.fleet.NodeMeta(0)
			n.announce(t)
		}
		time.Sleep(5 * time.Minute)
		before, changed, stats := c.views(), c.changes(), c.ignored()
		forger := netip.MustParseAddrPort("10.0.0.1:1")
		kinds := forgeries(t, old)
		for i := range each {
			victim := c.nodes[i%len(c.nodes)]
			about := victim.config.Self
			about.Addr = netip.MustParseAddrPort(victim.addr)
			for k, f := range kinds {
				name, at, told := f.make(i*len(kinds)+k, about, victim.fleet.NodeMeta(0))
				listener := c.nodes[(i+1+k%(len(c.nodes)-1))%len(c.nodes)] // anybody but the victim, who refutes
				e.send(alive(t, uint32(1000+i), name, at, told), forger, listener.addr)
			}
			if i%20 == 0 {
				synctest.Wait() // nothing is lost for want of room
			}
		}
		synctest.Wait()
		got := c.ignored()
		for _, f := range kinds {
			want := uint64(each)
			if f.want == BadSignature {
				want *= 3
			}
			if n := got[f.want] - stats[f.want]; n != want {
				t.Errorf("%s: %d were ignored as %s, want %d", f.name, n, f.want, want)
			}
		}
		time.Sleep(10 * time.Minute) // time for somebody to be called dead
		if diff := cmp.Diff(before, c.views(), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
			t.Errorf("the peers are others (-before +after):\n%s", diff)
		}
		if left := c.left.Load(); left > 0 {
			t.Errorf("%d times one lost sight of another", left)
		}
		for i, n := range c.nodes {
			if n.Changed() != changed[i] {
				t.Errorf("%s was told of a change", n.config.Self.Name)
			}
			if got := n.list.NumMembers(); got != len(c.nodes) {
				t.Errorf("%s lists %d members, want %d", n.config.Self.Name, got, len(c.nodes))
			}
			if r, l := len(n.fleet.remarked), len(n.fleet.lost); r > maxRemarked || l > 1 { // the gateway
				t.Errorf("%s remembers %d faults and %d lost members", n.config.Self.Name, r, l)
			}
		}
	})
}

// A true announcement can be repeated where it belongs, with a number that
// makes it news to memberlist. It says what it said.
func TestTrueAnnouncementsRepeatedChangeNothing(t *testing.T) {
	inTheEther(t, 5, func(t *testing.T, c *crowd, e *ether) {
		before, changed := c.views(), c.changes()
		for i := range 200 {
			victim, listener := c.nodes[i%5], c.nodes[(i+1)%5]
			at := netip.MustParseAddrPort(victim.addr)
			e.send(alive(t, uint32(1000+i), victim.config.Self.Name, at, victim.fleet.NodeMeta(0)), at, listener.addr)
			synctest.Wait()
		}
		time.Sleep(10 * time.Minute)
		if diff := cmp.Diff(before, c.views(), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
			t.Errorf("the peers are others (-before +after):\n%s", diff)
		}
		for i, n := range c.nodes {
			if n.Changed() != changed[i] || c.left.Load() > 0 {
				t.Errorf("%s was told of a change; %d left", n.config.Self.Name, c.left.Load())
			}
		}
	})
}

func (c *crowd) views() [][]Peer {
	var views [][]Peer
	for _, n := range c.nodes {
		views = append(views, n.Peers())
	}
	return views
}

func (c *crowd) changes() []<-chan struct{} {
	var channels []<-chan struct{}
	for _, n := range c.nodes {
		channels = append(channels, n.Changed())
	}
	return channels
}

// ignored sums what all have ignored.
func (c *crowd) ignored() map[Reason]uint64 {
	sum := make(map[Reason]uint64)
	for _, n := range c.nodes {
		for reason, count := range n.Stats().Ignored {
			sum[reason] += count
		}
	}
	return sum
}
