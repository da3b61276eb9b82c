package history

import (
	"encoding/binary"
	"hash/crc32"
	"slices"
	"sync"
)

const (
	keySize      = 8
	checksumSize = 4
	// maxAgent is the longest name of an agent, in bytes.
	maxAgent = 255
	// maxReport is the largest report, in bytes; messages between agents and
	// the controller are smaller.
	maxReport = 4 << 20
	maxRecord = checksumSize + 1 + maxAgent + maxReport
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// record is a row decoded. Its slices are the row's own.
type record struct {
	at     uint64 // stored time, nanoseconds since 1970
	agent  []byte
	report []byte
}

// records are those that have been committed, for their memory.
var records = sync.Pool{New: func() any { return new([]byte) }}

// newRecord returns a record without its checksum, which takes the key too.
func newRecord(agent string, report []byte) []byte {
	size := checksumSize + 1 + len(agent) + len(report)
	value := slices.Grow((*records.Get().(*[]byte))[:0], size)[:checksumSize]
	return append(append(append(value, byte(len(agent))), agent...), report...)
}

// sealRecord puts the checksum into a record.
func sealRecord(key, value []byte) {
	binary.BigEndian.PutUint32(value, checksum(key, value[checksumSize:]))
}

// decodeRecord takes a row apart; ok is false if it is not what was written.
func decodeRecord(key, value []byte) (r record, ok bool) {
	if len(key) != keySize || len(value) <= checksumSize || len(value) > maxRecord {
		return record{}, false
	}
	body := value[checksumSize:]
	if binary.BigEndian.Uint32(value) != checksum(key, body) {
		return record{}, false
	}
	n := 1 + int(body[0])
	if len(body) < n {
		return record{}, false
	}
	return record{binary.BigEndian.Uint64(key), body[1:n], body[n:]}, true
}

// checksum returns the CRC-32C of a key and what is stored under it.
func checksum(key, rest []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, rest)
}
