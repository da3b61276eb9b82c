package history

import (
	"bytes"
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/synmesh/synmesh/controller/history/block"
	"github.com/synmesh/synmesh/controller/history/rollup"
	"github.com/synmesh/synmesh/internal/convert"
	"github.com/synmesh/synmesh/probe"
	synmeshv1 "github.com/synmesh/synmesh/proto/synmesh/v1"
)

const (
	// gatherRows is how many results of one agent are held at most: about 100 bytes each.
	gatherRows = 512 << 10
	// maxNoted bounds the notes and dictionaries that are held beside them, in bytes.
	maxNoted = 16 << 20
	// maxTime bounds the times of results, nanoseconds from 1970: the years 1824 to 2116.
	maxTime = 1 << 62
)

// The columns of a table of reports. What else there is to say about a report
// is a note: itself without its blocks and these numbers.
const (
	storedColumn = iota
	epochColumn
	sequenceColumn
	producedColumn
	rowsColumn
	reportColumns
)

// gatherer turns reports of one agent into records of the three tiers.
type gatherer struct {
	agent   string
	out     [3]*builder // by tier
	table   [reportColumns][]int64
	notes   []block.Note
	series  map[Series]*block.Block
	rows    int
	noted   int
	free    []*block.Block // emptied
	sums    [3]map[int64]*rollup.Summary
	buf     []byte
	fast    decoder
	said    map[*synmeshv1.SynAck][]byte // the decoder's, as they are kept
	synAcks []int64
	remote  []byte
}

func newGatherer(out [3]*builder) *gatherer {
	return &gatherer{out: out, said: make(map[*synmeshv1.SynAck][]byte), series: make(map[Series]*block.Block),
		sums: [3]map[int64]*rollup.Summary{minutes: {}, hours: {}}}
}

// takeApart decodes a report; ok is false if it cannot be taken apart, and is to be kept as it came.
func (d *decoder) takeApart(data []byte) (r *synmeshv1.Report, ok bool) {
	r, err := d.decode(data)
	return r, err == nil && (r == &d.report || known(r)) && fits(r)
}

// The greatest fields of a report and of its blocks that the archive knows, in gatherer,
// in chunk.fill and in decoder.
const reportFields, blockFields = 5, 19

// known tells whether a report has nothing that the archive does not know, and would lose.
func known(r *synmeshv1.Report) bool {
	fields := func(m proto.Message, most protoreflect.FieldNumber) bool {
		ok := len(m.ProtoReflect().GetUnknown()) == 0
		m.ProtoReflect().Range(func(f protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
			ok = ok && f.Number() <= most
			return ok
		})
		return ok
	}
	return fields(r, reportFields) && !slices.ContainsFunc(r.GetBlocks(), func(b *synmeshv1.ResultBlock) bool { return !fields(b, blockFields) })
}

// fits tells whether what is in a report is within the bounds of the archive.
func fits(r *synmeshv1.Report) bool {
	for _, b := range r.GetBlocks() {
		if len(b.GetSource()) > maxName || len(b.GetTarget()) > maxName || len(b.GetOutcomes()) > block.MaxRows ||
			len(b.GetNotes()) > 0 && proto.Size(b) > maxNoted {
			return false
		}
		at := b.GetStart()
		for _, d := range b.GetTimeDeltas() {
			if at += d; at > maxTime || at < -maxTime {
				return false
			}
		}
	}
	return convert.CheckReport(r) == nil
}

// add takes in a report that fits.
func (g *gatherer) add(at uint64, r *synmeshv1.Report) error {
	rows := int(countResults(r))
	if n := len(g.table[0]); n > 0 && (g.rows+rows > gatherRows || n == block.MaxRows || g.noted > maxNoted || g.longest()+rows > block.MaxRows) {
		if err := g.flush(); err != nil {
			return err
		}
	}
	number := int64(len(g.table[0]))
	for c, v := range [...]int64{int64(at), int64(r.GetEpoch()), int64(r.GetSequence()), int64(r.GetProduced()), int64(rows)} {
		g.table[c] = append(g.table[c], v)
	}
	if rest := (&synmeshv1.Report{RunEnds: r.GetRunEnds()}); len(rest.RunEnds) > 0 {
		text, err := proto.Marshal(rest)
		if err != nil {
			return err
		}
		g.notes = append(g.notes, block.Note{Row: int(number), Text: text})
		g.noted += len(text)
	}
	for _, b := range r.GetBlocks() {
		if err := g.addBlock(number, b); err != nil {
			return err
		}
	}
	g.rows += rows
	return nil
}

