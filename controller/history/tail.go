package history

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/synmesh/synmesh/controller/history/rollup"
	"github.com/synmesh/synmesh/internal/convert"
	"github.com/synmesh/synmesh/probe"
	synmeshv1 "github.com/synmesh/synmesh/proto/synmesh/v1"
)

const (
	// maxTail is about how many bytes are kept in memory of a file of the intake.
	maxTail = 64 << 20
	// tailSeriesBytes is about what a series takes of that, but for its earlier minutes.
	tailSeriesBytes = 1 << 10
	// minRuns is how many runs of a series' minutes are put together at least.
	minRuns = 16
)

// tail sums up the minutes of a file of the intake, as far as it has been read. A query
// reads on where the one before has stopped.
type tail struct {
	turn    chan struct{} // has an entry while somebody reads on
	next    uint64        // the stored time to go on with
	sums    *tailSums     // nil before the first query
	large   bool          // too much: every query reads the file
	settled bool          // all has been read, and is packed
}

func newTail() tail { return tail{turn: make(chan struct{}, 1)} }

// tailSums are the minutes of all series. Who has got them may read them while others go on adding.
type tailSums struct {
	mu    sync.RWMutex
	list  []*tailSeries            // by key
	fresh []*tailSeries            // that are not in the list yet
	byKey map[string]*tailSeries   // all
	order map[string][]*tailSeries // of the blocks of an agent's last report: the next has likely the same
	size  int                      // bytes, about
	slot  [1]rollup.Slot           // that is being packed
	buf   []byte
}

// tailSeries has the minutes of a series: the one that results came for last, ready to be added to, and the
// others packed, for there may be many series.
type tailSeries struct {
	key            []byte
	source, target string
	slot           int64 // of the minute that is open
	open           rollup.Few
	packed         []byte // runs as of rollup.Append, each behind its length (uvarint)
	runs, most     int    // how many these are, and may be before they are put together
}

// readOn adds to the file's tail what has been stored since, and returns its sums; nil if they would be too large.
// If the file is over, nothing more comes.
func (s *Store) readOn(ctx context.Context, f *file, over bool) (*tailSums, error) {
	s.mu.RLock()
	end := s.latest + 1 // and no further, however much comes meanwhile
	s.mu.RUnlock()
	t := &f.tail
	select { // that may take long while the intake goes first
	case t.turn <- struct{}{}:
		defer func() { <-t.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if t.large {
		return nil, nil
	}
	if t.sums == nil {
		t.sums = &tailSums{byKey: make(map[string]*tailSeries), order: make(map[string][]*tailSeries)}
	}
	l := lookers.Get().(*looker)
	defer lookers.Put(l)
	err := s.eachReport(ctx, f, t.next, end, func(at uint64, agent string, report []byte) {
		t.next = at + 1
		if !t.large && l.look(report) { // if it could not be taken apart, the archive would not sum it up
			t.large = t.sums.add(agent, l.blocks) > maxTail
		}
	})
	t.sums.sort()
	switch {
	case t.large:
		t.sums = nil // who has them already goes on with them
	case over && !t.settled && err == nil:
		t.sums.settle()
		t.settled = true
	}
	return t.sums, err
}

// add adds the results of a report, and returns how large the sums are then.
func (t *tailSums) add(agent string, blocks []lookedAt) (size int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	order := t.order[agent]
	for i := range blocks {
		b := &blocks[i]
		if i == len(order) {
			order = append(order, nil)
			t.size += 8
		}
		s := order[i]
		if s == nil || !b.has(s.source, s.target) {
			s = t.find(agent, b)
			order[i] = s
		}
		if b.shape != nil {
			outcome := b.outcome()
			t.addResult(s, b.time(), outcome, time.Duration(b.rtt()), outcome.Answered())
		} else {
			t.addBlock(s, agent, b.message)
		}
	}
	t.order[agent] = order
	return t.size
}

// find returns the series of a block.
func (t *tailSums) find(agent string, b *lookedAt) *tailSeries {
	source, target := b.names()
	key := seriesKey(agent, source, target)
	s := t.byKey[string(key)]
	if s == nil {
		s = &tailSeries{key: key, source: source, target: target, most: minRuns}
		t.byKey[string(key)] = s
		t.fresh = append(t.fresh, s)
		t.size += tailSeriesBytes
	}
	return s
}

func (t *tailSums) addBlock(s *tailSeries, agent string, b *synmeshv1.ResultBlock) {
	if len(b.GetNotes()) > 0 { // which may say that there is no round trip
		for r := range convert.Rows(agent, &synmeshv1.Report{Blocks: []*synmeshv1.ResultBlock{b}}) {
			t.addResult(s, r.Time.UnixNano(), r.Outcome, r.RTT, r.Timed())
		}
		return
	}
	at, deltas, rtts := b.GetStart(), b.GetTimeDeltas(), b.GetRtts()
	for row, o := range b.GetOutcomes() {
		at += deltas[row]
		outcome := probe.Outcome(o)
		t.addResult(s, at, outcome, time.Duration(rtts[row]), outcome.Answered())
	}
}

// addResult adds a result to the minute that a time is in.
func (t *tailSums) addResult(s *tailSeries, at int64, o probe.Outcome, rtt time.Duration, timed bool) {
	if slot := floorDiv(at, int64(time.Minute)); slot != s.slot || !s.open.Add(o, rtt, timed) {
		before := cap(s.packed)
		t.pack(s)
		t.size += cap(s.packed) - before
		s.slot = slot
		s.open.Add(o, rtt, timed) // there is room where nothing is
	}
}

// pack puts the open minute to the others.
func (t *tailSums) pack(s *tailSeries) {
	if s.open.Empty() {
		return
	}
	open := &t.slot[0]
	open.At = s.slot
	open.Reset()
	s.open.AddTo(&open.Summary)
	t.packRun(s, t.slot[:])
	s.open.Reset()
	if s.runs++; s.runs < s.most {
		return
	}
	all := newSums()
	for run := range s.eachRun {
		if all.add(run, math.MinInt64, math.MaxInt64) != nil {
			s.most *= 2 // whoever asks is told
			return
		}
	}
	list := all.sorted()
	s.packed, s.runs, s.most = nil, 1, max(minRuns, len(list))
	t.packRun(s, list)
}

// settle packs all minutes of a file that takes no more reports.
func (t *tailSums) settle() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.list {
		t.pack(s)
		s.open = rollup.Few{}
	}
	t.order = make(map[string][]*tailSeries)
}

func (t *tailSums) packRun(s *tailSeries, list []rollup.Slot) {
	t.buf = rollup.Append(t.buf[:0], list)
	s.packed = slices.Grow(s.packed, binary.MaxVarintLen32+len(t.buf))
	s.packed = append(binary.AppendUvarint(s.packed, uint64(len(t.buf))), t.buf...)
}

// eachRun yields the packed runs.
func (s *tailSeries) eachRun(yield func(run []byte) bool) {
	for rest := s.packed; len(rest) > 0; {
		size, n := uvarint(rest)
		end := n + int(size)
		if !yield(rest[n:end]) {
			return
		}
		rest = rest[end:]
	}
}

// sort puts new series into the list.
func (t *tailSums) sort() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.fresh) == 0 {
		return
	}
	t.list = slices.Concat(t.list, t.fresh)
	t.fresh = nil
	slices.SortFunc(t.list, func(a, b *tailSeries) int { return bytes.Compare(a.key, b.key) })
}

