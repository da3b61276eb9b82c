package gossip

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

func TestTheLatestLostAreRemembered(t *testing.T) {
	l, start := make(lost), time.Unix(1_800_000_000, 0)
	at := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 7946)
	}
	const all = 3 * maxLost
	for i := range all {
		l.add(fmt.Sprint(i), lostMember{addr: at(i), since: start.Add(time.Duration(i) * time.Minute)})
	}
	now := start.Add(all * time.Minute)
	got := l.pick(all, nil, now)
	if len(got) != maxLost || len(l) != maxLost {
		t.Fatalf("%d of %d are picked, want %d", len(got), len(l), maxLost)
	}
	for _, a := range got {
		if a.Compare(at(all-maxLost)) < 0 {
			t.Errorf("%v is remembered, and later ones are not", a)
		}
	}
	if got := l.pick(2, nil, now); len(got) != 2 || got[0] == got[1] {
		t.Errorf("picked %v, want two", got)
	}
	known := map[netip.AddrPort]bool{at(all - 1): true}
	for _, a := range l.pick(all, known, now) {
		if known[a] {
			t.Errorf("%v is known, and picked", a)
		}
	}
	if got := l.pick(all, nil, start.Add((all-1)*time.Minute+lostFor)); len(got) != 0 || len(l) != 0 {
		t.Errorf("after a day %d are picked, %d remembered", len(got), len(l))
	}
}