// longest returns the rows of the longest series.
func (g *gatherer) longest() (n int) {
	if g.rows <= block.MaxRows/2 {
		return g.rows
	}
	for _, b := range g.series {
		n = max(n, b.Rows())
	}
	return n
}

func (g *gatherer) addBlock(number int64, m *synmeshv1.ResultBlock) error {
	if len(m.GetOutcomes()) == 0 {
		return nil
	}
	id := Series{m.GetSource(), g.agent, m.GetTarget()}
	b := g.series[id]
	if b == nil {
		b = g.newBlock()
		g.series[id] = b
	}
	first := b.Rows()
	synAcks := slices.Grow(g.synAcks[:0], len(m.GetSynAcks()))[:len(m.GetSynAcks())]
	g.synAcks = synAcks
	for i, a := range m.GetSynAcks() {
		text, known := g.said[a]
		if !known {
			var err error
			if text, err = (proto.MarshalOptions{Deterministic: true}).Marshal(a); err != nil {
				return err
			}
			g.said[a] = text
		}
		synAcks[i] = g.place(&b.SynAcks, text) + 1
	}
	g.remote = appendRemote(g.remote[:0], m)
	remote := g.place(&b.Remotes, g.remote)
	at := m.GetStart()
	for i, outcome := range m.GetOutcomes() {
		at += m.GetTimeDeltas()[i]
		synAck := int64(0)
		if n := m.GetSynAckIndexes()[i]; n > 0 {
			synAck = synAcks[n-1]
		}
		for c, v := range [block.Columns]int64{
			block.Report: number, block.Time: microseconds(at), block.Outcome: int64(outcome), block.RTT: m.GetRtts()[i],
			block.LocalPort: int64(m.GetLocalPorts()[i]), block.Lateness: microseconds(m.GetLatenesses()[i]),
			block.HostDelay: microseconds(m.GetHostDelays()[i]), block.Attempts: int64(at32(m.GetAttempts(), i, 1)),
			block.Drops: int64(at32(m.GetDrops(), i, 0)), block.Remote: remote, block.SynAck: synAck,
			block.SynAckSeq: int64(at32(m.GetSynAckSeqs(), i, 0)), block.SynSeq: int64(at32(m.GetSynSeqs(), i, 0)),
		} {
			b.Column[c] = append(b.Column[c], v)
		}
	}
	for _, n := range m.GetNotes() {
		c := proto.CloneOf(n)
		c.Row = 0
		text, err := proto.Marshal(c)
		if err != nil {
			return err
		}
		b.Notes = append(b.Notes, block.Note{Row: first + int(n.GetRow()), Text: text})
		g.noted += len(text)
	}
	return nil
}

func (g *gatherer) newBlock() *block.Block {
	if n := len(g.free); n > 0 {
		b := g.free[n-1]
		g.free = g.free[:n-1]
		return b
	}
	return &block.Block{}
}

// place returns the place of a text in a dictionary.
func (g *gatherer) place(list *[][]byte, text []byte) int64 {
	for i, s := range *list {
		if bytes.Equal(s, text) {
			return int64(i)
		}
	}
	*list = append(*list, bytes.Clone(text))
	g.noted += len(text)
	return int64(len(*list) - 1)
}

// at32 returns an entry of a column that may be empty.
func at32(column []uint32, i int, usual uint32) uint32 {
	if len(column) == 0 {
		return usual
	}
	return column[i]
}

// microseconds is nanoseconds as the archive keeps them where the nanosecond tells nothing.
func microseconds(ns int64) int64 { return floorDiv(ns, int64(time.Microsecond)) }

