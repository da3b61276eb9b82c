package history

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"os"
	"sync"
)

// archiveFormat names what doc.go describes under "The archive".
const archiveFormat = "synmesh archive 1"

var (
	seriesBucket  = []byte("series")
	reportsBucket = []byte("reports")
	oddBucket     = []byte("odd")
	spanKey       = []byte("span")
)

// archived is a file of the archive. It is opened only to be read: there are many.
type archived struct {
	parts
	path string
	span times // of what is in it, by the agents' clocks
	health

	firstStored, lastStored uint64 // of the reports, by ours
}

// health remembers what of a file was found damaged.
type health struct {
	mu      sync.Mutex
	corrupt map[string]struct{} // keys of the records found so
	damaged bool                // and logged
}

// noteCorrupt remembers a corrupt record and tells whether it is a new one.
func (h *health) noteCorrupt(key string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.corrupt == nil {
		h.corrupt = make(map[string]struct{})
	}
	_, known := h.corrupt[key]
	h.corrupt[key] = struct{}{}
	return !known
}

// noteDamaged remembers that the file is damaged and tells whether that is new.
func (h *health) noteDamaged() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	known := h.damaged
	h.damaged = true
	return !known
}

// newArchived returns the file that has been built.
func newArchived(p parts, b *builder) *archived {
	return &archived{parts: p, path: b.path, span: b.span, firstStored: b.firstStored, lastStored: b.lastStored}
}

// openArchived looks at a file and learns what times it has something of.
func openArchived(path string, p parts) (*archived, error) {
	a := &archived{parts: p, path: path, span: times{math.MinInt64, math.MaxInt64},
		firstStored: name{day: p.day}.start(), lastStored: p.end() - 1}
	return a, a.view(func(t *tree) error {
		if err := checkFormat(t, archiveFormat, seriesBucket, metaBucket); err != nil {
			return err
		}
		meta, err := t.bucket(metaBucket)
		if err != nil {
			return nil // only its name tells what times it has, then
		}
		for k, v := range t.entries(meta, nil) {
			if body, ok := unseal(k, v); ok && bytes.Equal(k, spanKey) && len(body) == 32 {
				a.span = times{int64(binary.BigEndian.Uint64(body)), int64(binary.BigEndian.Uint64(body[8:]))}
				a.firstStored, a.lastStored = binary.BigEndian.Uint64(body[16:]), binary.BigEndian.Uint64(body[24:])
			}
		}
		return nil
	})
}

// view runs fn with the file's tree.
func (a *archived) view(fn func(*tree) error) error {
	h, err := os.Open(a.path)
	if err != nil {
		return err
	}
	defer h.Close()
	t, err := readTree(h)
	if err != nil {
		return err
	}
	defer t.free()
	return fn(t)
}

// each calls fn with the records of a bucket whose keys begin with a prefix, in
// order, from the key from on, until it returns false. What is damaged is left out and noted.
func (s *Store) each(a *archived, t *tree, bucket, prefix, from []byte, fn func(key, value []byte) bool) error {
	root, err := t.bucket(bucket)
	if errors.Is(err, errDamaged) {
		s.noteDamaged(a, err)
		return nil
	}
	if err != nil {
		return err
	}
	if bytes.Compare(from, prefix) < 0 {
		from = prefix
	}
	var corrupt []string
	t.damage, t.seen = nil, 0
	for k, v := range t.entries(root, from) {
		if bytes.Compare(k, from) < 0 {
			continue
		}
		body, ok := unseal(k, v)
		if !ok {
			corrupt = append(corrupt, string(k))
			continue
		}
		if !bytes.HasPrefix(k, prefix) || !fn(k, body) {
			break
		}
	}
	s.noteCorrupt(a, corrupt)
	if errors.Is(t.damage, errDamaged) {
		s.noteDamaged(a, t.damage)
		return nil
	}
	return t.damage
}

// Keys of the archive: an agent's name behind its length (1 byte), for series the source behind
// its length (2 bytes) and the target, and at last 8 bytes: which of several records it is.
const tailSize = 8

// maxName is the longest source or target that a key takes.
const maxName = 1 << 10

func agentKey(agent string) []byte { return append([]byte{byte(len(agent))}, agent...) }

func seriesKey(agent, source, target string) []byte {
	key := binary.BigEndian.AppendUint16(agentKey(agent), uint16(len(source)))
	return append(append(key, source...), target...)
}

// withTail returns the key with the last 8 bytes.
func withTail(key []byte, tail uint64) []byte {
	return binary.BigEndian.AppendUint64(append(make([]byte, 0, len(key)+tailSize), key...), tail)
}

// Series names the results of one source, one agent and one target.
type Series struct{ Source, Agent, Target string }

// parseKey takes a key apart.
func parseKey(key []byte) (s Series, tail uint64, ok bool) {
	if len(key) < 1+tailSize {
		return Series{}, 0, false
	}
	name, body := int(key[0]), key[1:len(key)-tailSize]
	if len(body) < name {
		return Series{}, 0, false
	}
	tail = binary.BigEndian.Uint64(key[len(key)-tailSize:])
	agent, rest := body[:name], body[name:]
	if len(rest) == 0 { // of reports
		return Series{Agent: string(agent)}, tail, true
	}
	if len(rest) < 2 {
		return Series{}, 0, false
	}
	length, names := int(binary.BigEndian.Uint16(rest)), rest[2:]
	if len(names) < length {
		return Series{}, 0, false
	}
	return Series{string(names[:length]), string(agent), string(names[length:])}, tail, true
}

// groupTail makes a group's number sort as bytes; tailGroup takes it back.
func groupTail(group int64) uint64 { return uint64(group) ^ 1<<63 }
func tailGroup(tail uint64) int64  { return int64(tail ^ 1<<63) }

// floorDiv is a divided by b, rounded down.
func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}
