//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// archivedWithin is how long it is waited until the results are archived.
	archivedWithin = time.Minute
	// verified is of how many agents it is looked whether everything is there.
	verified = 3
	// withHTTP is where a controller serves metrics, for which it follows what is stored.
	withHTTP = "127.0.0.1:7402"
)

// supply is how agents report: at a rate, or as fast as possible; without end, or so often.
type supply struct {
	rate    float64 // results a second, of all agents
	reports int     // of each agent; 0: until it is enough
}

// span makes the context that ends when it is enough. It is called when the agents begin.
type span func(context.Context) (context.Context, context.CancelFunc)

// intakeRow is what came of sending results to a controller.
type intakeRow struct {
	name      string
	agents    int
	results   int64
	took      time.Duration
	p50, p99  time.Duration // from when a report is due until it is acknowledged
	server    time.Duration // processor time
	generator time.Duration
	peak      int64         // resident memory
	disk      [2]int64      // bytes at the end, and when it is archived
	settling  time.Duration // how long all that took
	archiving time.Duration // and the archiving alone
	archive   time.Duration // processor time of the restart, of looking whether all is there, and of archiving
	behind    int           // files that were not archived then
}

// ingest measures how many results a second the controller stores for good.
func (b *suite) ingest(ctx context.Context, p *page) error {
	if b.bin == "" {
		return errors.New("ingest: there is no probe-controller beside this program; `make build` makes it")
	}
	var rows []intakeRow
	for _, v := range []struct {
		name, http string
		length     time.Duration
	}{
		{ours, "", b.ingestFor},
		{ours + ", with metrics", withHTTP, b.ingestFor / 3},
	} {
		b.say("ingest: %s, %d agents report for %v", v.name, b.options.ingest, v.length)
		timed := func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, v.length)
		}
		row, err := b.intake(ctx, v.http, b.options.ingest, supply{rate: b.ingestRate}, timed)
		if err != nil {
			return fmt.Errorf("ingest: %s: %w", v.name, err)
		}
		row.name = v.name
		rows = append(rows, row)
	}
	p.ingest(rows)
	return b.besideVictoria(ctx, p)
}

// intake measures what a new controller takes in until it is enough.
func (b *suite) intake(ctx context.Context, http string, agents int, how supply, until span) (row intakeRow, err error) {
	if err := b.calm(ctx); err != nil {
		return row, err
	}
	r, err := startReceiver(ctx, b.network.to, b.bin, http, agents)
	if err != nil {
		return row, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	if row, err = r.run(ctx, until, how); err != nil {
		return row, err
	}
	b.say("ingest: %.0f results/s, acknowledged after %s ms at p99; is everything there?", float64(row.results)/row.took.Seconds(), millis(row.p99))
	err = r.settle(ctx, &row)
	b.say("ingest: it was looked for and archived in %v", row.settling.Round(time.Second))
	return row, err
}

// settle kills the controller, starts it again, looks whether everything is there, and waits until
// it is archived.
func (r *receiver) settle(ctx context.Context, row *intakeRow) (err error) {
	began := time.Now()
	defer func() { row.settling = time.Since(began) }()
	if err := r.restart(ctx); err != nil {
		return err
	}
	for i := 0; i < len(r.feeders); i += max(1, (len(r.feeders)+verified-1)/verified) {
		if err := r.verify(ctx, r.feeders[i]); err != nil {
			return err
		}
	}
	if err := r.reportOnce(ctx, r.feeders[0]); err != nil { // into another file of the intake: now the first is finished
		return err
	}
	if row.archiving, row.behind, err = r.catchUp(ctx, archivedWithin); err != nil {
		return err
	}
	if row.archive, err = r.usage(); err != nil {
		return err
	}
	if row.disk[1], err = r.disk(); err != nil {
		return err
	}
	return r.verify(ctx, r.feeders[0])
}

// reportOnce has one agent report once.
func (r *receiver) reportOnce(ctx context.Context, l *feeder) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	st, err := l.session(ctx, r.conns[0])
	if err != nil {
		return err
	}
	return l.report(ctx, st, pace{most: 1}, func(int, time.Duration) {})
}

// run has all agents report until it is enough.
func (r *receiver) run(ctx context.Context, until span, how supply) (row intakeRow, err error) {
	sessions, cancel := context.WithCancel(ctx)
	defer cancel()
	streams, err := r.sessions(sessions)
	if err != nil {
		return row, err
	}
	before, err := r.usage()
	if err != nil {
		return row, err
	}
	own, err := processorTime()
	if err != nil {
		return row, err
	}
	enough, stop := until(ctx)
	defer stop()
	began := time.Now()
	var results atomic.Int64
	after := make([][]time.Duration, len(r.feeders))
	var g errgroup.Group
	for i, l := range r.feeders {
		g.Go(func() error {
			return l.report(enough, streams[i], how.pace(began, i, len(r.feeders)), func(n int, took time.Duration) {
				results.Add(int64(n))
				after[i] = append(after[i], took)
			})
		})
	}
	if err := errors.Join(g.Wait(), ctx.Err()); err != nil {
		return row, err
	}
	row = intakeRow{agents: len(r.feeders), results: results.Load(), took: time.Since(began)}
	if row.results == 0 {
		return row, errors.New("nothing was acknowledged")
	}
	all := slices.Concat(after...)
	slices.Sort(all)
	row.p50, row.p99 = all[(len(all)-1)/2], all[(len(all)-1)*99/100]
	err = r.charge(&row, before, own)
	return row, err
}

// pace spreads the reports of the agents evenly.
func (s supply) pace(began time.Time, i, agents int) pace {
	p := pace{most: s.reports}
	if s.rate > 0 {
		p.every = time.Duration(float64(agents*feederSeries) / s.rate * float64(time.Second))
		p.first = began.Add(p.every * time.Duration(i) / time.Duration(agents))
	}
	return p
}

// charge notes what it took.
func (r *receiver) charge(row *intakeRow, before, own time.Duration) (err error) {
	if row.server, err = r.usage(); err != nil {
		return err
	}
	if row.generator, err = processorTime(); err != nil {
		return err
	}
	row.server, row.generator = row.server-before, row.generator-own
	if row.peak, err = peakOf(r.program.Process.Pid); err != nil {
		return err
	}
	row.disk[0], err = r.disk()
	return err
}
