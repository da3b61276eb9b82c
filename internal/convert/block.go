package convert

import (
	"fmt"
	"iter"
	"net/netip"
	"time"

	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// Blocks gathers results into the columns of a report. The zero value is ready
// for use.
type Blocks struct {
	// KeepSeq says of which sources the SYN-ACKs' sequence numbers are kept;
	// nil keeps none. They are four random bytes a result.
	KeepSeq func(source string) bool

	blocks []*synmeshv1.ResultBlock
	open   map[blockKey]int // where in builders
	rows   int

	builders []builder                // as many as blocks
	spare    []*synmeshv1.ResultBlock // for the blocks to come
}

const (
	blockBatch = 32   // blocks that are made together
	maxSpare   = 1024 // blocks that are kept for later reports, and what there is room for when one begins
	maxKept    = 16   // rows that a block has room for that is kept
)

type blockKey struct {
	source, target string
	remote         netip.AddrPort
	stamp          probe.Stamp
}

type builder struct {
	block  *synmeshv1.ResultBlock
	last   int64
	first  probe.SynAck            // what the first SYN-ACK said
	others map[probe.SynAck]uint32 // one more than the place in the block
	seqs   bool
}

// rowBlock is a block with room for one row, which is all that most blocks get
// where there are many targets. Longer columns are moved elsewhere.
type rowBlock struct {
	block    synmeshv1.ResultBlock
	times    [4]int64
	numbers  [2]uint32
	outcomes [1]synmeshv1.Outcome
	synAcks  [1]*synmeshv1.SynAck
}

// Len returns the results gathered.
func (b *Blocks) Len() int { return b.rows }

// Add gathers one result; its Agent is left out, for a report has one.
func (b *Blocks) Add(r *probe.Result) {
	key := blockKey{r.Source, r.Target, r.Remote, r.Stamp}
	i, ok := b.open[key]
	if !ok {
		i = b.begin(r)
		if b.open == nil {
			b.open = make(map[blockKey]int)
		}
		b.open[key] = i
	}
	b.builders[i].add(r)
	b.rows++
}

// begin begins the block of a result, and returns where its builder is.
func (b *Blocks) begin(r *probe.Result) int {
	if len(b.spare) == 0 {
		b.makeSpare()
	}
	last := len(b.spare) - 1
	m := b.spare[last]
	b.spare = b.spare[:last]
	m.Source, m.Target, m.Start, m.Stamp = r.Source, r.Target, r.Time.UnixNano(), synmeshv1.Stamp(r.Stamp)
	m.Address, m.Port = r.Remote.Addr().AsSlice(), uint32(r.Remote.Port())
	b.blocks = append(b.blocks, m)
	b.builders = append(b.builders, builder{block: m, last: m.Start, seqs: b.KeepSeq != nil && b.KeepSeq(r.Source)})
	return len(b.builders) - 1
}

func (b *Blocks) makeSpare() {
	made := make([]rowBlock, blockBatch)
	for i := range made {
		w := &made[i]
		m := &w.block
		m.TimeDeltas, m.Rtts = w.times[0:0:1], w.times[1:1:2]
		m.Latenesses, m.HostDelays = w.times[2:2:3], w.times[3:3:4]
		m.LocalPorts, m.SynAckIndexes = w.numbers[0:0:1], w.numbers[1:1:2]
		m.Outcomes, m.SynAcks = w.outcomes[:0], w.synAcks[:0]
		b.spare = append(b.spare, m)
	}
}

// Take returns the blocks and starts anew.
func (b *Blocks) Take() []*synmeshv1.ResultBlock {
	blocks := b.blocks
	b.blocks, b.rows = make([]*synmeshv1.ResultBlock, 0, min(len(blocks), maxSpare)), 0
	clear(b.open)
	clear(b.builders)
	b.builders = b.builders[:0]
	if len(blocks) > maxSpare { // what has grown does not shrink
		b.open, b.builders = nil, nil
	}
	return blocks
}

// GiveBack takes blocks that Take has returned, and that nobody uses any more, for
// those to come.
func (b *Blocks) GiveBack(blocks []*synmeshv1.ResultBlock) {
	for _, m := range blocks {
		if len(b.spare) == maxSpare {
			return
		}
		if cap(m.Outcomes) > maxKept {
			continue
		}
		m.TimeDeltas, m.Outcomes, m.Rtts, m.LocalPorts = m.TimeDeltas[:0], m.Outcomes[:0], m.Rtts[:0], m.LocalPorts[:0]
		m.Latenesses, m.HostDelays, m.SynAckIndexes = m.Latenesses[:0], m.HostDelays[:0], m.SynAckIndexes[:0]
		m.Attempts, m.Drops, m.SynAckSeqs, m.SynSeqs, m.Notes = nil, nil, nil, nil, nil
		clear(m.SynAcks)
		m.SynAcks = m.SynAcks[:0]
		b.spare = append(b.spare, m)
	}
}

func (w *builder) add(r *probe.Result) {
	m, row := w.block, len(w.block.Outcomes)
	at := r.Time.UnixNano()
	m.TimeDeltas = append(m.TimeDeltas, at-w.last)
	w.last = at
	m.Outcomes = append(m.Outcomes, synmeshv1.Outcome(r.Outcome))
	m.Rtts = append(m.Rtts, int64(r.RTT))
	m.LocalPorts = append(m.LocalPorts, uint32(r.LocalPort))
	m.Latenesses = append(m.Latenesses, int64(r.Lateness))
	m.HostDelays = append(m.HostDelays, int64(r.HostDelay))
	m.Attempts = appendSparse(m.Attempts, row, uint32(r.Attempts), 1)
	m.Drops = appendSparse(m.Drops, row, uint32(r.Drops), 0)
	var index, seq uint32
	if r.SynAck != nil {
		index, seq = w.synAck(*r.SynAck), r.SynAck.Seq
	}
	m.SynAckIndexes = append(m.SynAckIndexes, index)
	if w.seqs {
		m.SynAckSeqs = append(m.SynAckSeqs, seq)
		m.SynSeqs = append(m.SynSeqs, r.SYN)
	}
	if r.ICMP != nil || r.Err != "" || r.Retry != nil || r.Close != nil {
		m.Notes = append(m.Notes, &synmeshv1.ResultNote{Row: uint32(row), Icmp: fromICMP(r.ICMP), Error: r.Err,
			Retry: fromRetry(r.Retry), Close: fromClose(r.Close)})
	}
}

// synAck returns one more than the place of what a SYN-ACK said.
func (w *builder) synAck(s probe.SynAck) uint32 {
	s.Seq = 0
	if len(w.block.SynAcks) == 0 {
		w.first = s
		w.block.SynAcks = append(w.block.SynAcks, fromSynAck(&s))
		return 1
	}
	if s == w.first {
		return 1
	}
	if index, ok := w.others[s]; ok {
		return index
	}
	if w.others == nil {
		w.others = make(map[probe.SynAck]uint32)
	}
	w.block.SynAcks = append(w.block.SynAcks, fromSynAck(&s))
	index := uint32(len(w.block.SynAcks))
	w.others[s] = index
	return index
}

// appendSparse appends to a column that is empty as long as all is the usual value.
func appendSparse(column []uint32, row int, v, usual uint32) []uint32 {
	if len(column) == 0 {
		if v == usual {
			return column
		}
		for range row {
			column = append(column, usual)
		}
	}
	return append(column, v)
}

// CheckReport says what is wrong with a report's blocks, or returns nil. Rows
// may be called only for a report that passed.
func CheckReport(m *synmeshv1.Report) error {
	for i, b := range m.GetBlocks() {
		if err := checkBlock(b); err != nil {
			return fmt.Errorf("blocks[%d]: %w", i, err)
		}
	}
	return nil
}

func checkBlock(b *synmeshv1.ResultBlock) error {
	rows := len(b.GetOutcomes())
	columns := []struct {
		name     string
		len      int
		optional bool
	}{
		{"time_deltas", len(b.GetTimeDeltas()), false},
		{"rtts", len(b.GetRtts()), false},
		{"local_ports", len(b.GetLocalPorts()), false},
		{"attempts", len(b.GetAttempts()), true},
		{"latenesses", len(b.GetLatenesses()), false},
		{"host_delays", len(b.GetHostDelays()), false},
		{"drops", len(b.GetDrops()), true},
		{"syn_ack_indexes", len(b.GetSynAckIndexes()), false},
		{"syn_ack_seqs", len(b.GetSynAckSeqs()), true},
		{"syn_seqs", len(b.GetSynSeqs()), true},
	}
	for _, c := range columns {
		if c.len != rows && !(c.optional && c.len == 0) {
			return fmt.Errorf("%s has %d rows and outcomes has %d; all columns are equally long", c.name, c.len, rows)
		}
	}
	if n := len(b.GetAddress()); n != 0 && n != 4 && n != 16 {
		return fmt.Errorf("address has %d bytes; it has 4 or 16, or none", n)
	}
	if err := checkBits("port", 16, b.GetPort()); err != nil {
		return err
	}
	if err := checkStamp(b.GetStamp()); err != nil {
		return err
	}
	for row, o := range b.GetOutcomes() {
		if err := checkOutcome(o); err != nil {
			return fmt.Errorf("outcomes[%d]: %w", row, err)
		}
		if err := checkBits("local_ports", 16, b.GetLocalPorts()[row]); err != nil {
			return err
		}
		if i := b.GetSynAckIndexes()[row]; int(i) > len(b.GetSynAcks()) {
			return fmt.Errorf("syn_ack_indexes[%d] is %d and there are %d", row, i, len(b.GetSynAcks()))
		}
	}
	for i, m := range b.GetSynAcks() {
		if err := checkSynAck(m); err != nil {
			return fmt.Errorf("syn_acks[%d].%w", i, err)
		}
	}
	last := -1
	for i, n := range b.GetNotes() {
		row := int(n.GetRow())
		if row >= rows {
			return fmt.Errorf("notes[%d] is about row %d of %d", i, row, rows)
		}
		if row <= last { // Rows looks at each once
			return fmt.Errorf("notes[%d] is about row %d, after row %d; rows rise", i, row, last)
		}
		last = row
		if err := checkNote(n); err != nil {
			return fmt.Errorf("notes[%d]: %w", i, err)
		}
	}
	return nil
}

func checkNote(n *synmeshv1.ResultNote) error {
	if _, err := toICMP(n.GetIcmp()); err != nil {
		return err
	}
	if err := checkRetry(n.GetRetry()); err != nil {
		return err
	}
	return checkClose(n.GetClose())
}

// Rows returns the results of a report that CheckReport has passed, as the
// agent's, one block after the other. Each, with what it points to, is valid until the next.
func Rows(agent string, m *synmeshv1.Report) iter.Seq[*probe.Result] {
	return func(yield func(*probe.Result) bool) {
		for _, b := range m.GetBlocks() {
			if !blockRows(agent, b, yield) {
				return
			}
		}
	}
}

func blockRows(agent string, b *synmeshv1.ResultBlock, yield func(*probe.Result) bool) bool {
	var remote netip.AddrPort
	if addr, ok := netip.AddrFromSlice(b.GetAddress()); ok {
		remote = netip.AddrPortFrom(addr, uint16(b.GetPort()))
	}
	at, notes := b.GetStart(), b.GetNotes()
	var r probe.Result
	var synAck probe.SynAck
	for row, outcome := range b.GetOutcomes() {
		at += b.GetTimeDeltas()[row]
		r = probe.Result{
			Time: time.Unix(0, at), Agent: agent, Source: b.GetSource(), Target: b.GetTarget(), Remote: remote,
			LocalPort: uint16(b.GetLocalPorts()[row]), Outcome: probe.Outcome(outcome),
			Attempts: 1, Stamp: probe.Stamp(b.GetStamp()),
			Lateness: time.Duration(b.GetLatenesses()[row]), HostDelay: time.Duration(b.GetHostDelays()[row]),
		}
		if len(b.GetAttempts()) > 0 {
			r.Attempts = int(b.GetAttempts()[row])
		}
		if len(b.GetDrops()) > 0 {
			r.Drops = int(b.GetDrops()[row])
		}
		if len(b.GetSynSeqs()) > 0 {
			r.SYN = b.GetSynSeqs()[row]
		}
		if i := b.GetSynAckIndexes()[row]; i > 0 {
			synAck = toSynAck(b.GetSynAcks()[i-1])
			if len(b.GetSynAckSeqs()) > 0 {
				synAck.Seq = b.GetSynAckSeqs()[row]
			}
			r.SynAck = &synAck
		}
		if len(notes) > 0 && int(notes[0].GetRow()) == row {
			r.ICMP, _ = toICMP(notes[0].GetIcmp()) // CheckReport has looked at it
			r.Err = notes[0].GetError()
			r.Retry, r.Close = toRetry(notes[0].GetRetry()), toClose(notes[0].GetClose())
			notes = notes[1:]
		}
		if r.Timed() {
			r.RTT = time.Duration(b.GetRtts()[row])
		}
		if !yield(&r) {
			return false
		}
	}
	return true
}
