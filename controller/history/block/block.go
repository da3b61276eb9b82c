// Package block packs the results of one series, which is one source, one agent
// and one target, into few bytes and back. It knows columns of numbers and
// nothing of what they are about, but for their names. Fill a Block, then call
// Append; Decode fills it again.
//
// # What is kept
//
// Every number as it was given, with one exception: a round trip is kept only
// where the outcome is one of those that have one (1 and 2, open and closed);
// elsewhere Decode gives 0.
//
// # What a block looks like
//
// It is a stream of bits. Rows (uvarint, at least 1), then the columns in the
// order of their constants, Time less Lateness, then the dictionaries and the notes: how many
// (uvarint), and each, with how far its row is behind the one before first if it is a note, as length (uvarint)
// and bytes. What a column looks like stands in numbers.go. There is no
// checksum: whoever stores a block adds one.
package block

import (
	"errors"
	"fmt"

	"github.com/synmesh/synmesh/controller/history/bits"
)

// ErrMalformed says that bytes are no block.
var ErrMalformed = errors.New("malformed block")

// The columns.
const (
	Report    = iota // which of the agent's reports brought the result
	Time             // when the SYN left
	Outcome          // 1 to 5
	RTT              // the round trip
	LocalPort        // tells the flow
	Lateness
	HostDelay
	Attempts
	Drops
	Remote // place in Remotes
	SynAck // one more than the place in SynAcks, or 0
	SynAckSeq
	SynSeq
	Columns // how many there are
)

const (
	// MaxRows is the most rows of a block.
	MaxRows = 1 << 16
	// maxText bounds what is in a dictionary or a note.
	maxText = 1 << 20
)

// Block is results as columns: row i is the i-th entry of every column.
type Block struct {
	Column [Columns][]int64
	// Remotes and SynAcks are dictionaries, for what is the same in many rows.
	Remotes, SynAcks [][]byte
	// Notes is what only some rows have, with rising rows.
	Notes []Note
}

// Note is what only some rows have.
type Note struct {
	Row  int
	Text []byte
}

// Rows returns how many rows the block has.
func (b *Block) Rows() int { return len(b.Column[Time]) }

// Reset empties the block and keeps its memory.
func (b *Block) Reset() {
	for i := range b.Column {
		b.Column[i] = b.Column[i][:0]
	}
	b.Remotes, b.SynAcks, b.Notes = b.Remotes[:0], b.SynAcks[:0], b.Notes[:0]
}

// kinds tells how the columns are packed best.
var kinds = [Columns]kind{
	Report: counted, Time: timed, Outcome: choice, RTT: spread, LocalPort: choice, Lateness: spread, HostDelay: spread,
	Attempts: choice, Drops: choice, Remote: choice, SynAck: choice, SynAckSeq: random, SynSeq: random,
}

// Append appends the block to dst. It panics if the columns are not equally long.
func Append(dst []byte, b *Block) ([]byte, error) {
	rows := b.Rows()
	if rows == 0 || rows > MaxRows {
		return dst, fmt.Errorf("a block of %d rows; it has 1 to %d", rows, MaxRows)
	}
	w := newPacker(dst)
	defer packers.Put(w)
	w.Uvarint(uint64(rows))
	for c, v := range b.Column {
		if len(v) != rows {
			panic(fmt.Sprintf("block: column %d has %d rows, not %d", c, len(v), rows))
		}
		switch c {
		case RTT:
			v = w.answered(v, b.Column[Outcome])
		case Time:
			v = w.appointed(v, b.Column[Lateness])
		}
		w.column(v, kinds[c])
	}
	w.texts(b.Remotes)
	w.texts(b.SynAcks)
	last := -1
	for _, n := range b.Notes {
		if n.Row <= last || n.Row >= rows {
			return dst, fmt.Errorf("a note about row %d of %d, after row %d; rows rise", n.Row, rows, last)
		}
		last = n.Row
	}
	w.notes(b.Notes)
	return w.Bytes(), nil
}

// answered returns the round trips of the rows that have one.
func (w *packer) answered(rtts, outcomes []int64) []int64 {
	w.rtts = w.rtts[:0]
	for i, v := range rtts {
		if hasRTT(outcomes[i]) {
			w.rtts = append(w.rtts, v)
		}
	}
	return w.rtts
}

// appointed returns when the results were due: that is more regular than their times.
func (w *packer) appointed(times, latenesses []int64) []int64 {
	w.due = w.due[:0]
	for i, v := range times {
		w.due = append(w.due, v-latenesses[i])
	}
	return w.due
}

func hasRTT(outcome int64) bool { return outcome == 1 || outcome == 2 }

