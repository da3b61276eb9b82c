package history

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"google.golang.org/protobuf/proto"

	synmeshv1 "github.com/synmesh/synmesh/proto/synmesh/v1"
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

// newRecord returns a record without its checksum, which takes the key too.
func newRecord(agent string, r *synmeshv1.Report) ([]byte, error) {
	size := checksumSize + 1 + len(agent) + proto.Size(r) // which is cached, and need not be found again
	value := append(make([]byte, checksumSize, size), byte(len(agent)))
	value = append(value, agent...)
	value, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(value, r)
	if err != nil {
		return nil, fmt.Errorf("history: report %d of %s: %w: %v", r.GetSequence(), agent, ErrInvalid, err)
	}
	return value, nil
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
