//go:build linux

package engine

import (
	"net/netip"
	"testing"
	"time"

	"github.com/synmesh/synmesh/probe"
)

func TestAFloodOfChallengesIsBoundedAndHidesNoneOfAKnownPair(t *testing.T) {
	e := &Engine{challenged: make(map[pair]time.Duration)}
	at := func(i int) pair {
		return pair{61000, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 443)}
	}
	for i := range 2 * maxChallenged {
		e.challenge(at(i), time.Hour)
	}
	if len(e.challenged) != maxChallenged {
		t.Errorf("%d pairs are remembered, want %d", len(e.challenged), maxChallenged)
	}
	e.challenge(at(0), time.Hour+2)
	if got := e.challenged[at(0)]; got != time.Hour+2 {
		t.Errorf("the latest challenge of a known pair was at %v, want %v", got, time.Hour+2)
	}
	later := time.Hour + probe.MaxTimeout + sweepEvery
	e.challenge(at(maxChallenged), later)
	if got := e.challenged[at(maxChallenged)]; got != later || len(e.challenged) != 1 {
		t.Errorf("%d pairs are remembered after a while, the new one since %v; want that one alone", len(e.challenged), got)
	}
}

// To look for old ones with each packet would make a flood forty times as dear.
func TestAFloodOfChallengesIsSweptOnceInAWhile(t *testing.T) {
	e := &Engine{challenged: make(map[pair]time.Duration)}
	for i := range maxChallenged {
		e.challenge(pair{uint16(i), netip.AddrPort{}}, 0)
	}
	const now = 2 * probe.MaxTimeout
	e.swept = now - sweepEvery/2
	e.challenge(pair{61000, netip.AddrPort{}}, now)
	if len(e.challenged) != maxChallenged {
		t.Errorf("%d pairs are left, want all %d until it is time to sweep", len(e.challenged), maxChallenged)
	}
	e.challenge(pair{61000, netip.AddrPort{}}, now+sweepEvery)
	if len(e.challenged) != 1 {
		t.Errorf("%d pairs are left, want only the new one", len(e.challenged))
	}
}

// The answer comes between the last look and the next SYN, and its SYN's stamp never does.
func TestAProbeAnsweredAsItIsRetriedStillEnds(t *testing.T) {
	inside(t, oneHost(t), func() {
		e := start(t, Config{})
		s := spec(t, 1, "127.0.0.1:9")
		s.Retries = 1
		tk := newTask(e, s, nil, nil)
		f := &flight{task: tk, stage: 0, answer: answer{outcome: probe.Open}}
		tk.batch = append(tk.batch, f) // taken out of its stage, as by expire
		tk.transmit()
		if len(f.syns) != 0 {
			t.Errorf("another SYN was sent")
		}
		if q := tk.stages[0].first(0); q == nil || q.flight != f {
			t.Error("the probe waits for nothing, and will never end")
		}
	})
}

func TestSourcesAreOnlyUsedAsFarAsTheyReach(t *testing.T) {
	for _, c := range []struct {
		src, dst string
		want     bool
	}{
		{"10.0.0.1", "192.0.2.1", true},
		{"127.0.0.1", "127.0.0.9", true},
		{"127.0.0.1", "192.0.2.1", false},
		{"169.254.7.1", "192.0.2.1", true}, // as in small virtual machines, whose host translates
		{"2001:db8::1", "2001:db8:1::1", true},
		{"2001:db8::1", "fe80::1%eth0", true},
		{"fe80::2", "fe80::1%eth0", true},
		{"fe80::2", "2001:db8::1", false},
		{"::1", "2001:db8::1", false},
		{"::1", "::1", true},
	} {
		if got := reaches(netip.MustParseAddr(c.src), netip.MustParseAddr(c.dst)); got != c.want {
			t.Errorf("from %s to %s: %t, want %t", c.src, c.dst, got, c.want)
		}
	}
}
