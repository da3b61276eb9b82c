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
	looker
	agent  string
	out    [3]*builder // by tier
	table  [reportColumns][]int64
	notes  []block.Note
	series map[string]*gathered // by source and target, as in its key
	order  []*gathered          // of the blocks of the last report: the next has likely the same
	held   int                  // rows
	noted  int                  // bytes
	free   []*gathered          // emptied
	block  block.Block
	sums   [3][]rollup.Slot
	buf    []byte
	remote []byte
}

// gathered is what has been gathered of a series.
type gathered struct {
	source, target   []byte
	rows             []sample
	remotes, synAcks [][]byte
	notes            []block.Note
}

func newGatherer(out [3]*builder) *gatherer {
	return &gatherer{out: out, series: make(map[string]*gathered)}
}

// takeApart decodes a report; ok is false if it cannot be taken apart, and is to be kept as it came.
func (d *decoder) takeApart(data []byte) (r *synmeshv1.Report, ok bool) {
	r, err := d.decode(data)
	return r, err == nil && (r == &d.report || known(r)) && fits(r)
}

// The greatest fields of a report and of its blocks that the archive knows, in gatherer,
// in chunk.fill and in decoder. It does not keep the number of a preview, for which nobody waits any more.
const reportFields, blockFields = 6, 19

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

// add takes in the report that has been looked at.
func (g *gatherer) add(at uint64) error {
	if n := len(g.table[0]); n > 0 && (g.held+g.rows > gatherRows || n == block.MaxRows || g.noted > maxNoted || g.longest()+g.rows > block.MaxRows) {
		if err := g.flush(); err != nil {
			return err
		}
	}
	number := uint32(len(g.table[0]))
	for c, v := range [...]int64{int64(at), int64(g.epoch), int64(g.sequence), int64(g.produced), int64(g.rows)} {
		g.table[c] = append(g.table[c], v)
	}
	if len(g.runEnds) > 0 {
		text, err := proto.Marshal(&synmeshv1.Report{RunEnds: g.runEnds})
		if err != nil {
			return err
		}
		g.notes = append(g.notes, block.Note{Row: int(number), Text: text})
		g.noted += len(text)
	}
	for i := range g.blocks {
		b := &g.blocks[i]
		if b.shape != nil {
			g.addRow(i, number, b)
		} else if err := g.addBlock(i, number, b.message); err != nil {
			return err
		}
	}
	g.held += g.rows
	return nil
}

// longest returns the rows of the longest series.
func (g *gatherer) longest() (n int) {
	if g.held <= block.MaxRows/2 {
		return g.held
	}
	for _, s := range g.series {
		n = max(n, len(s.rows))
	}
	return n
}

// find returns the series of the i-th block of a report.
func (g *gatherer) find(i int, source, target []byte) *gathered {
	if i < len(g.order) {
		if s := g.order[i]; bytes.Equal(s.target, target) && bytes.Equal(s.source, source) {
			return s
		}
	}
	g.buf = append(append(binary.BigEndian.AppendUint16(g.buf[:0], uint16(len(source))), source...), target...)
	s := g.series[string(g.buf)]
	if s == nil {
		s = g.newSeries(source, target)
		g.series[string(g.buf)] = s
	}
	if i < len(g.order) {
		g.order[i] = s
	} else if i == len(g.order) {
		g.order = append(g.order, s)
	}
	return s
}

func (g *gatherer) newSeries(source, target []byte) *gathered {
	s := &gathered{}
	if n := len(g.free); n > 0 {
		s = g.free[n-1]
		g.free = g.free[:n-1]
	}
	s.source, s.target = append(s.source[:0], source...), append(s.target[:0], target...)
	return s
}

// addRow adds a block of one result.
func (g *gatherer) addRow(i int, number uint32, b *lookedAt) {
	k := b.shape
	s := g.find(i, k.Field(b.data, sourceField), k.Field(b.data, targetField))
	g.remote = appendRemote(g.remote[:0], byte(k.Number(b.data, stampField)), uint16(k.Number(b.data, portField)), k.Field(b.data, addressField))
	s.rows = append(s.rows, sample{report: number, remote: g.place(&s.remotes, g.remote)})
	r := &s.rows[len(s.rows)-1]
	r.of(b)
	if k.Number(b.data, synAckIndexesField) > 0 {
		r.synAck = g.place(&s.synAcks, k.Field(b.data, synAcksField)) + 1
	}
}

