package convert

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// ErrEncoding says that bytes are no message at all.
var ErrEncoding = errors.New("not the encoding of a report")

// Checker does for encoded reports what proto.Unmarshal and CheckReport do together, and takes
// apart only what is unusual. The zero value is ready for use.
type Checker struct {
	// Of the report that was checked last:
	Epoch, Sequence, Results uint64
	// Sources are those of its blocks and its run ends, some maybe more than once. They are in its bytes.
	Sources [][]byte

	known   shapes
	answers map[string]bool // encoded SYN-ACKs that are right
	answer  []byte          // a copy of the last of them
}

// maxAnswers bounds how many SYN-ACKs are remembered.
const maxAnswers = 1 << 10

// Check says what is wrong with a report, as CheckReport does, or returns nil. If
// proto.Unmarshal refuses it, the error wraps ErrEncoding. What of it is exported is valid
// unless that is so.
func (c *Checker) Check(data []byte) error {
	c.Epoch, c.Sequence, c.Results, c.Sources, c.answer = 0, 0, 0, c.Sources[:0], c.answer[:0]
	blocks := 0
	var wrong error
	for i := 0; i < len(data); {
		var f wireField
		var ok bool
		if i, ok = f.take(data, i); !ok {
			return c.checkSlowly(data)
		}
		switch f.key {
		case 1<<3 | fixed64:
			c.Epoch = f.number
		case 2<<3 | varint:
			c.Sequence = f.number
		case 3<<3 | delimited:
			err := c.block(f.bytes)
			if errors.Is(err, ErrEncoding) {
				return err
			}
			if err != nil && wrong == nil {
				wrong = fmt.Errorf("blocks[%d]: %w", blocks, err)
			}
			blocks++
		case 4<<3 | delimited:
			if !c.runEnd(f.bytes) {
				return c.checkSlowly(data)
			}
		case 5<<3 | varint, 6<<3 | varint:
		default:
			return c.checkSlowly(data)
		}
	}
	return wrong
}

// checkSlowly checks what no agent of today sends.
func (c *Checker) checkSlowly(data []byte) error {
	var m synmeshv1.Report
	if err := proto.Unmarshal(data, &m); err != nil {
		return fmt.Errorf("%w: %w", ErrEncoding, err)
	}
	c.Epoch, c.Sequence, c.Results, c.Sources = m.GetEpoch(), m.GetSequence(), 0, c.Sources[:0]
	for _, b := range m.GetBlocks() {
		c.Results += uint64(len(b.GetOutcomes()))
		c.Sources = append(c.Sources, []byte(b.GetSource()))
	}
	for _, e := range m.GetRunEnds() {
		c.Sources = append(c.Sources, []byte(e.GetRun()))
	}
	return CheckReport(&m)
}

func (c *Checker) runEnd(data []byte) bool {
	var m synmeshv1.RunEnd
	if proto.Unmarshal(data, &m) != nil {
		return false
	}
	c.Sources = append(c.Sources, []byte(m.GetRun()))
	return true
}

func (c *Checker) block(data []byte) error {
	if k := c.known.find(data); k != nil {
		c.Results += uint64(k.Rows)
		c.source(k.Field(data, 1))
		return nil
	}
	if w, ok := c.usual(data); ok {
		c.known.learn(data, &w)
		c.Results += w.outcomes
		c.source(w.source)
		return nil
	}
	var m synmeshv1.ResultBlock
	if err := proto.Unmarshal(data, &m); err != nil {
		return fmt.Errorf("%w: %w", ErrEncoding, err)
	}
	c.Results += uint64(len(m.GetOutcomes()))
	c.Sources = append(c.Sources, []byte(m.GetSource()))
	return checkBlock(&m)
}

func (c *Checker) source(s []byte) {
	if n := len(c.Sources); n == 0 || !bytes.Equal(c.Sources[n-1], s) {
		c.Sources = append(c.Sources, s)
	}
}

// usualBlock is what there is to compare in a block.
type usualBlock struct {
	source   []byte
	outcomes uint64
	rows     [fieldsOfBlocks]uint64 // of each column, by its field's number
	columns  uint32                 // those that are there, a bit for each
	stamped  bool
	answers  uint64
	highest  uint64 // of the places of SYN-ACKs
}

// neededColumns are those that have a row for each result; others may have none.
const neededColumns = 1<<6 | 1<<8 | 1<<9 | 1<<12 | 1<<13 | 1<<16

// usual looks at a block as agents encode it, with the fields in order and without notes. ok
// says that nothing is wrong with it; otherwise nothing is known.
func (c *Checker) usual(data []byte) (w usualBlock, ok bool) {
	last := uint64(0)
	for i := 0; i < len(data); {
		var f wireField
		if i, ok = f.take(data, i); !ok || f.key <= last && f.key != answersKey {
			return w, false
		}
		last = f.key
		if !c.usualField(&w, &f) {
			return w, false
		}
	}
	ok = w.stamped && w.highest <= w.answers
	if w.outcomes == 0 {
		return w, ok && w.columns == 0
	}
	if w.columns&neededColumns != neededColumns {
		return w, false
	}
	for left := w.columns; left != 0; left &= left - 1 {
		ok = ok && w.rows[bits.TrailingZeros32(left)] == w.outcomes
	}
	return w, ok
}

