package history

import (
	"context"
	"math"
	"sync"
	"time"

	"github.com/synmesh/synmesh/controller/history/rollup"
	"github.com/synmesh/synmesh/internal/convert"
	"github.com/synmesh/synmesh/probe"
)

// maxTail is how many summaries of a minute are kept in memory of a file of the intake;
// each takes about a kilobyte.
const maxTail = 100_000

// tail sums up the minutes of a file of the intake, as far as it has been read. A query
// reads on where the one before has stopped.
type tail struct {
	mu    sync.Mutex
	next  uint64                               // the stored time to go on with
	sums  map[string]map[int64]*rollup.Summary // by series, and minute
	count int
	large bool // too many: every query reads the file
}

// sumIntake adds up results that are not archived yet.
func (s *Store) sumIntake(ctx context.Context, f *file, t *tally) error {
	if t.plan.finest == raw {
		return s.eachResult(ctx, f, 0, t.plan.sources.agents, t.add)
	}
	f.tail.mu.Lock()
	defer f.tail.mu.Unlock()
	if err := s.readOn(ctx, f); err != nil {
		return err
	}
	if f.tail.large {
		return s.eachResult(ctx, f, 0, t.plan.sources.agents, t.add)
	}
	for key, sums := range f.tail.sums {
		if t.agents != nil && !t.wantsAgent([]byte(key)) {
			continue
		}
		m := t.member([]byte(key))
		if m == nil {
			continue
		}
		for slot, sum := range sums {
			if ns := slot * int64(time.Minute); t.plan.span.contains(ns) {
				t.at(t.steps(m, 0), t.plan.stepOf(ns)).Merge(sum)
			}
		}
	}
	return nil
}

// readOn adds to the file's tail what has been stored since.
func (s *Store) readOn(ctx context.Context, f *file) error {
	t := &f.tail
	if t.large {
		return nil
	}
	if t.sums == nil {
		t.sums = make(map[string]map[int64]*rollup.Summary)
	}
	var last uint64
	err := s.eachReport(ctx, f, t.next, nil, func(at uint64, add func(func(*probe.Result))) {
		last = at
		add(t.add)
	})
	t.next = max(t.next, last+1)
	if err != nil && ctx.Err() == nil { // some of it may be missing
		t.sums, t.count, t.next = nil, 0, 0
	}
	if err != nil {
		return err
	}
	if t.count > maxTail {
		t.sums, t.large = nil, true
	}
	return nil
}

func (t *tail) add(r *probe.Result) {
	if t.count > maxTail {
		return
	}
	key := seriesKey(r.Agent, r.Source, r.Target)
	sums := t.sums[string(key)]
	if sums == nil {
		sums = make(map[int64]*rollup.Summary)
		t.sums[string(key)] = sums
	}
	slot := floorDiv(r.Time.UnixNano(), int64(time.Minute))
	sum := sums[slot]
	if sum == nil {
		sum = &rollup.Summary{}
		sums[slot] = sum
		t.count++
	}
	sum.Add(r.Outcome, r.RTT, r.Timed())
}

// eachResult calls fn with the results of a file of the intake that the archive would sum
// up, of some agents, or all if that is nil, stored from some time on. Each is valid until the next.
func (s *Store) eachResult(ctx context.Context, f *file, from uint64, agents map[string]bool, fn func(*probe.Result)) error {
	return s.eachReport(ctx, f, from, agents, func(_ uint64, each func(func(*probe.Result))) { each(fn) })
}

func (s *Store) eachReport(ctx context.Context, f *file, from uint64, agents map[string]bool, fn func(at uint64, each func(func(*probe.Result)))) error {
	r, d := reader{next: from, end: math.MaxUint64}, decoder{}
	for more := true; more; {
		err := ctx.Err()
		if err != nil {
			return err
		}
		if more, err = s.readPage(&r, f); err != nil {
			return err
		}
		for _, row := range r.page.rows {
			fn(row.at, func(add func(*probe.Result)) {
				if agents != nil && !agents[row.agent] {
					return
				}
				report, ok := d.takeApart(r.page.buf[row.start:row.end])
				if !ok {
					return
				}
				for res := range convert.Rows(row.agent, report) {
					add(res)
				}
			})
		}
	}
	return nil
}
