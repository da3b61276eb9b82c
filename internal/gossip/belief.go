package gossip

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"time"
)

// longestDoze bounds how long a clock that was set goes unnoticed.
const longestDoze = time.Minute

// forget takes peers away as their announcements end, however silent the
// gossip is about them, until the context ends.
func (f *fleet) forget(ctx context.Context) {
	for {
		changed := f.next()
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-time.After(f.expire(time.Now())):
		}
	}
}

// expire no longer believes what has ended, and returns how long to wait for
// the next that will.
func (f *fleet) expire(now time.Time) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	doze, ended := longestDoze, false
	for name, m := range f.members {
		left := m.said.notAfter.Sub(now)
		switch {
		case !m.believed:
		case left > 0:
			doze = min(doze, left)
		default:
			m.believed, ended = false, true
			f.members[name] = m
		}
	}
	if ended {
		f.wake()
	}
	return doze
}

// setTrust believes by other keys, and asks them of everybody who is known.
func (f *fleet) setTrust(t *trust) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.trust = t
	now, changed := time.Now(), false
	for name, m := range f.members {
		_, r := t.check(name, m.addr, m.told, now)
		if believed := r == nil; believed != m.believed {
			m.believed, changed = believed, true
			f.members[name] = m
		}
	}
	if changed {
		f.wake()
	}
}

// setOwn tells something else of ourselves, if the others would believe it. The
// address is not valid as long as it is not known. It reports whether there is
// news.
func (f *fleet) setOwn(a Announcement, at netip.AddrPort) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, _, err := parseAnnouncement(a)
	if err != nil {
		return false, err
	}
	if !at.IsValid() {
		at = s.peer.Addr
	}
	if _, r := f.trust.check(f.self, at, a, time.Now()); r != nil {
		return false, r.err
	}
	if bytes.Equal(a, f.own) {
		return false, nil
	}
	if now, _, err := parseAnnouncement(f.own); err == nil && s.issued.Before(now.issued) {
		return false, fmt.Errorf("it was issued at %s, and what is told now later, at %s", stamp(s.issued), stamp(now.issued))
	}
	f.own = bytes.Clone(a)
	return true, nil
}

// dropOwn ends what we tell if it does not fit where we are, and says why.
func (f *fleet) dropOwn(at netip.AddrPort) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.own) == 0 {
		return nil
	}
	_, r := f.trust.check(f.self, at, f.own, time.Now())
	if r == nil {
		return nil
	}
	f.own = nil
	return r.err
}
