package history

import (
	"encoding/binary"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	synmeshv1 "github.com/synmesh/synmesh/proto/synmesh/v1"
)

// decoder unmarshals reports as proto.Unmarshal does, several times as fast: most have
// a thousand blocks of one row, and making these is what takes the time. It uses
// blocks and texts again. So a report is valid until the next, and what is in it is only read.
type decoder struct {
	report  synmeshv1.Report
	blocks  []*synmeshv1.ResultBlock
	used    int // of these, by the report
	texts   map[string]string
	synAcks map[string]*synmeshv1.SynAck
}

// maxKept bounds how many texts, and what SYN-ACKs said, are kept to be used again.
const maxKept = 1 << 16

// decode returns the report. What it does not know how to do fast, it leaves to proto.Unmarshal.
func (d *decoder) decode(data []byte) (*synmeshv1.Report, error) {
	d.begin()
	if d.fast(data) {
		return &d.report, nil
	}
	r := &synmeshv1.Report{}
	return r, proto.Unmarshal(data, r)
}

// begin begins a report: the blocks before are used again.
func (d *decoder) begin() {
	d.used = 0
	if d.texts == nil || len(d.texts) > maxKept || len(d.synAcks) > maxKept {
		d.texts, d.synAcks = make(map[string]string), make(map[string]*synmeshv1.SynAck)
	}
}

// nextBlock returns the next block of a report; ok is false if it does not know how to do that.
func (d *decoder) nextBlock(data []byte) (b *synmeshv1.ResultBlock, ok bool) {
	if d.used == len(d.blocks) {
		d.blocks = append(d.blocks, &synmeshv1.ResultBlock{})
	}
	b = d.blocks[d.used]
	d.used++
	return b, d.block(b, data)
}

func (d *decoder) fast(data []byte) (ok bool) {
	r := &d.report
	r.Reset()
	for len(data) > 0 {
		var f field
		if data, ok = f.next(data); !ok {
			return false
		}
		switch f.key {
		case 1<<3 | fixed64:
			r.Epoch = f.number
		case 2<<3 | varint:
			r.Sequence = f.number
		case 3<<3 | bytesType:
			if _, ok = d.nextBlock(f.bytes); !ok {
				return false
			}
		case 4<<3 | bytesType:
			e := &synmeshv1.RunEnd{}
			if proto.Unmarshal(f.bytes, e) != nil {
				return false
			}
			r.RunEnds = append(r.RunEnds, e)
		case 5<<3 | varint:
			r.Produced = f.number
		case 6<<3 | varint:
			r.Preview = f.number
		default:
			return false
		}
	}
	r.Blocks = d.blocks[:d.used]
	return true
}

// block fills a block again. Its columns are packed, as every encoder of today has them.
func (d *decoder) block(b *synmeshv1.ResultBlock, data []byte) (ok bool) {
	b.Source, b.Target, b.Address, b.Port, b.Start, b.Stamp = "", "", b.Address[:0], 0, 0, 0
	b.TimeDeltas, b.Outcomes, b.Rtts, b.LocalPorts = b.TimeDeltas[:0], b.Outcomes[:0], b.Rtts[:0], b.LocalPorts[:0]
	b.Attempts, b.Latenesses, b.HostDelays, b.Drops = b.Attempts[:0], b.Latenesses[:0], b.HostDelays[:0], b.Drops[:0]
	b.SynAcks, b.SynAckIndexes, b.SynAckSeqs, b.SynSeqs, b.Notes = b.SynAcks[:0], b.SynAckIndexes[:0], b.SynAckSeqs[:0], b.SynSeqs[:0], nil
	for len(data) > 0 {
		var f field
		if data, ok = f.next(data); !ok {
			return false
		}
		switch f.key {
		case 1<<3 | bytesType:
			b.Source, ok = d.text(f.bytes)
		case 2<<3 | bytesType:
			b.Target, ok = d.text(f.bytes)
		case 3<<3 | bytesType:
			b.Address = append(b.Address[:0], f.bytes...)
		case 4<<3 | varint:
			b.Port = uint32(f.number)
		case 5<<3 | fixed64:
			b.Start = int64(f.number)
		case 6<<3 | bytesType:
			b.TimeDeltas, ok = column(b.TimeDeltas, f.bytes, protowire.DecodeZigZag)
		case 7<<3 | bytesType:
			b.Outcomes, ok = column(b.Outcomes, f.bytes, asIt[synmeshv1.Outcome])
		case 8<<3 | bytesType:
			b.Rtts, ok = column(b.Rtts, f.bytes, asIt[int64])
		case 9<<3 | bytesType:
			b.LocalPorts, ok = column(b.LocalPorts, f.bytes, asIt[uint32])
		case 10<<3 | bytesType:
			b.Attempts, ok = column(b.Attempts, f.bytes, asIt[uint32])
		case 11<<3 | varint:
			b.Stamp = synmeshv1.Stamp(f.number)
		case 12<<3 | bytesType:
			b.Latenesses, ok = column(b.Latenesses, f.bytes, asIt[int64])
		case 13<<3 | bytesType:
			b.HostDelays, ok = column(b.HostDelays, f.bytes, asIt[int64])
		case 14<<3 | bytesType:
			b.Drops, ok = column(b.Drops, f.bytes, asIt[uint32])
		case 15<<3 | bytesType:
			ok = d.synAck(b, f.bytes)
		case 16<<3 | bytesType:
			b.SynAckIndexes, ok = column(b.SynAckIndexes, f.bytes, asIt[uint32])
		case 17<<3 | bytesType:
			b.SynAckSeqs, ok = fixed32s(b.SynAckSeqs, f.bytes)
		case 18<<3 | bytesType:
			n := &synmeshv1.ResultNote{}
			ok = proto.Unmarshal(f.bytes, n) == nil
			b.Notes = append(b.Notes, n)
		case 19<<3 | bytesType:
			b.SynSeqs, ok = fixed32s(b.SynSeqs, f.bytes)
		default:
			ok = false
		}
		if !ok {
			return false
		}
	}
	return true
}

