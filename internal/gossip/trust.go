package gossip

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// maxSkew is how far in the future an announcement may have been issued: the
// clocks of a fleet differ. Without a bound a controller whose clock was wrong
// once could not be corrected until its time had come.
const maxSkew = 5 * time.Minute

// trust says whose announcements are believed. It is not changed once made.
type trust struct {
	fleet string
	keys  map[keyID]ed25519.PublicKey
}

func newTrust(fleet string, trusted []ed25519.PublicKey) (*trust, error) {
	if len(trusted) == 0 {
		return nil, errors.New("no key is trusted, so nobody would be believed; give the controllers' public keys")
	}
	t := &trust{fleet: fleet, keys: make(map[keyID]ed25519.PublicKey, len(trusted))}
	for _, key := range trusted {
		if len(key) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("a trusted key has %d bytes; an Ed25519 public key has %d", len(key), ed25519.PublicKeySize)
		}
		t.keys[idOf(key)] = append(ed25519.PublicKey(nil), key...)
	}
	return t, nil
}

// check reads what a member of this name and address tells, and refuses what
// is not its own, or not signed, or not valid now. What costs little comes first.
func (t *trust) check(name string, at netip.AddrPort, told []byte, now time.Time) (statement, *refusal) {
	if len(told) == 0 {
		return statement{}, refuse(Unannounced, errors.New("it has no announcement yet"))
	}
	s, unsigned, err := parseAnnouncement(told)
	if err != nil {
		return statement{}, refuse(Unreadable, err)
	}
	key, known := t.keys[s.key]
	switch {
	case s.peer.Name != name:
		err := fmt.Errorf("it tells of %s, which is another's name", s.peer.Name)
		return statement{}, refuse(ForeignName, err)
	case s.peer.Addr != at:
		err := fmt.Errorf("it was announced for the gossip address %v and is said to be at %v", s.peer.Addr, at)
		return statement{}, refuse(ForeignAddress, err)
	case !now.Before(s.notAfter):
		return statement{}, refuse(Untimely, fmt.Errorf("its announcement ended at %s", stamp(s.notAfter)))
	case s.issued.Sub(now) > maxSkew:
		return statement{}, refuse(Untimely, fmt.Errorf("its announcement was issued at %s, which is yet to come; compare the clocks", stamp(s.issued)))
	case !known:
		return statement{}, refuse(UnknownKey, fmt.Errorf("it is signed by the key %x, which is not trusted", s.key))
	case !ed25519.Verify(key, signed(t.fleet, told[:unsigned]), told[unsigned:]):
		err := fmt.Errorf("its signature does not hold: it is forged, or made for another fleet than %.80q", t.fleet)
		return statement{}, refuse(BadSignature, err)
	}
	return s, nil
}