func (w *packer) notes(notes []Note) {
	w.Uvarint(uint64(len(notes)))
	last := -1
	for _, n := range notes {
		w.Uvarint(uint64(n.Row - last - 1))
		w.text(n.Text)
		last = n.Row
	}
}

func (w *packer) texts(list [][]byte) {
	w.Uvarint(uint64(len(list)))
	for _, s := range list {
		w.text(s)
	}
}

func (w *packer) text(s []byte) {
	w.Uvarint(uint64(len(s)))
	for _, c := range s {
		w.Write(uint64(c), 8)
	}
}

// Decode fills b with the block that data is. Its errors wrap ErrMalformed.
func Decode(data []byte, b *Block) error {
	b.Reset()
	r := unpacker{Reader: bits.NewReader(data)}
	rows := r.Uvarint()
	if rows == 0 || rows > MaxRows {
		return fmt.Errorf("%w: %d rows", ErrMalformed, rows)
	}
	for c := range b.Column {
		n := int(rows)
		if c == RTT {
			n = countAnswered(b.Column[Outcome])
		}
		if b.Column[c] = r.column(b.Column[c], n); r.failed() {
			return fmt.Errorf("%w: column %d", ErrMalformed, c)
		}
	}
	b.Column[RTT] = spreadOut(b.Column[RTT], b.Column[Outcome])
	for i, late := range b.Column[Lateness] {
		b.Column[Time][i] += late
	}
	b.Remotes = r.texts(b.Remotes)
	b.SynAcks = r.texts(b.SynAcks)
	b.Notes = r.notes(b.Notes, int(rows))
	if r.failed() || !r.End() {
		return fmt.Errorf("%w: its dictionaries or notes", ErrMalformed)
	}
	for i := range rows {
		remote, synAck := b.Column[Remote][i], b.Column[SynAck][i]
		if remote < 0 || remote >= int64(len(b.Remotes)) || synAck < 0 || synAck > int64(len(b.SynAcks)) {
			return fmt.Errorf("%w: row %d points outside a dictionary", ErrMalformed, i)
		}
	}
	return nil
}

func countAnswered(outcomes []int64) (n int) {
	for _, o := range outcomes {
		if hasRTT(o) {
			n++
		}
	}
	return n
}

// spreadOut puts round trips to the rows that have one.
func spreadOut(rtts, outcomes []int64) []int64 {
	next := len(rtts)
	if next == len(outcomes) {
		return rtts
	}
	for len(rtts) < len(outcomes) {
		rtts = append(rtts, 0)
	}
	for i := len(outcomes) - 1; i >= 0; i-- {
		if hasRTT(outcomes[i]) {
			next--
			rtts[i] = rtts[next]
		} else {
			rtts[i] = 0
		}
	}
	return rtts
}

func (r *unpacker) texts(list [][]byte) [][]byte {
	for n := r.Uvarint(); n > 0 && !r.failed(); n-- {
		list = append(list, r.text())
	}
	return list
}

func (r *unpacker) text() []byte {
	n := r.Uvarint()
	if n > maxText {
		r.bad = true
		return nil
	}
	return r.Bytes(n)
}

func (r *unpacker) notes(list []Note, rows int) []Note {
	row := -1
	for n := r.Uvarint(); n > 0 && !r.failed(); n-- {
		gap := r.Uvarint()
		if gap >= uint64(rows-row-1) {
			r.bad = true
			break
		}
		row += int(gap) + 1
		list = append(list, Note{row, r.text()})
	}
	return list
}

// AppendTable appends columns of any meaning, all of the same length and of numbers that rise
// or are near each other, and notes about their rows. DecodeTable takes them apart.
func AppendTable(dst []byte, columns [][]int64, notes []Note) []byte {
	w := newPacker(dst)
	defer packers.Put(w)
	w.Uvarint(uint64(len(columns[0])))
	for _, v := range columns {
		w.column(v, timed)
	}
	w.notes(notes)
	return w.Bytes()
}

// DecodeTable returns the columns of a table, of which there are as many, and
// its notes. Its error wraps ErrMalformed.
func DecodeTable(data []byte, columns int) ([][]int64, []Note, error) {
	r := unpacker{Reader: bits.NewReader(data)}
	rows := r.Uvarint()
	if rows > MaxRows {
		return nil, nil, fmt.Errorf("%w: %d rows", ErrMalformed, rows)
	}
	list := make([][]int64, columns)
	for c := range list {
		if list[c] = r.column(nil, int(rows)); r.failed() {
			return nil, nil, fmt.Errorf("%w: column %d", ErrMalformed, c)
		}
	}
	notes := r.notes(nil, int(rows))
	if r.failed() || !r.End() {
		return nil, nil, fmt.Errorf("%w: its notes", ErrMalformed)
	}
	return list, notes, nil
}
