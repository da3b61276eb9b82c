package gossip

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"time"

	"github.com/hashicorp/memberlist"
)

var errCut = errors.New("it ends too early")

// parseAnnouncement reads what a member tells, and returns it with the length
// of what is signed. It takes the one form that encode writes, from anybody,
// and refuses all else; the signature it leaves to others.
func parseAnnouncement(b []byte) (statement, int, error) {
	s, unsigned, err := readAnnouncement(b)
	if err != nil {
		return statement{}, 0, fmt.Errorf("announcement: %w", err)
	}
	return s, unsigned, nil
}

func readAnnouncement(b []byte) (statement, int, error) {
	if len(b) > memberlist.MetaMaxSize {
		return statement{}, 0, fmt.Errorf("it has %d bytes; %d are allowed", len(b), memberlist.MetaMaxSize)
	}
	r := reader{rest: b}
	if v := r.byte(); r.err == nil && v != version {
		return statement{}, 0, fmt.Errorf("it has version %d; only version %d is known", v, version)
	}
	p := Peer{Role: Role(r.byte()), Name: r.string(), GRPC: r.string(), Responder: r.string()}
	p.Labels = r.labels()
	p.Addr = r.addr()
	s := statement{peer: p}
	issued, notAfter := r.uint64(), r.uint64()
	copy(s.key[:], r.bytes(keyIDSize))
	unsigned := len(b) - len(r.rest)
	r.bytes(ed25519.SignatureSize)
	switch {
	case r.err != nil:
		return statement{}, 0, r.err
	case len(r.rest) > 0:
		return statement{}, 0, fmt.Errorf("%d bytes follow its end", len(r.rest))
	case issued > math.MaxInt64 || notAfter > math.MaxUint32:
		return statement{}, 0, errors.New("its times are beyond what a clock can show")
	}
	s.issued, s.notAfter = time.Unix(0, int64(issued)), time.Unix(int64(notAfter), 0)
	return s, unsigned, s.check()
}

// reader takes an announcement apart. After its first error it returns zero values.
type reader struct {
	rest []byte
	err  error
}

// bytes returns the next n bytes, or nil.
func (r *reader) bytes(n int) []byte {
	if r.err != nil || len(r.rest) < n {
		r.fail(errCut)
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) byte() byte {
	if b := r.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if b := r.bytes(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (r *reader) string() string { return string(r.bytes(int(r.byte()))) }

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

func (r *reader) addr() netip.AddrPort {
	b := r.bytes(int(r.byte()))
	if r.err != nil {
		return netip.AddrPort{}
	}
	ip := max(len(b)-2, 0)
	addr, ok := netip.AddrFromSlice(b[:ip])
	if !ok {
		r.fail(fmt.Errorf("its gossip address has %d bytes; it has 6 or 18", len(b)))
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(addr, binary.BigEndian.Uint16(b[ip:]))
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}
