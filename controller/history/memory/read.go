package memory

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"iter"
	"math"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/synmesh/synmesh/controller/history"
	"github.com/synmesh/synmesh/controller/history/rollup"
	"github.com/synmesh/synmesh/internal/convert"
	"github.com/synmesh/synmesh/probe"
	synmeshv1 "github.com/synmesh/synmesh/proto/synmesh/v1"
)

// Scan is history.Store's. It gives what was stored when it begins.
func (h *History) Scan(ctx context.Context, from, to time.Time, after history.Cursor) iter.Seq2[history.Entry, error] {
	return h.ScanSeries(ctx, history.Filter{}, from, to, after)
}

// ScanSeries is history.Store's.
func (h *History) ScanSeries(ctx context.Context, want history.Filter, from, to time.Time, after history.Cursor) iter.Seq2[history.Entry, error] {
	return func(yield func(history.Entry, error) bool) {
		if err := h.scan(ctx, want, from, to, after, yield); err != nil {
			yield(history.Entry{}, fmt.Errorf("history: scan: %w", err))
		}
	}
}

// ScanOutcomes is history.Store's, and costs what ScanSeries does.
func (h *History) ScanOutcomes(ctx context.Context, after history.Cursor) iter.Seq2[history.Outcomes, error] {
	return func(yield func(history.Outcomes, error) bool) {
		for e, err := range h.ScanSeries(ctx, history.Filter{}, time.Time{}, time.Time{}, after) {
			o := history.Outcomes{Cursor: e.Cursor, Agent: e.Agent}
			o.Add(e.Report)
			if !yield(o, err) {
				return
			}
		}
	}
}

func (h *History) scan(ctx context.Context, want history.Filter, from, to time.Time, after history.Cursor, yield func(history.Entry, error) bool) error {
	first, end := nanoseconds(from), uint64(math.MaxUint64)
	if !to.IsZero() {
		end = nanoseconds(to)
	}
	switch {
	case after == nil:
	case len(after) != cursorSize:
		return fmt.Errorf("%w cursor %x", history.ErrInvalid, []byte(after))
	default:
		if last := binary.BigEndian.Uint64(after); last >= first {
			first = max(last, last+1)
		}
	}
	entries, err := h.now()
	if err != nil {
		return err
	}
	begin, _ := slices.BinarySearchFunc(entries, first, func(e entry, at uint64) int { return cmp.Compare(e.at, at) })
	for _, e := range entries[begin:] {
		if err := ctx.Err(); err != nil {
			return err
		}
		if e.at >= end {
			return nil
		}
		if !want.Wants(e.agent) {
			continue
		}
		if !yield(history.Entry{Cursor: cursorOf(e.at), Stored: time.Unix(0, int64(e.at)).UTC(), Agent: e.agent, Report: wanted(e.agent, e.report, want)}, nil) {
			return nil
		}
	}
	return nil
}

// wanted returns a copy of a report with the blocks of the series wanted.
func wanted(agent string, r *synmeshv1.Report, want history.Filter) *synmeshv1.Report {
	r = proto.CloneOf(r)
	r.Blocks = slices.DeleteFunc(r.GetBlocks(), func(b *synmeshv1.ResultBlock) bool {
		return !want.WantsSeries(history.Series{Source: b.GetSource(), Agent: agent, Target: b.GetTarget()})
	})
	return r
}

// inOrder sorts blocks as Scan gives them.
func inOrder(blocks []*synmeshv1.ResultBlock) []*synmeshv1.ResultBlock {
	slices.SortStableFunc(blocks, func(a, b *synmeshv1.ResultBlock) int {
		return cmp.Or(cmp.Compare(len(a.GetSource()), len(b.GetSource())), cmp.Compare(a.GetSource(), b.GetSource()), cmp.Compare(a.GetTarget(), b.GetTarget()))
	})
	return blocks
}

