package history

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/synmesh/synmesh/controller/history/block"
	"github.com/synmesh/synmesh/controller/history/rollup"
	"github.com/synmesh/synmesh/probe"
)

// tally gathers what answers a query, or a part of that.
type tally struct {
	plan   *queryPlan
	found  map[string][]*rollup.Summary // by series, and flow if these are asked for
	wanted map[string]bool              // whether series are, as far as it has been asked
}

func newTally(p *queryPlan) *tally {
	return &tally{plan: p, found: make(map[string][]*rollup.Summary), wanted: make(map[string]bool)}
}

// wants tells whether a series, the key being without its tail, is asked for.
func (t *tally) wants(key []byte) bool {
	want, known := t.wanted[string(key)]
	if !known {
		id, _, ok := parseKey(withTail(key, 0))
		want = ok && t.plan.sources.has(id)
		t.wanted[string(key)] = want
	}
	return want
}

// steps returns the summaries of a key.
func (t *tally) steps(key []byte) []*rollup.Summary {
	list := t.found[string(key)]
	if list == nil {
		list = make([]*rollup.Summary, t.plan.steps)
		t.found[string(key)] = list
	}
	return list
}

// at returns the summary of a step, of none if need be.
func at(list []*rollup.Summary, step int) *rollup.Summary {
	if list[step] == nil {
		list[step] = &rollup.Summary{}
	}
	return list[step]
}

// merge adds what another has gathered.
func (t *tally) merge(o *tally) {
	for key, list := range o.found {
		into := t.found[key]
		if into == nil {
			t.found[key] = list
			continue
		}
		for i, s := range list {
			switch {
			case s == nil:
			case into[i] == nil:
				into[i] = s
			default:
				into[i].Merge(s)
			}
		}
	}
}

func (t *tally) answers() []Answer {
	list := make([]Answer, 0, len(t.found))
	for key, steps := range t.found {
		if !slices.ContainsFunc(steps, func(s *rollup.Summary) bool { return s != nil }) {
			continue
		}
		k, port := []byte(key), uint16(0)
		if t.plan.Flows {
			n := len(k) - 2
			k, port = k[:n], binary.BigEndian.Uint16(k[n:])
		}
		id, _, _ := parseKey(withTail(k, 0))
		list = append(list, Answer{id, port, steps})
	}
	return list
}

// answer reads all there is, several files at a time.
func (s *Store) answer(ctx context.Context, p *queryPlan) ([]Answer, error) {
	jobs, err := s.jobs(p)
	if err != nil {
		return nil, err
	}
	queue := make(chan func(*tally) error, len(jobs))
	for _, job := range jobs {
		queue <- job
	}
	close(queue)
	parts := make([]*tally, min(runtime.GOMAXPROCS(0), max(len(jobs), 1)))
	group, ctx := errgroup.WithContext(ctx)
	for i := range parts {
		parts[i] = newTally(p)
		group.Go(func() error {
			for job := range queue {
				if err := errors.Join(ctx.Err(), job(parts[i])); err != nil {
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

// jobs returns what is to be read, as the files are now.
func (s *Store) jobs(p *queryPlan) (list []func(*tally) error, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, ErrClosed
	}
	for _, f := range s.files {
		list = append(list, func(t *tally) error { return s.sumIntake(f, t) })
	}
	for _, seg := range p.segments {
		for _, a := range s.archive {
			switch {
			case a.tier != seg.tier || !a.span.overlaps(seg.times):
			case a.tier == raw:
				list = append(list, func(t *tally) error { return s.sumBlocks(a, seg, t) })
			default:
				list = append(list, func(t *tally) error { return s.sumSlots(a, seg, t) })
			}
		}
	}
	return list, nil
}

// wantedRecords calls fn with the records of the series wanted.
func (s *Store) wantedRecords(a *archived, t *tally, tails int, fn func(key, series, value []byte) error) error {
	var last []byte
	wanted := false
	return a.view(func(tr *tree) error {
		for _, prefix := range t.plan.sources.prefixes() {
			err := s.each(a, tr, seriesBucket, prefix, nil, func(k, v []byte) bool {
				n := len(k) - tails*tailSize
				if n < 1 {
					return true
				}
				if !bytes.Equal(k[:n], last) {
					last, wanted = append(last[:0], k[:n]...), t.wants(k[:n])
				}
				if wanted {
					s.noteMalformed(a, k, fn(k, last, v))
				}
				return true
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// sumSlots adds up the summaries of a rollup.
func (s *Store) sumSlots(a *archived, seg segment, t *tally) error {
	length := int64(a.tier.slot())
	from, to := seg.from/length, seg.to/length
	together := func(first, last int64) bool {
		return t.plan.stepOf(first*length) == t.plan.stepOf(last*length)
	}
	var last []byte
	var list []*rollup.Summary
	return s.wantedRecords(a, t, 2, func(key, series, value []byte) error {
		if _, group, _ := parseSlotKey(key); (group+1)*groupSlots[a.tier] <= from || group*groupSlots[a.tier] >= to {
			return nil
		}
		if !bytes.Equal(series, last) {
			last, list = append(last[:0], series...), t.steps(series)
		}
		return rollup.Decode(value, from, to, together, func(slot *rollup.Slot) bool {
			at(list, t.plan.stepOf(slot.At*length)).Merge(&slot.Summary)
			return true
		})
	})
}

// sumBlocks adds up results of the archive.
func (s *Store) sumBlocks(a *archived, seg segment, t *tally) error {
	var b block.Block
	return s.wantedRecords(a, t, 1, func(_, series, value []byte) error {
		if err := block.Decode(value, &b); err != nil {
			return err
		}
		key := bytes.Clone(series)
		for row, us := range b.Column[block.Time] {
			ns := us * int64(time.Microsecond)
			if !seg.contains(ns) {
				continue
			}
			if t.plan.Flows {
				key = binary.BigEndian.AppendUint16(key[:len(series)], uint16(b.Column[block.LocalPort][row]))
			}
			addRow(at(t.steps(key), t.plan.stepOf(ns)), &b, row, noteOf(&b, row))
		}
		return nil
	})
}

// add adds a result.
func (t *tally) add(r *probe.Result) {
	at1 := r.Time.UnixMicro() * int64(time.Microsecond) // as the archive has it
	if !t.plan.span.contains(at1) {
		return
	}
	key := seriesKey(r.Agent, r.Source, r.Target)
	if !t.wants(key) {
		return
	}
	if t.plan.Flows {
		key = binary.BigEndian.AppendUint16(key, r.LocalPort)
	}
	at(t.steps(key), t.plan.stepOf(at1)).Add(r.Outcome, r.RTT, r.Timed())
}
