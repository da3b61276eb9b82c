package gossip

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/hashicorp/memberlist"
)

// An Announcement is what a member tells of itself, signed by a controller of
// its fleet. It travels as memberlist metadata:
//
//	version    1 byte, 2
//	role       1 byte
//	name       a length of 1 byte, then that many bytes; so are all below
//	grpc
//	responder
//	labels     their number, 1 byte; then key and value of each, the keys ascending
//	address    where it gossips: 4 or 16 bytes of IP address and 2 of port
//	issued     8 bytes, nanoseconds since 1970
//	notAfter   8 bytes, seconds since 1970
//	key        the first 8 bytes of the SHA-256 of the signing key
//	signature  64 bytes, Ed25519
//
// with no length before the last four, and nothing after them, so that each
// statement has one form only. What is signed is signatureContext, the fleet's
// name as a length and bytes, and all that stands before the signature.
//
// The address is in it so that nobody can repeat it from elsewhere, and the
// time of issue so that nobody can bring an old one back while a newer is known.
type Announcement []byte

const (
	version          = 2
	signatureContext = "synmesh gossip announcement\x00"
	maxFleet         = 255
	keyIDSize        = 8
	// maxUnsigned is what a statement may take without its signature.
	maxUnsigned = memberlist.MetaMaxSize - ed25519.SignatureSize
)

type keyID [keyIDSize]byte

func idOf(key ed25519.PublicKey) keyID {
	sum := sha256.Sum256(key)
	return keyID(sum[:keyIDSize])
}

// statement is what an announcement says.
type statement struct {
	peer             Peer
	issued, notAfter time.Time
	key              keyID
}

// Announce signs what the others may believe of a peer until notAfter, which
// is told in whole seconds. The signer's key must be Ed25519. Addr of the peer
// is where it gossips; repeated from any other address it is refused.
func Announce(peer Peer, fleet string, notAfter time.Time, signer crypto.Signer) (Announcement, error) {
	s := statement{peer: peer, issued: time.Now(), notAfter: notAfter.Truncate(time.Second)}
	a, err := announce(s, fleet, signer)
	if err != nil {
		return nil, fmt.Errorf("gossip: announcing %.80q: %w", peer.Name, err)
	}
	return a, nil
}

func announce(s statement, fleet string, signer crypto.Signer) (Announcement, error) {
	public, ok := signer.Public().(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("the signing key is a %T; Ed25519 is wanted", signer.Public())
	}
	if err := checkFleet(fleet); err != nil {
		return nil, err
	}
	s.key = idOf(public)
	b, err := s.encode()
	if err != nil {
		return nil, err
	}
	message := signed(fleet, b)
	signature, err := signer.Sign(rand.Reader, message, crypto.Hash(0))
	if err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	if !ed25519.Verify(public, message, signature) {
		return nil, errors.New("signing: the signature does not hold for the signer's own public key")
	}
	return append(b, signature...), nil
}

// NotAfter returns until when the announcement is believed: it wants to be
// replaced well before.
func (a Announcement) NotAfter() (time.Time, error) {
	s, _, err := parseAnnouncement(a)
	return s.notAfter, err
}

// signed returns what is signed: b is a statement without its signature.
func signed(fleet string, b []byte) []byte {
	return append(appendString([]byte(signatureContext), fleet), b...)
}

func checkFleet(fleet string) error {
	if len(fleet) == 0 || len(fleet) > maxFleet {
		return fmt.Errorf("the fleet's name has %d characters; 1 to %d are allowed", len(fleet), maxFleet)
	}
	return nil
}

// check refuses what must be neither told nor believed.
func (s statement) check() error {
	if err := s.peer.check(); err != nil {
		return err
	}
	if err := checkAddr(s.peer.Addr); err != nil {
		return err
	}
	if n := max(len(s.peer.GRPC), len(s.peer.Responder)); n > 255 {
		return fmt.Errorf("an address has %d characters; 255 are allowed", n)
	}
	if s.issued.UnixNano() < 0 || !s.issued.Before(s.notAfter) {
		return fmt.Errorf("it is issued at %s and valid until %s; it has to be issued before it ends", stamp(s.issued), stamp(s.notAfter))
	}
	if s.notAfter.Unix() > math.MaxUint32 {
		return fmt.Errorf("it is valid until %s; the year 2106 is the last", stamp(s.notAfter))
	}
	return nil
}

// fits tells whether a peer can be announced, wherever it will gossip.
func (p Peer) fits() error {
	p.Addr = netip.AddrPortFrom(netip.IPv6Loopback(), DefaultPort) // the longest there is
	_, err := statement{peer: p, issued: time.Unix(0, 0), notAfter: time.Unix(1, 0)}.encode()
	return err
}

// encode writes a statement without its signature, if it is right and fits.
func (s statement) encode() ([]byte, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	p := s.peer
	b := []byte{version, byte(p.Role)}
	b = appendString(b, p.Name)
	b = appendString(b, p.GRPC)
	b = appendString(b, p.Responder)
	b = append(b, byte(len(p.Labels)))
	keys := slices.Sorted(maps.Keys(p.Labels))
	for _, key := range keys {
		b = appendString(appendString(b, key), p.Labels[key])
	}
	b = appendString(b, string(binary.BigEndian.AppendUint16(p.Addr.Addr().AsSlice(), p.Addr.Port())))
	b = binary.BigEndian.AppendUint64(b, uint64(s.issued.UnixNano()))
	b = binary.BigEndian.AppendUint64(b, uint64(s.notAfter.Unix()))
	b = append(b, s.key[:]...)
	if len(b) <= maxUnsigned {
		return b, nil
	}
	largest, size := "", 0
	for _, key := range keys {
		if n := 2 + len(key) + len(p.Labels[key]); n > size {
			largest, size = key, n
		}
	}
	return nil, fmt.Errorf("name, labels and addresses take %d bytes; gossip carries %d; the largest of %d labels is %s with %d bytes: shorten or drop some",
		len(b), maxUnsigned, len(keys), largest, size)
}

func appendString(b []byte, s string) []byte {
	return append(append(b, byte(len(s))), s...)
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
