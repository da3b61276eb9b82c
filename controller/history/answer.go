package history

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"math"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/synmesh/synmesh/controller/history/block"
)

// answer reads all there is, several files at a time.
func (s *Store) answer(ctx context.Context, p *queryPlan) ([]Answer, error) {
	jobs, err := s.jobs(ctx, p)
	if err != nil {
		return nil, err
	}
	queue := make(chan job, len(jobs))
	for _, j := range jobs {
		queue <- j
	}
	close(queue)
	workers := runtime.GOMAXPROCS(0)
	if s.queue.length() > 0 {
		workers = 1 // the intake goes first
	}
	parts, made := make([]*tally, min(workers, max(len(jobs), 1))), new(atomic.Int64)
	group, ctx := errgroup.WithContext(ctx)
	for i := range parts {
		parts[i] = newTally(s, p, made)
		group.Go(func() error {
			defer parts[i].pace.end()
			for do := range queue {
				if err := errors.Join(ctx.Err(), do(ctx, parts[i]), parts[i].check()); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	for _, o := range parts[1:] {
		parts[0].merge(o)
	}
	return parts[0].answers(), nil
}

// maxRanges is how many parts of the keys are worked on one after the other, so that what is summed
// up meanwhile stays in the processor's caches, and no two goroutines sum up the same.
const maxRanges = 16

// job is a part of the answer.
type job func(context.Context, *tally) error

// jobs returns what is to be read, as the files are now.
func (s *Store) jobs(ctx context.Context, p *queryPlan) (list []job, err error) {
	files, archive, err := s.answering(p)
	if err != nil {
		return nil, err
	}
	var tails []*tailSums
	for i, f := range files {
		var sums *tailSums
		if p.finest != raw {
			if sums, err = s.readOn(ctx, f, i < len(files)-1); err != nil {
				return nil, err
			}
		}
		if sums != nil {
			tails = append(tails, sums)
		} else {
			list = append(list, func(ctx context.Context, t *tally) error { return s.eachResult(ctx, f, t) })
		}
	}
	ranges, err := s.ranges(p, archive)
	for _, in := range ranges {
		list = append(list, func(ctx context.Context, t *tally) error { return s.sumRange(ctx, tails, archive, in, t) })
	}
	return list, err
}

// sumRange adds up what there is of the series whose keys are in a range.
func (s *Store) sumRange(ctx context.Context, tails []*tailSums, archive []part, in keys, t *tally) error {
	if err := t.pace.giveWay(ctx); err != nil { // and not with the sums held, which others add to
		return err
	}
	for _, sums := range tails {
		if err := s.sumTail(sums, in, t); err != nil {
			return err
		}
	}
	for _, part := range archive {
		sum := s.sumSlots
		if part.tier == raw {
			sum = s.sumBlocks
		}
		if err := sum(ctx, part, in, t); err != nil {
			return err
		}
	}
	return nil
}

// part is what of a file answers.
type part struct {
	*archived
	times
}

// answering returns the files that are to be read.
func (s *Store) answering(p *queryPlan) (files []*file, archive []part, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, nil, ErrClosed
	}
	for _, seg := range p.segments {
		for _, a := range s.archive {
			if a.tier == seg.tier && a.span.overlaps(seg.times) {
				archive = append(archive, part{a, seg.times})
			}
		}
	}
	return slices.Clone(s.files), archive, nil
}

// keys are those from one (inclusive) to another (exclusive); nil is open.
type keys struct{ from, to []byte }

// ranges parts the keys of the series, by those of the file that has the most of them.
func (s *Store) ranges(p *queryPlan, archive []part) (list []keys, err error) {
	var most [][]byte
	if len(p.sources.prefixes()[0]) == 0 {
		for _, a := range archive {
			err := a.view(func(t *tree) error {
				root, err := t.bucket(seriesBucket)
				if err == nil && !root.leaf && root.count > len(most) {
					most = make([][]byte, root.count)
					for i := range most {
						most[i] = bytes.Clone(root.key(i))
					}
				}
				return err
			})
			if err != nil && !errors.Is(err, errDamaged) { // which is noted when it is read
				return nil, err
			}
		}
	}
	var from []byte
	for i := 1; i < maxRanges; i++ {
		at := i * len(most) / maxRanges
		if at == 0 || bytes.Compare(most[at], from) <= 0 {
			continue
		}
		list = append(list, keys{from, most[at]})
		from = most[at]
	}
	return append(list, keys{from: from}), nil
}

// wantedRecords calls fn with the records of the series wanted whose keys are in a range.
func (s *Store) wantedRecords(ctx context.Context, a *archived, in keys, t *tally, tails int, fn func(m *member, key, value []byte) error) error {
	var last []byte
	var m *member
	var stop error
	var next []byte // where to go on, if what comes is of an agent that is not wanted
	record := func(k, v []byte) bool {
		if in.to != nil && bytes.Compare(k, in.to) >= 0 {
			return false
		}
		n := len(k) - tails*tailSize
		if n < 1 {
			return true
		}
		if !bytes.Equal(k[:n], last) {
			if t.agents != nil && !t.wantsAgent(k[:n]) {
				next = successor(k[:1+int(k[0])])
				return false
			}
			last, m = append(last[:0], k[:n]...), t.member(k[:n])
			stop = t.mayGoOn(ctx)
		}
		if m != nil && stop == nil {
			s.noteMalformed(a, k, fn(m, k, v))
		}
		return stop == nil
	}
	return a.view(func(tr *tree) error {
		for _, prefix := range t.plan.sources.prefixes() {
			for from := in.from; ; from = next {
				next = nil
				if err := cmp.Or(s.each(a, tr, seriesBucket, prefix, from, record), stop); err != nil {
					return err
				}
				if next == nil {
					break
				}
			}
		}
		return nil
	})
}

// successor returns the first key behind all that begin with the prefix; nil if there is none.
func successor(prefix []byte) []byte {
	for n := len(prefix); n > 0; n-- {
		if prefix[n-1] < math.MaxUint8 {
			next := bytes.Clone(prefix[:n])
			next[n-1]++
			return next
		}
	}
	return nil
}

// sumSlots adds up the summaries of a rollup.
func (s *Store) sumSlots(ctx context.Context, a part, in keys, t *tally) error {
	length := int64(a.tier.slot())
	from, to := a.from/length, a.to/length
	return s.wantedRecords(ctx, a.archived, in, t, 2, func(m *member, key, value []byte) error {
		if _, group, _ := parseSlotKey(key); (group+1)*groupSlots[a.tier] <= from || group*groupSlots[a.tier] >= to {
			return nil
		}
		return t.sumRun(t.steps(m, 0), value, a.times, length)
	})
}

// sumBlocks adds up results of the archive.
func (s *Store) sumBlocks(ctx context.Context, a part, in keys, t *tally) error {
	var b block.Block
	return s.wantedRecords(ctx, a.archived, in, t, 1, func(m *member, _, value []byte) error {
		if err := block.Decode(value, &b); err != nil {
			return err
		}
		for row, us := range b.Column[block.Time] {
			ns := us * int64(time.Microsecond)
			port := uint16(b.Column[block.LocalPort][row])
			if !a.contains(ns) || !t.wantsPort(port) {
				continue
			}
			addRow(t.at(t.steps(m, port), t.plan.stepOf(ns)), &b, row, noteOf(&b, row))
		}
		return nil
	})
}
