package gossip

import (
	"math/rand/v2"
	"net/netip"
	"time"
)

const (
	// maxLost bounds how many lost members are remembered.
	maxLost = 64
	// lostFor is how long a lost member is remembered.
	lostFor = 24 * time.Hour
)

// lost remembers members that were believed once and have gone. memberlist
// forgets the dead and never calls on them again; what is kept here lets the
// halves of a parted fleet find each other, whatever has become of the seeds.
// It holds the lost of the last 24 hours, and of more than 64 the latest.
type lost map[string]lostMember // by name

type lostMember struct {
	addr   netip.AddrPort
	issued time.Time // of its last announcement: no older one is believed
	since  time.Time
}

// add remembers a member, at the cost of the one lost longest ago.
func (l lost) add(name string, m lostMember) {
	l[name] = m
	if len(l) <= maxLost {
		return
	}
	oldest := name
	for other, o := range l {
		if o.since.Before(l[oldest].since) {
			oldest = other
		}
	}
	delete(l, oldest)
}

// pick returns up to n addresses, at random, that are not in the given set.
func (l lost) pick(n int, not map[netip.AddrPort]bool, now time.Time) []netip.AddrPort {
	var addrs []netip.AddrPort
	for name, m := range l {
		if now.Sub(m.since) >= lostFor {
			delete(l, name)
		} else if !not[m.addr] {
			addrs = append(addrs, m.addr)
		}
	}
	rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
	return addrs[:min(n, len(addrs))]
}