// appendRemote appends the stamp, port and address of a block.
func appendRemote(b []byte, m *synmeshv1.ResultBlock) []byte {
	b = binary.BigEndian.AppendUint16(append(b, byte(m.GetStamp())), uint16(m.GetPort()))
	return append(b, m.GetAddress()...)
}

// flush writes what has been gathered.
func (g *gatherer) flush() error {
	if len(g.table[0]) == 0 {
		return nil
	}
	tail := uint64(g.table[storedColumn][0])
	value := block.AppendTable(nil, g.table[:], g.notes)
	if err := g.out[raw].put(reportsBucket, withTail(agentKey(g.agent), tail), value); err != nil {
		return err
	}
	keys := make(map[string]Series, len(g.series))
	for id := range g.series {
		keys[string(seriesKey(id.Agent, id.Source, id.Target))] = id
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if err := g.flushSeries([]byte(key), tail, g.series[keys[key]]); err != nil {
			return err
		}
	}
	for _, b := range g.series {
		b.Reset()
		g.free = append(g.free, b)
	}
	clear(g.series)
	for c := range g.table {
		g.table[c] = g.table[c][:0]
	}
	g.notes, g.rows, g.noted = g.notes[:0], 0, 0
	clear(g.said)
	return nil
}

func (g *gatherer) flushSeries(key []byte, tail uint64, b *block.Block) (err error) {
	if g.buf, err = block.Append(g.buf[:0], b); err != nil {
		return err
	}
	if err := g.out[raw].put(seriesBucket, withTail(key, tail), g.buf); err != nil {
		return err
	}
	span := noTimes
	for row, at := range b.Column[block.Time] {
		at *= int64(time.Microsecond)
		span = span.with(times{at, at + int64(time.Microsecond)})
		for t := minutes; t <= hours; t++ {
			slot := floorDiv(at, int64(t.slot()))
			s := g.sums[t][slot]
			if s == nil {
				s = &rollup.Summary{}
				g.sums[t][slot] = s
			}
			addRow(s, b, row, noteOf(b, row))
		}
	}
	g.out[raw].span = g.out[raw].span.with(span)
	return errors.Join(g.flushSums(key, tail, minutes), g.flushSums(key, tail, hours))
}

// noteOf returns the note about a row, or nil.
func noteOf(b *block.Block, row int) []byte {
	if len(b.Notes) == 0 {
		return nil
	}
	i, ok := slices.BinarySearchFunc(b.Notes, row, func(n block.Note, row int) int { return n.Row - row })
	if !ok {
		return nil
	}
	return b.Notes[i].Text
}

// addRow adds a row of a block to a summary.
func addRow(s *rollup.Summary, b *block.Block, row int, note []byte) {
	outcome := probe.Outcome(b.Column[block.Outcome][row])
	s.Add(outcome, time.Duration(b.Column[block.RTT][row]), outcome.Answered() && timedNote(note))
}

// timedNote tells whether a result with the note has a round trip; see probe.Result.Timed.
func timedNote(note []byte) bool {
	if len(note) == 0 {
		return true
	}
	var n synmeshv1.ResultNote
	if proto.Unmarshal(note, &n) != nil || n.GetRetry() == nil {
		return true
	}
	r := probe.Result{Outcome: probe.Open, Retry: &probe.Retry{Answered: int(n.GetRetry().GetAnswered()), Lost: probe.Lost(n.GetRetry().GetLost())}}
	return r.Timed()
}

// flushSums writes the summaries of a series, as records of a bounded number of slots.
func (g *gatherer) flushSums(key []byte, tail uint64, t tier) error {
	slots := make([]rollup.Slot, 0, len(g.sums[t]))
	for _, at := range slices.Sorted(maps.Keys(g.sums[t])) {
		slots = append(slots, rollup.Slot{At: at, Summary: *g.sums[t][at]})
	}
	clear(g.sums[t])
	return putSlots(g.out[t], key, tail, slots, t)
}