const (
	// maxSteps bounds what a query may ask for, and maxSummaries what it may get.
	maxSteps, maxSummaries = 100_000, 250_000
	// maxTime bounds the times of results, nanoseconds from 1970.
	maxTime = 1 << 62
)

// Query is history.Store's. It reads every result that there is.
func (h *History) Query(ctx context.Context, q history.Query) ([]history.Answer, error) {
	a, err := newAnswers(q)
	if err != nil {
		return nil, fmt.Errorf("history: %w query: %w", history.ErrInvalid, err)
	}
	entries, err := h.now()
	if err != nil {
		return nil, fmt.Errorf("history: query: %w", err)
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("history: query: %w", err)
		}
		if len(q.Agents) > 0 && !slices.Contains(q.Agents, e.agent) || convert.CheckReport(e.report) != nil {
			continue
		}
		for r := range convert.Rows(e.agent, e.report) {
			a.add(r)
		}
		if a.made > maxSummaries {
			return nil, fmt.Errorf("history: query: %w: more than %d series, or flows, and steps; ask for longer steps, a shorter time or fewer series", history.ErrTooLarge, maxSummaries)
		}
	}
	list := make([]history.Answer, 0, len(a.found))
	for _, answer := range a.found {
		list = append(list, *answer)
	}
	return list, nil
}

// answers gathers what answers a query.
type answers struct {
	history.Query
	from, to, step int64
	steps, made    int
	found          map[flow]*history.Answer
}

type flow struct {
	history.Series
	port uint16 // 0 unless flows are asked for
}

func newAnswers(q history.Query) (*answers, error) {
	if !q.From.Before(q.To) {
		return nil, fmt.Errorf("from %s to %s: it ends before it begins", q.From.UTC().Format(time.RFC3339), q.To.UTC().Format(time.RFC3339))
	}
	if q.Step < 0 {
		return nil, fmt.Errorf("a step of %v: it cannot be negative", q.Step)
	}
	a := &answers{Query: q, from: int64(nanoseconds(q.From)), to: int64(nanoseconds(q.To)), step: int64(q.Step), steps: 1, found: make(map[flow]*history.Answer)}
	if !q.Flows && q.LocalPort == 0 && q.Step%time.Minute == 0 {
		minute := int64(time.Minute)
		a.from -= a.from % minute
		a.to = min(a.to, maxTime) + minute - 1
		a.to -= a.to % minute
	}
	if a.step == 0 {
		a.step = a.to - a.from
		return a, nil
	}
	n := (a.to - a.from + a.step - 1) / a.step
	if n > maxSteps {
		return nil, fmt.Errorf("%d steps of %v; ask for %d at most", n, q.Step, maxSteps)
	}
	a.steps = int(n)
	return a, nil
}

func (a *answers) add(r *probe.Result) {
	at := r.Time.UnixMicro() * int64(time.Microsecond) // as a Store has it
	if at < a.from || at >= a.to || a.Source != "" && a.Source != r.Source || len(a.Targets) > 0 && !slices.Contains(a.Targets, r.Target) {
		return
	}
	key, ok := flow{Series: history.Series{Source: r.Source, Agent: r.Agent, Target: r.Target}}, a.LocalPort == 0 || a.LocalPort == r.LocalPort
	ok = ok && (a.WantsAgent == nil || a.WantsAgent(r.Agent))
	if ok && a.Group != nil {
		key.Series, ok = a.Group(key.Series)
	}
	if !ok {
		return
	}
	if a.Flows {
		key.port = r.LocalPort
	}
	answer := a.found[key]
	if answer == nil {
		answer = &history.Answer{Series: key.Series, LocalPort: key.port, Steps: make([]*rollup.Summary, a.steps)}
		a.found[key] = answer
		a.made += a.steps / 64 // they take room, too
	}
	step := &answer.Steps[(at-a.from)/a.step]
	if *step == nil {
		*step = &rollup.Summary{}
		a.made++
	}
	(*step).Add(r.Outcome, r.RTT, r.Timed())
}
