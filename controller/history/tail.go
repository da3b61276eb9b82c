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
	mu      sync.Mutex
	next    uint64    // the stored time to go on with
	sums    *tailSums // nil before the first query
	large   bool      // too much: every query reads the file
	settled bool      // all has been read, and is packed
}

// tailSums are the minutes of all series. Who has got them may read them while others go on adding.
type tailSums struct {
	mu    sync.RWMutex
	list  []*tailSeries            // by key
	fresh []*tailSeries            // that are not in the list yet
	byKey map[string]*tailSeries   // all
	order map[string][]*tailSeries // of the blocks of an agent's last report: the next has likely the same
	size  int                      // bytes, about
	buf   []byte
}

// tailSeries has the minutes of a series: the one that results came for last, ready to be added to, and the
// others packed, for there may be many series.
type tailSeries struct {
	key            []byte
	source, target string
	slot           int64 // of the minute that is open
	open           rollup.Summary
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
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.large {
		return nil, nil
	}
	if t.sums == nil {
		t.sums = &tailSums{byKey: make(map[string]*tailSeries), order: make(map[string][]*tailSeries)}
	}
	err := s.eachReport(ctx, f, t.next, end, func(at uint64, agent string, r *synmeshv1.Report) {
		t.next = at + 1
		if r != nil && !t.large {
			t.large = t.sums.add(agent, r) > maxTail
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
func (t *tailSums) add(agent string, r *synmeshv1.Report) (size int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	order := t.order[agent]
	for i, b := range r.GetBlocks() {
		if i == len(order) {
			order = append(order, nil)
			t.size += 8
		}
		s := order[i]
		if s == nil || s.target != b.GetTarget() || s.source != b.GetSource() {
			s = t.find(agent, b)
			order[i] = s
		}
		t.addBlock(s, agent, b)
	}
	t.order[agent] = order
	return t.size
}

// find returns the series of a block.
func (t *tailSums) find(agent string, b *synmeshv1.ResultBlock) *tailSeries {
	key := seriesKey(agent, b.GetSource(), b.GetTarget())
	s := t.byKey[string(key)]
	if s == nil {
		s = &tailSeries{key: key, source: b.GetSource(), target: b.GetTarget(), most: minRuns}
		t.byKey[string(key)] = s
		t.fresh = append(t.fresh, s)
		t.size += tailSeriesBytes
	}
	return s
}

func (t *tailSums) addBlock(s *tailSeries, agent string, b *synmeshv1.ResultBlock) {
	if len(b.GetNotes()) > 0 { // which may say that there is no round trip
		for r := range convert.Rows(agent, &synmeshv1.Report{Blocks: []*synmeshv1.ResultBlock{b}}) {
			t.minute(s, r.Time.UnixNano()).Add(r.Outcome, r.RTT, r.Timed())
		}
		return
	}
	at, deltas, rtts := b.GetStart(), b.GetTimeDeltas(), b.GetRtts()
	for row, o := range b.GetOutcomes() {
		at += deltas[row]
		outcome := probe.Outcome(o)
		t.minute(s, at).Add(outcome, time.Duration(rtts[row]), outcome.Answered())
	}
}

// minute returns the summary of the minute that a time is in.
func (t *tailSums) minute(s *tailSeries, at int64) *rollup.Summary {
	if slot := floorDiv(at, int64(time.Minute)); slot != s.slot {
		before := cap(s.packed)
		t.pack(s)
		t.size += cap(s.packed) - before
		s.slot = slot
	}
	return &s.open
}

// pack puts the open minute to the others.
func (t *tailSums) pack(s *tailSeries) {
	if s.open.Sent() == 0 {
		return
	}
	t.packRun(s, []rollup.Slot{{At: s.slot, Summary: s.open}})
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
		s.open = rollup.Summary{}
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
	if ns := one.slot * length; one.open.Sent() > 0 && t.plan.span.contains(ns) {
		t.at(list, t.plan.stepOf(ns)).Merge(&one.open)
	}
	for run := range one.eachRun {
		if err := t.sumRun(list, run, t.plan.span, length); err != nil {
			return err
		}
	}
	return nil
}

// page buffers and decoders that queries have used.
var reportReaders = sync.Pool{New: func() any { return new(reportReader) }}

type reportReader struct {
	reader
	decoder
}

// eachReport calls fn with the reports of a file of the intake that are stored from some time (inclusive) to
// another (exclusive). A report that the archive would not sum up is nil; any other is valid until the next.
func (s *Store) eachReport(ctx context.Context, f *file, from, end uint64, fn func(at uint64, agent string, r *synmeshv1.Report)) error {
	r := reportReaders.Get().(*reportReader)
	defer reportReaders.Put(r)
	r.next, r.end = from, end
	p := pace{store: s}
	for more := true; more; {
		err := p.giveWay(ctx)
		if err != nil {
			return err
		}
		if more, err = s.readPage(&r.reader, f); err != nil {
			return err
		}
		for _, row := range r.page.rows {
			report, ok := r.takeApart(r.page.buf[row.start:row.end])
			if !ok {
				report = nil
			}
			fn(row.at, row.agent, report)
		}
	}
	return nil
}

// eachResult adds every result of a file of the intake.
func (s *Store) eachResult(ctx context.Context, f *file, t *tally) error {
	agents := t.plan.sources.agents
	return s.eachReport(ctx, f, 0, math.MaxUint64, func(_ uint64, agent string, r *synmeshv1.Report) {
		if agents != nil && !agents[agent] {
			return
		}
		for res := range convert.Rows(agent, r) {
			t.add(res)
		}
	})
}
