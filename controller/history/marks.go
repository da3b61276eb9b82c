package history

import (
	"encoding/binary"
	"fmt"

	"go.etcd.io/bbolt"
)

// stream is one epoch of an agent: sequences count up in it.
type stream struct {
	agent string
	epoch uint64
}

// mark is how far a stream is stored.
type mark struct {
	sequence uint64 // the highest stored
	at       uint64 // when it was stored
}

type marks map[stream]mark

const markSize = 8 + 8 + checksumSize

// since returns the marks that were made then or later.
func (m marks) since(at uint64) marks {
	live := make(marks, len(m))
	for s, k := range m {
		if k.at >= at {
			live[s] = k
		}
	}
	return live
}

// raise sets a mark unless a higher one is there.
func (m marks) raise(s stream, k mark) {
	if k.sequence > m[s].sequence {
		m[s] = k
	}
}

// put writes the marks to a bucket.
func (m marks) put(b *bbolt.Bucket) error {
	for s, k := range m {
		key := s.key()
		if err := b.Put(key, k.encode(key)); err != nil {
			return fmt.Errorf("mark of %s: %w", s.agent, err)
		}
	}
	return nil
}

func (s stream) key() []byte {
	key := make([]byte, 0, 8+len(s.agent))
	return append(binary.BigEndian.AppendUint64(key, s.epoch), s.agent...)
}

func (k mark) encode(key []byte) []byte {
	v := make([]byte, 0, markSize)
	v = binary.BigEndian.AppendUint64(v, k.sequence)
	v = binary.BigEndian.AppendUint64(v, k.at)
	return binary.BigEndian.AppendUint32(v, checksum(key, v))
}

// decodeMark takes an entry of the bucket apart; ok is false if it is not what
// was written.
func decodeMark(key, value []byte) (s stream, k mark, ok bool) {
	if len(key) < 8 || len(key) > 8+maxAgent || len(value) != markSize {
		return stream{}, mark{}, false
	}
	if binary.BigEndian.Uint32(value[16:]) != checksum(key, value[:16]) {
		return stream{}, mark{}, false
	}
	s = stream{string(key[8:]), binary.BigEndian.Uint64(key)}
	k = mark{binary.BigEndian.Uint64(value), binary.BigEndian.Uint64(value[8:])}
	return s, k, true
}