const answersKey = 15<<3 | delimited

func (c *Checker) usualField(w *usualBlock, f *wireField) (ok bool) {
	rows := uint64(0)
	switch f.key {
	case 1<<3 | delimited:
		w.source = f.bytes
		n := len(c.Sources)
		return n > 0 && bytes.Equal(c.Sources[n-1], f.bytes) || utf8.Valid(f.bytes)
	case 2<<3 | delimited:
		return utf8.Valid(f.bytes)
	case 3<<3 | delimited:
		return len(f.bytes) == 0 || len(f.bytes) == 4 || len(f.bytes) == 16
	case 4<<3 | varint:
		return f.number < 1<<16
	case 5<<3 | fixed64:
		return true
	case 7<<3 | delimited:
		w.outcomes = uint64(len(f.bytes))
		for _, o := range f.bytes {
			if checkOutcome(synmeshv1.Outcome(o)) != nil {
				return false
			}
		}
		return true
	case 11<<3 | varint:
		w.stamped = true
		return f.number < 1<<7 && checkStamp(synmeshv1.Stamp(f.number)) == nil
	case answersKey:
		w.answers++
		return c.rightAnswer(f.bytes)
	case 6<<3 | delimited, 8<<3 | delimited, 10<<3 | delimited, 12<<3 | delimited, 13<<3 | delimited, 14<<3 | delimited:
		rows, ok = countVarints(f.bytes)
	case 9<<3 | delimited:
		var highest uint64
		rows, highest, ok = highestVarint(f.bytes)
		ok = ok && highest < 1<<16
	case 16<<3 | delimited:
		rows, w.highest, ok = highestVarint(f.bytes)
	case 17<<3 | delimited, 19<<3 | delimited:
		rows, ok = uint64(len(f.bytes)/4), len(f.bytes)%4 == 0
	}
	if rows > 0 {
		w.rows[f.key>>3] = rows
		w.columns |= 1 << (f.key >> 3)
	}
	return ok
}

// rightAnswer tells whether an encoded SYN-ACK is right; targets say the same again and again.
func (c *Checker) rightAnswer(data []byte) bool {
	if len(c.answer) > 0 && bytes.Equal(data, c.answer) {
		return true
	}
	if !c.answers[string(data)] {
		var m synmeshv1.SynAck
		if proto.Unmarshal(data, &m) != nil || checkSynAck(&m) != nil {
			return false
		}
		if c.answers == nil || len(c.answers) >= maxAnswers {
			c.answers = make(map[string]bool)
		}
		c.answers[string(data)] = true
	}
	c.answer = append(c.answer[:0], data...) // the caller may use its buffer again
	return true
}

// The wire types of protobuf that are used.
const (
	varint    = uint64(protowire.VarintType)
	fixed64   = uint64(protowire.Fixed64Type)
	delimited = uint64(protowire.BytesType)
)

// wireField is a field of an encoded message: its number and wire type together, and what is in it.
type wireField struct {
	key    uint64
	number uint64
	bytes  []byte
}

// take reads the field at a place of the data, and returns the place behind it. It knows no
// others than agents use.
func (f *wireField) take(data []byte, i int) (next int, ok bool) {
	if i >= len(data) {
		return i, false
	}
	if b := data[i]; b < 0x80 {
		f.key = uint64(b)
		i++
	} else {
		v, n := shortVarint(data[i:])
		if n == 0 {
			return i, false
		}
		f.key = v
		i += n
	}
	if f.key&7 == fixed64 {
		if len(data)-i < 8 {
			return i, false
		}
		f.number = binary.LittleEndian.Uint64(data[i:])
		return i + 8, true
	}
	if i < len(data) && data[i] < 0x80 {
		f.number = uint64(data[i])
		i++
	} else {
		v, n := shortVarint(data[i:])
		if n == 0 {
			return i, false
		}
		f.number = v
		i += n
	}
	switch f.key & 7 {
	case varint:
		return i, true
	case delimited:
		if f.number > uint64(len(data)-i) {
			return i, false
		}
		end := i + int(f.number)
		f.bytes = data[i:end:end]
		return end, true
	}
	return i, false
}

// shortVarint reads a number of up to nine bytes, and returns how many they are; 0 if there is none.
func shortVarint(b []byte) (v uint64, n int) {
	if len(b) > 0 && b[0] < 0x80 {
		return uint64(b[0]), 1
	}
	for i := 0; i < len(b) && i < 9; i++ {
		v |= uint64(b[i]&0x7f) << (7 * i)
		if b[i] < 0x80 {
			return v, i + 1
		}
	}
	return 0, 0
}

// countVarints counts packed numbers of up to nine bytes.
func countVarints(b []byte) (n uint64, ok bool) {
	long := 0
	for _, c := range b {
		if c < 0x80 {
			n++
			long = 0
		} else if long++; long == 9 {
			return 0, false
		}
	}
	return n, long == 0
}

// highestVarint counts them, and returns the highest. It is for numbers that unmarshalling cuts off
// above 32 bits, and knows none so large.
func highestVarint(b []byte) (n, highest uint64, ok bool) {
	for len(b) > 0 {
		v, size := shortVarint(b)
		if size == 0 || v >= 1<<32 {
			return 0, 0, false
		}
		n, highest, b = n+1, max(highest, v), b[size:]
	}
	return n, highest, true
}
