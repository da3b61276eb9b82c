package history

import (
	"cmp"
	"encoding/binary"
	"iter"
	"math"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/synmesh/synmesh/controller/history/block"
	synmeshv1 "github.com/synmesh/synmesh/proto/synmesh/v1"
)

const (
	// The archive is in the order of series, and Scan in that of reports. So it goes
	// through a file once for some reports of all agents, which have about that many
	// results, twice as many each time.
	firstWindow = 1 << 14
	lastWindow  = 1 << 18
)

// chunk is reports of one agent that were archived together.
type chunk struct {
	agent string
	tail  uint64
	table [][]int64
	notes []block.Note

	// Of the window: the reports that are in it.
	first, last int // the place of the first, and one more than that of the last
	entries     []Entry
}

// reports calls fn with the chunks of a file, of the agents wanted.
func (s *Store) reports(a *archived, want Filter, fn func(*chunk) bool) error {
	var prefix []byte
	if want.Agent != "" {
		prefix = agentKey(want.Agent)
	}
	return a.view(func(t *tree) error {
		return s.each(a, t, reportsBucket, prefix, nil, func(k, v []byte) bool {
			id, tail, ok := parseKey(k)
			if ok && !want.Wants(id.Agent) {
				return true
			}
			table, notes, err := block.DecodeTable(v, reportColumns)
			if !ok || err != nil {
				s.noteCorrupt(a, []string{string(k)})
				return true
			}
			return fn(&chunk{agent: id.Agent, tail: tail, table: table, notes: notes})
		})
	})
}

// archivedEntries reads the next entries of an archive file, and moves the reader on.
func (s *Store) archivedEntries(r *reader, a *archived, want Filter) (list iter.Seq[Entry], more bool, err error) {
	var chunks []*chunk
	if err := s.reports(a, want, func(c *chunk) bool { chunks = append(chunks, c); return true }); err != nil {
		return nil, false, err
	}
	r.window = min(max(2*r.window, firstWindow), lastWindow)
	end := windowEnd(chunks, r.next, r.end, r.window)
	byKey := make(map[string]*chunk, len(chunks))
	var all []Entry
	for _, c := range chunks {
		stored := c.table[storedColumn]
		c.first, _ = slices.BinarySearch(stored, int64(min(r.next, math.MaxInt64)))
		c.last, _ = slices.BinarySearch(stored, int64(min(end, math.MaxInt64)))
		c.begin()
		byKey[string(withTail(agentKey(c.agent), c.tail))] = c
	}
	if err := s.fillEntries(r, a, byKey, want); err != nil {
		return nil, false, err
	}
	for _, c := range chunks {
		all = append(all, c.entries...)
	}
	odd, err := s.oddEntries(a, r.next, end, want)
	if err != nil {
		return nil, false, err
	}
	all = append(all, odd...)
	slices.SortFunc(all, func(a, b Entry) int { return a.Cursor.Compare(b.Cursor) })
	more = end < r.end && end <= a.lastStored
	r.next = max(r.next, min(end, a.lastStored+1))
	return slices.Values(all), more, nil
}

// windowEnd returns the stored time up to which the reports from one on have about so many results.
func windowEnd(chunks []*chunk, from, to uint64, results int64) uint64 {
	type weight struct{ at, rows int64 }
	var list []weight
	for _, c := range chunks {
		for i, at := range c.table[storedColumn] {
			if uint64(at) >= from && uint64(at) < to {
				list = append(list, weight{at, c.table[rowsColumn][i] + 10})
			}
		}
	}
	slices.SortFunc(list, func(a, b weight) int { return cmp.Compare(a.at, b.at) })
	for _, w := range list {
		if results -= w.rows; results < 0 {
			return uint64(w.at) + 1
		}
	}
	return to
}

// begin makes the entries of the window, without blocks yet.
func (c *chunk) begin() {
	for i := c.first; i < c.last; i++ {
		r := &synmeshv1.Report{}
		if n, ok := slices.BinarySearchFunc(c.notes, i, func(n block.Note, i int) int { return n.Row - i }); ok {
			_ = proto.Unmarshal(c.notes[n].Text, r) // it has been checked by its sum, and was made by Marshal
		}
		r.Epoch, r.Sequence = uint64(c.table[epochColumn][i]), uint64(c.table[sequenceColumn][i])
		r.Produced = uint64(c.table[producedColumn][i])
		c.entries = append(c.entries, newEntry(uint64(c.table[storedColumn][i]), c.agent, r))
	}
}

// fillEntries puts the blocks to the entries of the chunks' windows.
func (s *Store) fillEntries(r *reader, a *archived, chunks map[string]*chunk, want Filter) error {
	var prefix []byte
	switch {
	case want.Agent != "" && want.Source != "" && want.Target != "":
		prefix = seriesKey(want.Agent, want.Source, want.Target)
	case want.Agent != "":
		prefix = agentKey(want.Agent)
	}
	var b block.Block
	var stop error
	err := a.view(func(t *tree) error {
		return s.each(a, t, seriesBucket, prefix, nil, func(k, v []byte) bool {
			if stop = r.mayGoOn(); stop != nil {
				return false
			}
			id, tail, ok := parseKey(k)
			if !ok || !want.WantsSeries(id) {
				return true
			}
			c := chunks[string(withTail(agentKey(id.Agent), tail))]
			if c == nil || len(c.entries) == 0 {
				return true
			}
			if err := block.Decode(v, &b); err != nil || !c.fill(id, &b) {
				s.noteCorrupt(a, []string{string(k)})
			}
			return true
		})
	})
	return cmp.Or(stop, err)
}

