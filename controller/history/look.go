package history

import (
	"encoding/binary"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/synmesh/synmesh/controller/history/block"
	"github.com/synmesh/synmesh/internal/convert"
	"github.com/synmesh/synmesh/probe"
	synmeshv1 "github.com/synmesh/synmesh/proto/synmesh/v1"
)

// The fields of an encoded block.
const (
	sourceField = iota + 1
	targetField
	addressField
	portField
	startField
	deltasField
	outcomesField
	rttsField
	localPortsField
	attemptsField
	stampField
	latenessesField
	hostDelaysField
	dropsField
	synAcksField
	synAckIndexesField
	synAckSeqsField
	_
	synSeqsField
)

// looker takes encoded reports apart without making messages of what is usual: most have a
// thousand blocks of one row.
type looker struct {
	checker convert.Checker
	decoder decoder
	alone   synmeshv1.Report // the block that is decoded

	// The last report; what is in it is valid until the next.
	epoch, sequence, produced uint64
	rows                      int
	runEnds                   []*synmeshv1.RunEnd
	blocks                    []lookedAt
}

// lookedAt is a block: of one row, with its shape, or else as a message.
type lookedAt struct {
	data    []byte
	shape   *convert.Shape
	message *synmeshv1.ResultBlock
}

// look takes a report apart; ok is false if it cannot be, and is to be kept as it came.
func (l *looker) look(data []byte) (ok bool) {
	l.epoch, l.sequence, l.produced, l.rows, l.runEnds, l.blocks = 0, 0, 0, 0, nil, l.blocks[:0]
	l.decoder.begin()
	for rest := data; len(rest) > 0; {
		var f field
		if rest, ok = f.next(rest); !ok {
			return l.lookSlowly(data)
		}
		switch f.key {
		case 1<<3 | fixed64:
			l.epoch = f.number
		case 2<<3 | varint:
			l.sequence = f.number
		case 3<<3 | bytesType:
			if !l.block(f.bytes) {
				return false
			}
		case 4<<3 | bytesType:
			e := &synmeshv1.RunEnd{}
			if proto.Unmarshal(f.bytes, e) != nil {
				return false
			}
			l.runEnds = append(l.runEnds, e)
		case 5<<3 | varint:
			l.produced = f.number
		case 6<<3 | varint:
		default:
			return l.lookSlowly(data)
		}
	}
	return true
}

// lookSlowly looks at a report that is encoded as no agent of today does it.
func (l *looker) lookSlowly(data []byte) bool {
	r := &synmeshv1.Report{}
	if proto.Unmarshal(data, r) != nil || !known(r) || !fits(r) {
		return false
	}
	l.epoch, l.sequence, l.produced, l.runEnds = r.GetEpoch(), r.GetSequence(), r.GetProduced(), r.GetRunEnds()
	l.rows, l.blocks = int(countResults(r)), l.blocks[:0]
	for _, b := range r.GetBlocks() {
		l.blocks = append(l.blocks, lookedAt{message: b})
	}
	return true
}

func (l *looker) block(data []byte) bool {
	if s := l.checker.Shape(data); s != nil && s.Rows == 1 && s.Answers <= 1 {
		b := lookedAt{data: data, shape: s}
		if at := b.time(); at > maxTime || at < -maxTime {
			return false
		}
		l.blocks = append(l.blocks, b)
		l.rows++
		return true
	}
	b, fast := l.decoder.nextBlock(data)
	if !fast {
		b = &synmeshv1.ResultBlock{}
		if proto.Unmarshal(data, b) != nil {
			return false
		}
	}
	l.alone.Blocks = append(l.alone.Blocks[:0], b)
	l.blocks = append(l.blocks, lookedAt{message: b})
	l.rows += len(b.GetOutcomes())
	return (fast || known(&l.alone)) && fits(&l.alone)
}

// names returns the source and the target.
func (b *lookedAt) names() (source, target string) {
	if b.shape == nil {
		return b.message.GetSource(), b.message.GetTarget()
	}
	return string(b.shape.Field(b.data, sourceField)), string(b.shape.Field(b.data, targetField))
}

// has tells whether these are the names.
func (b *lookedAt) has(source, target string) bool {
	if b.shape == nil {
		return b.message.GetTarget() == target && b.message.GetSource() == source
	}
	return string(b.shape.Field(b.data, targetField)) == target && string(b.shape.Field(b.data, sourceField)) == source
}

// time returns that of the result of a block that has a shape.
func (b *lookedAt) time() (at int64) {
	if f := b.shape.Field(b.data, startField); len(f) == 8 {
		at = int64(binary.LittleEndian.Uint64(f))
	}
	return at + protowire.DecodeZigZag(b.shape.Number(b.data, deltasField))
}

// outcome and rtt are those of that result.
func (b *lookedAt) outcome() probe.Outcome {
	return probe.Outcome(b.shape.Number(b.data, outcomesField))
}
func (b *lookedAt) rtt() int64 { return int64(b.shape.Number(b.data, rttsField)) }

// sample is a result of a series, as it is held until there are enough of them.
type sample struct {
	time, rtt, lateness, hostDelay          int64 // the round trip in nanoseconds, the others in microseconds
	report, attempts, drops, remote, synAck uint32
	synAckSeq, synSeq                       uint32
	localPort                               uint16
	outcome                                 uint8
}

// fillColumns makes columns of rows.
func fillColumns(b *block.Block, rows []sample) {
	for c := range b.Column {
		b.Column[c] = slices.Grow(b.Column[c][:0], len(rows))[:len(rows)]
	}
	for i := range rows {
		r := &rows[i]
		b.Column[block.Report][i], b.Column[block.Time][i], b.Column[block.Outcome][i] = int64(r.report), r.time, int64(r.outcome)
		b.Column[block.RTT][i], b.Column[block.LocalPort][i], b.Column[block.Lateness][i] = r.rtt, int64(r.localPort), r.lateness
		b.Column[block.HostDelay][i], b.Column[block.Attempts][i], b.Column[block.Drops][i] = r.hostDelay, int64(r.attempts), int64(r.drops)
		b.Column[block.Remote][i], b.Column[block.SynAck][i] = int64(r.remote), int64(r.synAck)
		b.Column[block.SynAckSeq][i], b.Column[block.SynSeq][i] = int64(r.synAckSeq), int64(r.synSeq)
	}
}

// of makes the row of a block of one result, but for the dictionaries.
func (r *sample) of(b *lookedAt) {
	s, data := b.shape, b.data
	r.time, r.outcome, r.rtt = microseconds(b.time()), uint8(b.outcome()), b.rtt()
	r.lateness = microseconds(int64(s.Number(data, latenessesField)))
	r.hostDelay = microseconds(int64(s.Number(data, hostDelaysField)))
	r.localPort = uint16(s.Number(data, localPortsField))
	r.attempts, r.drops = 1, uint32(s.Number(data, dropsField))
	if len(s.Field(data, attemptsField)) > 0 {
		r.attempts = uint32(s.Number(data, attemptsField))
	}
	if b := s.Field(data, synAckSeqsField); len(b) == 4 {
		r.synAckSeq = binary.LittleEndian.Uint32(b)
	}
	if b := s.Field(data, synSeqsField); len(b) == 4 {
		r.synSeq = binary.LittleEndian.Uint32(b)
	}
}
