package spool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// A segment is a row of records, each a header and a payload. All numbers are
// big-endian.
//
//	magic     4  tells where to go on behind a damaged header
//	kind      4  a report, or the counts
//	epoch     8
//	sequence  8  of the report; in counts, of the last report before
//	number    8  the results in all reports before, in the life of the folder
//	results   4  in this report
//	length    4  of the payload
//	checksum  4  of the payload
//	checksum  4  of the header up to here
//
// The header has a checksum of its own, so that what a damaged payload held is
// still known; and since results are numbered on, a damaged header's is told by
// the record after it.
const (
	magic      = 0x53794d72
	headerSize = 48
	// maxPayload is more than a report or the counts ever have.
	maxPayload = 4 << 20
)

type kind uint32

const (
	ofReport kind = 1
	ofCounts kind = 2
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// header is what stands before a payload.
type header struct {
	kind     kind
	epoch    uint64
	sequence uint64
	number   uint64
	results  uint32
	length   uint32
	sum      uint32
}

// end is the number of the first result after the record.
func (h *header) end() uint64 { return h.number + uint64(h.results) }

// size is that of the whole record.
func (h *header) size() int64 { return headerSize + int64(h.length) }

// appendRecord appends a header and its payload, whose length and checksum it fills in.
func appendRecord(b []byte, h header, payload []byte) []byte {
	from := len(b)
	b = binary.BigEndian.AppendUint32(b, magic)
	b = binary.BigEndian.AppendUint32(b, uint32(h.kind))
	b = binary.BigEndian.AppendUint64(b, h.epoch)
	b = binary.BigEndian.AppendUint64(b, h.sequence)
	b = binary.BigEndian.AppendUint64(b, h.number)
	b = binary.BigEndian.AppendUint32(b, h.results)
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	b = binary.BigEndian.AppendUint32(b, checksum(payload))
	b = binary.BigEndian.AppendUint32(b, checksum(b[from:]))
	return append(b, payload...)
}

// parseHeader reads a header; ok is false if it is not what was written.
func parseHeader(b []byte) (h header, ok bool) {
	if len(b) < headerSize || binary.BigEndian.Uint32(b) != magic ||
		binary.BigEndian.Uint32(b[44:]) != checksum(b[:44]) {
		return header{}, false
	}
	h = header{
		kind:     kind(binary.BigEndian.Uint32(b[4:])),
		epoch:    binary.BigEndian.Uint64(b[8:]),
		sequence: binary.BigEndian.Uint64(b[16:]),
		number:   binary.BigEndian.Uint64(b[24:]),
		results:  binary.BigEndian.Uint32(b[32:]),
		length:   binary.BigEndian.Uint32(b[36:]),
		sum:      binary.BigEndian.Uint32(b[40:]),
	}
	return h, (h.kind == ofReport || h.kind == ofCounts) && h.length <= maxPayload
}

// errTorn says that a segment ends within a record: its writer died.
var errTorn = errors.New("the file ends within the record")

// errDamaged says that a payload is not what was written.
var errDamaged = errors.New("the checksum is wrong")

// nextHeader returns the first whole header at or behind the offset, and where
// it stands; what cannot be one is skipped. At the end it returns io.EOF.
func nextHeader(r io.ReaderAt, at, size int64) (header, int64, error) {
	var b [headerSize]byte
	if size-at < headerSize {
		return header{}, size, io.EOF
	}
	if _, err := r.ReadAt(b[:], at); err != nil {
		return header{}, at, fmt.Errorf("at %d: %w", at, err)
	}
	if h, ok := parseHeader(b[:]); ok {
		return h, at, nil
	}
	// Damage is rare, and a segment is small.
	rest := make([]byte, size-at)
	if _, err := r.ReadAt(rest, at); err != nil {
		return header{}, at, fmt.Errorf("at %d: %w", at, err)
	}
	mark := binary.BigEndian.AppendUint32(nil, magic)
	for i := 1; ; i++ {
		skip := bytes.Index(rest[i:], mark)
		if skip < 0 {
			return header{}, size, io.EOF
		}
		i += skip
		if h, ok := parseHeader(rest[i:]); ok {
			return h, at + int64(i), nil
		}
	}
}

// readPayload returns the payload behind the header that stands at the offset.
// The error may be errTorn or errDamaged.
func readPayload(r io.ReaderAt, h header, at, size int64) ([]byte, error) {
	if at+h.size() > size {
		return nil, errTorn
	}
	b := make([]byte, h.length)
	if _, err := r.ReadAt(b, at+headerSize); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("at %d: %w", at, err)
	}
	if checksum(b) != h.sum {
		return nil, errDamaged
	}
	return b, nil
}