// fill puts the rows of a series to the reports that brought them; ok is false if
// the block is not of the chunk.
func (c *chunk) fill(id Series, b *block.Block) (ok bool) {
	var m *synmeshv1.ResultBlock
	report, remote, at, synAcks := int64(-1), int64(-1), int64(0), map[int64]uint32(nil)
	notes := b.Notes
	for row, number := range b.Column[block.Report] {
		if number < 0 || number >= int64(len(c.table[0])) {
			return false
		}
		var note []byte
		if len(notes) > 0 && notes[0].Row == row {
			note, notes = notes[0].Text, notes[1:]
		}
		if number < int64(c.first) || number >= int64(c.last) {
			continue
		}
		if number != report || b.Column[block.Remote][row] != remote {
			report, remote = number, b.Column[block.Remote][row]
			m = &synmeshv1.ResultBlock{Source: id.Source, Target: id.Target, Start: b.Column[block.Time][row] * int64(time.Microsecond)}
			if !decodeRemote(b.Remotes[remote], m) {
				return false
			}
			r := c.entries[int(number)-c.first].Report
			r.Blocks = append(r.Blocks, m)
			at, synAcks = m.Start, map[int64]uint32{}
		}
		time := b.Column[block.Time][row] * int64(time.Microsecond)
		if !addToBlock(m, b, row, time-at, note, synAcks) {
			return false
		}
		at = time
	}
	return true
}

func decodeRemote(text []byte, m *synmeshv1.ResultBlock) (ok bool) {
	if len(text) < 3 {
		return false
	}
	m.Stamp, m.Port = synmeshv1.Stamp(text[0]), uint32(binary.BigEndian.Uint16(text[1:]))
	if len(text) > 3 {
		m.Address = slices.Clone(text[3:])
	}
	return true
}

// addToBlock appends a row to the columns of a report's block.
func addToBlock(m *synmeshv1.ResultBlock, b *block.Block, row int, since int64, note []byte, synAcks map[int64]uint32) (ok bool) {
	number, n := func(c int) int64 { return b.Column[c][row] }, len(m.Outcomes)
	m.TimeDeltas = append(m.TimeDeltas, since)
	m.Outcomes = append(m.Outcomes, synmeshv1.Outcome(number(block.Outcome)))
	m.Rtts = append(m.Rtts, number(block.RTT))
	m.LocalPorts = append(m.LocalPorts, uint32(number(block.LocalPort)))
	m.Latenesses = append(m.Latenesses, number(block.Lateness)*int64(time.Microsecond))
	m.HostDelays = append(m.HostDelays, number(block.HostDelay)*int64(time.Microsecond))
	m.Attempts = appendUnusual(m.Attempts, n, number(block.Attempts), 1)
	m.Drops = appendUnusual(m.Drops, n, number(block.Drops), 0)
	m.SynAckSeqs = appendUnusual(m.SynAckSeqs, n, number(block.SynAckSeq), 0)
	m.SynSeqs = appendUnusual(m.SynSeqs, n, number(block.SynSeq), 0)
	place := number(block.SynAck)
	index, known := synAcks[place]
	if place > 0 && !known {
		a := &synmeshv1.SynAck{}
		if proto.Unmarshal(b.SynAcks[place-1], a) != nil {
			return false
		}
		m.SynAcks = append(m.SynAcks, a)
		index = uint32(len(m.SynAcks))
		synAcks[place] = index
	}
	m.SynAckIndexes = append(m.SynAckIndexes, index)
	if note == nil {
		return true
	}
	full := &synmeshv1.ResultNote{}
	if proto.Unmarshal(note, full) != nil {
		return false
	}
	full.Row = uint32(n)
	m.Notes = append(m.Notes, full)
	return true
}

// appendUnusual appends to a column that is empty as long as all is the usual value.
func appendUnusual(column []uint32, rows int, v int64, usual uint32) []uint32 {
	if len(column) == 0 {
		if v == int64(usual) {
			return column
		}
		for range rows {
			column = append(column, usual)
		}
	}
	return append(column, uint32(v))
}

// oddEntries returns the entries of reports that are kept as they came.
func (s *Store) oddEntries(a *archived, from, to uint64, want Filter) (list []Entry, err error) {
	key := binary.BigEndian.AppendUint64(nil, min(from, math.MaxUint64-1))
	err = a.view(func(t *tree) error {
		return s.each(a, t, oddBucket, nil, key, func(k, v []byte) bool {
			r, ok := decodeRecord(k, v)
			if !ok {
				s.noteCorrupt(a, []string{string(k)})
				return true
			}
			if r.at >= to {
				return false
			}
			report := &synmeshv1.Report{}
			if agent := string(r.agent); want.Wants(agent) && proto.Unmarshal(r.report, report) == nil {
				report.Blocks = wanted(agent, report.GetBlocks(), want)
				list = append(list, newEntry(r.at, agent, report))
			}
			return true
		})
	})
	return list, err
}
