package gossip

import (
	"crypto/ed25519"
	"fmt"
	"time"
)

// tellAttempts bounds how often an update is tried. Each but the last has met
// an accusation that came within the microsecond.
const tellAttempts = 100

// SetAnnouncement tells the others what a controller signed of us, from now on.
// It refuses what they would not believe: one for another name or another
// address, one that has ended, and one older than what is told already. It
// spreads by itself; nothing waits for that.
func (g *Gossip) SetAnnouncement(a Announcement) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	first := len(g.fleet.NodeMeta(0)) == 0
	news, err := g.fleet.setOwn(a, g.addr)
	if err != nil {
		return fmt.Errorf("gossip: our announcement: %w", err)
	}
	if !news || g.list == nil {
		return nil
	}
	if err := g.tell(); err != nil {
		return fmt.Errorf("gossip: our announcement: %w", err)
	}
	if first {
		select {
		case g.introduced <- struct{}{}:
		default:
		}
	}
	return nil
}

// tell has memberlist list what is told of us now. memberlist drops an update
// without a word when it refutes an accusation at the same moment, which is
// what one who comes back after a crash does first; so it is asked until it has
// listed it. g.mu is held.
func (g *Gossip) tell() error {
	for range tellAttempts {
		// Its one error is that the time was too short to send it to anybody.
		_ = g.list.UpdateNode(time.Nanosecond)
		if g.fleet.isTold() {
			return nil
		}
	}
	return fmt.Errorf("others accuse us of being dead faster than we can tell it; it failed %d times", tellAttempts)
}

// SetTrusted believes announcements by these keys, and by no other from now on:
// peers that another key announced are peers no longer. To change the key of a
// fleet, let everybody trust both, announce all anew, then drop the first.
func (g *Gossip) SetTrusted(keys []ed25519.PublicKey) error {
	t, err := newTrust(g.config.Fleet, keys)
	if err != nil {
		return fmt.Errorf("gossip: %w", err)
	}
	g.fleet.setTrust(t)
	return nil
}

// SetKeys encrypts with these keys from now on. Keys.Rotate tells by which
// steps a fleet gets from one key to another with nobody left out.
func (g *Gossip) SetKeys(keys Keys) error {
	if err := keys.check(); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := keys.install(g.keyring); err != nil {
		return fmt.Errorf("gossip: changing keys: %w", err)
	}
	if g.list != nil && len(g.Peers()) == 0 { // with these keys somebody may answer
		select {
		case g.introduced <- struct{}{}:
		default:
		}
	}
	return nil
}