// text returns a text that has been checked to be UTF-8.
func (d *decoder) text(b []byte) (string, bool) {
	s, known := d.texts[string(b)]
	if !known {
		var v synmeshv1.ResultBlock
		if proto.Unmarshal(protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), b), &v) != nil {
			return "", false
		}
		s = v.GetSource()
		d.texts[s] = s
	}
	return s, true
}

func (d *decoder) synAck(b *synmeshv1.ResultBlock, data []byte) bool {
	a := d.synAcks[string(data)]
	if a == nil {
		a = &synmeshv1.SynAck{}
		if proto.Unmarshal(data, a) != nil {
			return false
		}
		d.synAcks[string(data)] = a
	}
	b.SynAcks = append(b.SynAcks, a)
	return true
}

// The wire types of protobuf that are used.
const (
	varint    = uint64(protowire.VarintType)
	fixed64   = uint64(protowire.Fixed64Type)
	bytesType = uint64(protowire.BytesType)
)

// field is a field of a message: its number and wire type together, and what is in it.
type field struct {
	key    uint64
	number uint64
	bytes  []byte
}

// next takes a field off the data.
func (f *field) next(data []byte) (rest []byte, ok bool) {
	var n int
	if f.key, n = uvarint(data); n <= 0 {
		return nil, false
	}
	data = data[n:]
	switch f.key & 7 {
	case varint:
		if f.number, n = uvarint(data); n <= 0 {
			return nil, false
		}
		return data[n:], true
	case fixed64:
		if len(data) < 8 {
			return nil, false
		}
		f.number = binary.LittleEndian.Uint64(data)
		return data[8:], true
	case bytesType:
		size, n := uvarint(data)
		if n <= 0 || size > uint64(len(data)-n) {
			return nil, false
		}
		end := n + int(size)
		f.bytes = data[n:end:end]
		return data[end:], true
	}
	return nil, false
}

// uvarint is binary.Uvarint, faster for what is small.
func uvarint(b []byte) (uint64, int) {
	if len(b) > 0 && b[0] < 0x80 {
		return uint64(b[0]), 1
	}
	return binary.Uvarint(b)
}

func asIt[T ~int32 | ~int64 | ~uint32](v uint64) T { return T(v) }

// column appends packed varints.
func column[T any](list []T, b []byte, convert func(uint64) T) ([]T, bool) {
	for len(b) > 0 {
		v, n := uvarint(b)
		if n <= 0 {
			return list, false
		}
		list, b = append(list, convert(v)), b[n:]
	}
	return list, true
}

func fixed32s(list []uint32, b []byte) ([]uint32, bool) {
	if len(b)%4 != 0 {
		return list, false
	}
	for ; len(b) > 0; b = b[4:] {
		list = append(list, binary.LittleEndian.Uint32(b))
	}
	return list, true
}
