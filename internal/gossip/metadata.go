package gossip

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/hashicorp/memberlist"
)

// What a member tells of itself travels as memberlist metadata:
//
//	version    1 byte, 1
//	role       1 byte
//	name       a length of 1 byte, then that many bytes; so are all below
//	grpc
//	responder
//	labels     their number, 1 byte; then key and value of each, the keys ascending
//	signature  empty today, and passed over
//
// and nothing after it, so that each peer has one form only. A later version
// can sign without becoming unreadable to this one, hence the room for it.
const (
	version      = 1
	maxSignature = 96 // an Ed25519 signature, its expiry and the hash of its key
	maxTold      = memberlist.MetaMaxSize - maxSignature
)

var errCut = errors.New("it ends too early")

// metadata is what parseMetadata found.
type metadata struct {
	peer      Peer // without its gossip address
	signature []byte
}

// encode writes the metadata of a peer that has passed check.
func (m metadata) encode() []byte {
	p := m.peer
	b := []byte{version, byte(p.Role)}
	b = appendString(b, p.Name)
	b = appendString(b, p.GRPC)
	b = appendString(b, p.Responder)
	b = append(b, byte(len(p.Labels)))
	for _, key := range slices.Sorted(maps.Keys(p.Labels)) {
		b = appendString(appendString(b, key), p.Labels[key])
	}
	return appendString(b, string(m.signature))
}

// tell encodes what p tells of itself, if that is right and fits.
func tell(p Peer) ([]byte, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	if n := max(len(p.GRPC), len(p.Responder)); n > 255 {
		return nil, fmt.Errorf("an address has %d characters; 255 are allowed", n)
	}
	b := metadata{peer: p}.encode()
	if len(b) <= maxTold {
		return b, nil
	}
	largest, size := "", 0
	for _, key := range slices.Sorted(maps.Keys(p.Labels)) {
		if n := 2 + len(key) + len(p.Labels[key]); n > size {
			largest, size = key, n
		}
	}
	return nil, fmt.Errorf("name, labels and addresses take %d bytes; gossip carries %d; the largest of %d labels is %s with %d bytes: shorten or drop some",
		len(b), maxTold, len(p.Labels), largest, size)
}

// parseMetadata reads what a member tells. It takes the one form that encode
// writes, from anybody, and refuses all else.
func parseMetadata(b []byte) (metadata, error) {
	if len(b) > memberlist.MetaMaxSize {
		return metadata{}, fmt.Errorf("metadata has %d bytes; %d are allowed", len(b), memberlist.MetaMaxSize)
	}
	r := reader{rest: b}
	if v := r.byte(); r.err == nil && v != version {
		return metadata{}, fmt.Errorf("metadata has version %d; only version %d is known", v, version)
	}
	p := Peer{Role: Role(r.byte()), Name: r.string(), GRPC: r.string(), Responder: r.string()}
	p.Labels = r.labels()
	m := metadata{peer: p, signature: []byte(r.string())}
	switch {
	case r.err == nil && len(r.rest) > 0:
		r.err = fmt.Errorf("%d bytes follow its end", len(r.rest))
	case r.err == nil && len(m.signature) > maxSignature:
		r.err = fmt.Errorf("the signature has %d bytes; %d are allowed", len(m.signature), maxSignature)
	case r.err == nil:
		r.err = p.check()
	}
	if r.err != nil {
		return metadata{}, fmt.Errorf("metadata: %w", r.err)
	}
	return m, nil
}

// reader takes metadata apart. After its first error it returns zero values.
type reader struct {
	rest []byte
	err  error
}

func (r *reader) byte() byte {
	if r.err != nil || len(r.rest) < 1 {
		r.fail(errCut)
		return 0
	}
	c := r.rest[0]
	r.rest = r.rest[1:]
	return c
}

func (r *reader) string() string {
	n := int(r.byte())
	if r.err != nil || len(r.rest) < n {
		r.fail(errCut)
		return ""
	}
	s := string(r.rest[:n])
	r.rest = r.rest[n:]
	return s
}

func (r *reader) labels() map[string]string {
	n := int(r.byte())
	labels := make(map[string]string)
	last := ""
	for range n {
		key, value := r.string(), r.string()
		if r.err == nil && key <= last { // the first of all is not empty
			r.fail(errors.New("its labels are not in the order of their keys"))
		}
		if r.err != nil {
			return nil
		}
		labels[key], last = value, key
	}
	return labels
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

func appendString(b []byte, s string) []byte {
	return append(append(b, byte(len(s))), s...)
}
