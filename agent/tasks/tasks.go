// Package tasks carries out what the controller has asked for: the entries of
// a timetable, until another takes its place or it expires, and runs, until
// they are done or cancelled.
package tasks

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/synmesh/synmesh/agent/policy"
	"github.com/synmesh/synmesh/internal/convert"
	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// Prober carries out one Spec, handing over every result; see engine.Engine.Do.
type Prober interface {
	Do(ctx context.Context, s probe.Spec, emit func(*probe.Result)) error
}

// Sink takes results and the ends of runs; see spool.Spool.
type Sink interface {
	Add(*probe.Result)
	EndRun(*synmeshv1.RunEnd)
}

// What a heartbeat tells of refusals, at most.
const (
	maxRefusals = 100
	maxReason   = 500 // bytes
)

// maxRuns is how many runs an agent does at once.
const maxRuns = 64

// Tasks is safe for concurrent use.
type Tasks struct {
	prober Prober
	sink   Sink
	log    *slog.Logger

	ctx  context.Context // of every task
	stop context.CancelFunc

	mu      sync.Mutex
	version uint64
	expiry  time.Duration
	lapse   *time.Timer // stops the timetable; nil while there is contact
	entries map[string]*task
	runs    map[string]*task
	refused map[string]string // source of an entry that is not done -> why
	wg      sync.WaitGroup
}

type task struct {
	entry  *synmeshv1.TimetableEntry // nil for a run
	cancel context.CancelFunc
	done   chan struct{} // closed when it has stopped
}

// New returns Tasks that have nothing to do yet. Run must be called after it.
func New(p Prober, s Sink, log *slog.Logger) *Tasks {
	t := &Tasks{prober: p, sink: s, log: log, entries: make(map[string]*task), runs: make(map[string]*task), refused: make(map[string]string)}
	t.ctx, t.stop = context.WithCancel(context.Background())
	return t
}

// Run waits until ctx ends, stops all tasks, and returns when they have stopped.
func (t *Tasks) Run(ctx context.Context) error {
	<-ctx.Done()
	t.mu.Lock()
	t.stop()
	if t.lapse != nil {
		t.lapse.Stop()
	}
	t.mu.Unlock()
	t.wg.Wait()
	return nil
}

// SetTimetable replaces the timetable. Entries that are as they were go on undisturbed.
func (t *Tasks) SetTimetable(m *synmeshv1.Timetable) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ctx.Err() != nil {
		return
	}
	t.version, t.expiry = m.GetVersion(), m.GetExpiry().AsDuration()
	wanted := make(map[string]*synmeshv1.TimetableEntry)
	for _, e := range m.GetEntries() {
		wanted[e.GetSource()] = e
	}
	for source := range t.refused {
		if wanted[source] == nil {
			delete(t.refused, source)
		}
	}
	for source, running := range t.entries {
		if wanted[source] == nil {
			running.cancel()
			delete(t.entries, source)
		}
	}
	for source, e := range wanted {
		before := t.entries[source]
		if before != nil && proto.Equal(e, before.entry) {
			continue
		}
		t.startEntry(source, e, before)
	}
	t.log.Info("timetable", "version", t.version, "entries", len(t.entries))
}

// startEntry begins an entry in the place of another, if there was one, whose
// source ports it then gets. The lock is held.
func (t *Tasks) startEntry(source string, e *synmeshv1.TimetableEntry, before *task) {
	if before != nil {
		before.cancel()
		delete(t.entries, source)
	}
	spec, err := checked(e.GetSpec())
	if err != nil {
		if t.refused[source] != err.Error() { // every timetable has it
			t.log.Error("measurement refused", "source", source, "reason", err)
		}
		t.refused[source] = err.Error()
		return
	}
	delete(t.refused, source)
	ctx, cancel := context.WithCancel(t.ctx)
	now := &task{e, cancel, make(chan struct{})}
	t.entries[source] = now
	t.wg.Go(func() {
		defer close(now.done)
		defer cancel()
		if before != nil {
			<-before.done
		}
		for ctx.Err() == nil {
			err := t.prober.Do(ctx, spec, func(r *probe.Result) {
				r.Source = source
				t.sink.Add(r)
			})
			if ctx.Err() != nil || err == nil {
				return
			}
			t.log.Error("measurement failed; it is tried again", "source", source, "reason", err)
			pause(ctx, 10*time.Second)
		}
	})
}

// Refused returns the entries of the timetable that are not done, and why, in
// the order of their sources: as many as a heartbeat takes.
func (t *Tasks) Refused() (all []*synmeshv1.Refusal) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, source := range slices.Sorted(maps.Keys(t.refused)) {
		if len(all) == maxRefusals {
			break
		}
		reason := t.refused[source]
		all = append(all, &synmeshv1.Refusal{Source: source, Reason: strings.ToValidUTF8(reason[:min(len(reason), maxReason)], "")})
	}
	return all
}

// StartRun begins a run at a time, or at once if that is past. Its end will go to the sink.
func (t *Tasks) StartRun(m *synmeshv1.StartRun, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	run := m.GetRun()
	if t.ctx.Err() != nil || t.runs[run] != nil {
		return
	}
	spec, err := checked(m.GetSpec())
	if err == nil && len(t.runs) >= maxRuns {
		err = fmt.Errorf("%d runs are going on; an agent does no more at once", maxRuns)
	}
	if err != nil {
		t.sink.EndRun(&synmeshv1.RunEnd{Run: run, Error: err.Error()})
		return
	}
	ctx, cancel := context.WithCancel(t.ctx)
	t.runs[run] = &task{cancel: cancel}
	t.wg.Go(func() {
		defer cancel()
		end := &synmeshv1.RunEnd{Run: run}
		pause(ctx, time.Until(at))
		err := ctx.Err()
		if err == nil {
			err = t.prober.Do(ctx, spec, func(r *probe.Result) {
				r.Source = run
				t.sink.Add(r)
				end.Produced++
			})
		}
		if err != nil && ctx.Err() == nil {
			end.Error = err.Error()
		} else if err != nil {
			end.Error = "cancelled"
		}
		t.mu.Lock()
		delete(t.runs, run)
		t.mu.Unlock()
		t.sink.EndRun(end)
	})
}

// CancelRun stops a run; what it has found is still reported, and its end.
func (t *Tasks) CancelRun(run string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r := t.runs[run]; r != nil {
		r.cancel()
	}
}

// Connected says that the controller is heard; Disconnected that it is not.
// Runs end then, since nobody waits for them, and the timetable goes on until its expiry.
func (t *Tasks) Connected() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.lapse != nil {
		t.lapse.Stop()
		t.lapse = nil
	}
}

// Runs tells how many runs go on.
func (t *Tasks) Runs() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.runs)
}

// Disconnected is the opposite of Connected.
func (t *Tasks) Disconnected() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range t.runs {
		r.cancel()
	}
	if t.lapse == nil && len(t.entries) > 0 && t.ctx.Err() == nil {
		t.lapse = time.AfterFunc(t.expiry, t.stopEntries)
	}
}

func (t *Tasks) stopEntries() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.lapse == nil {
		return
	}
	t.log.Warn("the timetable has expired: the controller was not heard", "for", t.expiry)
	for source, e := range t.entries {
		e.cancel()
		delete(t.entries, source)
	}
	clear(t.refused)
}

// checked returns the Spec of a message if it is valid and allowed.
func checked(m *synmeshv1.ProbeSpec) (probe.Spec, error) {
	s, err := convert.ToSpec(m)
	if err == nil {
		err = s.Validate()
	}
	if err == nil {
		err = policy.Check(&s)
	}
	return s, err
}

func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