// sumTail adds up the minutes of a file of the intake, of the series whose keys are in a range.
func (s *Store) sumTail(sums *tailSums, in keys, t *tally) error {
	sums.mu.RLock()
	defer sums.mu.RUnlock()
	first, _ := slices.BinarySearchFunc(sums.list, in.from, func(m *tailSeries, key []byte) int { return bytes.Compare(m.key, key) })
	for _, one := range sums.list[first:] {
		if in.to != nil && bytes.Compare(one.key, in.to) >= 0 {
			break
		}
		if t.agents != nil && !t.wantsAgent(one.key) {
			continue
		}
		m := t.member(one.key)
		if m == nil {
			continue
		}
		if err := cmp.Or(t.sumMinutes(m, one), t.check()); err != nil {
			return err
		}
	}
	return nil
}

func (t *tally) sumMinutes(m *member, one *tailSeries) error {
	list, length := t.steps(m, 0), int64(time.Minute)
	if ns := one.slot * length; !one.open.Empty() && t.plan.span.contains(ns) {
		one.open.AddTo(t.at(list, t.plan.stepOf(ns)))
	}
	for run := range one.eachRun {
		if err := t.sumRun(list, run, t.plan.span, length); err != nil {
			return err
		}
	}
	return nil
}

// What queries of the intake have used.
var (
	queryReaders = sync.Pool{New: func() any { return new(reader) }}
	lookers      = sync.Pool{New: func() any { return new(looker) }}
	decoders     = sync.Pool{New: func() any { return new(decoder) }}
)

// eachReport calls fn with the reports of a file of the intake, as they came, that are stored from some time (inclusive)
// to another (exclusive). They are valid until the next.
func (s *Store) eachReport(ctx context.Context, f *file, from, end uint64, fn func(at uint64, agent string, report []byte)) error {
	r := queryReaders.Get().(*reader)
	defer queryReaders.Put(r)
	r.next, r.end = from, end
	p := pace{store: s}
	defer p.end()
	for more := true; more; {
		err := p.giveWay(ctx)
		if err != nil {
			return err
		}
		if more, err = s.readPage(r, f); err != nil {
			return err
		}
		for _, row := range r.page.rows {
			fn(row.at, row.agent, r.page.buf[row.start:row.end])
		}
	}
	return nil
}

// eachResult adds every result of a file of the intake.
func (s *Store) eachResult(ctx context.Context, f *file, t *tally) error {
	d := decoders.Get().(*decoder)
	defer decoders.Put(d)
	agents := t.plan.sources.agents
	return s.eachReport(ctx, f, 0, math.MaxUint64, func(_ uint64, agent string, report []byte) {
		if agents != nil && !agents[agent] {
			return
		}
		r, ok := d.takeApart(report)
		if !ok {
			return // the archive would not sum it up
		}
		for res := range convert.Rows(agent, r) {
			t.add(res)
		}
	})
}