// addBlock adds any block.
func (g *gatherer) addBlock(i int, number uint32, m *synmeshv1.ResultBlock) error {
	if len(m.GetOutcomes()) == 0 {
		return nil
	}
	s := g.find(i, []byte(m.GetSource()), []byte(m.GetTarget()))
	first := len(s.rows)
	var synAcks []uint32
	for _, a := range m.GetSynAcks() {
		text, err := proto.MarshalOptions{Deterministic: true}.Marshal(a)
		if err != nil {
			return err
		}
		synAcks = append(synAcks, g.place(&s.synAcks, text)+1)
	}
	g.remote = appendRemote(g.remote[:0], byte(m.GetStamp()), uint16(m.GetPort()), m.GetAddress())
	remote := g.place(&s.remotes, g.remote)
	at := m.GetStart()
	for i, outcome := range m.GetOutcomes() {
		at += m.GetTimeDeltas()[i]
		synAck := uint32(0)
		if n := m.GetSynAckIndexes()[i]; n > 0 {
			synAck = synAcks[n-1]
		}
		s.rows = append(s.rows, sample{
			report: number, time: microseconds(at), outcome: uint8(outcome), rtt: m.GetRtts()[i],
			localPort: uint16(m.GetLocalPorts()[i]), lateness: microseconds(m.GetLatenesses()[i]),
			hostDelay: microseconds(m.GetHostDelays()[i]), attempts: at32(m.GetAttempts(), i, 1),
			drops: at32(m.GetDrops(), i, 0), remote: remote, synAck: synAck,
			synAckSeq: at32(m.GetSynAckSeqs(), i, 0), synSeq: at32(m.GetSynSeqs(), i, 0),
		})
	}
	for _, n := range m.GetNotes() {
		c := proto.CloneOf(n)
		c.Row = 0
		text, err := proto.Marshal(c)
		if err != nil {
			return err
		}
		s.notes = append(s.notes, block.Note{Row: first + int(n.GetRow()), Text: text})
		g.noted += len(text)
	}
	return nil
}

// place returns the place of a text in a dictionary.
func (g *gatherer) place(list *[][]byte, text []byte) uint32 {
	for i, s := range *list {
		if bytes.Equal(s, text) {
			return uint32(i)
		}
	}
	*list = append(*list, bytes.Clone(text))
	g.noted += len(text)
	return uint32(len(*list) - 1)
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
func appendRemote(b []byte, stamp byte, port uint16, address []byte) []byte {
	return append(binary.BigEndian.AppendUint16(append(b, stamp), port), address...)
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
	agent := agentKey(g.agent)
	for _, key := range slices.Sorted(maps.Keys(g.series)) {
		if err := g.flushSeries(append(agent[:len(agent):len(agent)], key...), tail, g.series[key]); err != nil {
			return err
		}
	}
	for _, s := range g.series {
		s.rows, s.remotes, s.synAcks, s.notes = s.rows[:0], s.remotes[:0], s.synAcks[:0], s.notes[:0]
		g.free = append(g.free, s)
	}
	clear(g.series)
	g.order = g.order[:0]
	for c := range g.table {
		g.table[c] = g.table[c][:0]
	}
	g.notes, g.held, g.noted = g.notes[:0], 0, 0
	return nil
}

func (g *gatherer) flushSeries(key []byte, tail uint64, s *gathered) (err error) {
	if len(s.rows) == 0 {
		return nil
	}
	b := &g.block
	fillColumns(b, s.rows)
	b.Remotes, b.SynAcks, b.Notes = s.remotes, s.synAcks, s.notes
	if g.buf, err = block.Append(g.buf[:0], b); err != nil {
		return err
	}
	if err := g.out[raw].put(seriesBucket, withTail(key, tail), g.buf); err != nil {
		return err
	}
	low, high := slices.Min(b.Column[block.Time]), slices.Max(b.Column[block.Time])
	us := int64(time.Microsecond)
	g.out[raw].span = g.out[raw].span.with(times{low * us, (high + 1) * us})
	g.sumUp(b)
	return errors.Join(putSlots(g.out[minutes], key, tail, g.sums[minutes], minutes), putSlots(g.out[hours], key, tail, g.sums[hours], hours))
}

// sumUp sums up the minutes and the hours of a series.
func (g *gatherer) sumUp(b *block.Block) {
	for t := minutes; t <= hours; t++ {
		g.sums[t] = g.sums[t][:0]
	}
	var minute *rollup.Slot
	var end, start int64 // of the minute
	us, length := int64(time.Microsecond), int64(minutes.slot())
	for row, at := range b.Column[block.Time] {
		at *= us
		if minute == nil || at < start || at >= end {
			slot := floorDiv(at, length)
			minute, start, end = slotOf(&g.sums[minutes], slot), slot*length, (slot+1)*length
		}
		addRow(&minute.Summary, b, row, noteOf(b, row))
	}
	perHour := int64(hours.slot() / minutes.slot())
	for i := range g.sums[minutes] {
		m := &g.sums[minutes][i]
		slotOf(&g.sums[hours], floorDiv(m.At, perHour)).Merge(&m.Summary)
	}
}

// slotOf returns the summary of a slot, which is made if it is not there; they rise.
func slotOf(list *[]rollup.Slot, at int64) *rollup.Slot {
	i := len(*list)
	for i > 0 && (*list)[i-1].At > at {
		i--
	}
	if i > 0 && (*list)[i-1].At == at {
		return &(*list)[i-1]
	}
	if i == len(*list) && i < cap(*list) { // with the memory of one before
		*list = (*list)[:i+1]
		(*list)[i].Reset()
	} else {
		*list = slices.Insert(*list, i, rollup.Slot{})
	}
	(*list)[i].At = at
	return &(*list)[i]
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
