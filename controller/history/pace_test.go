package history

import (
	"context"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Who reads for a query rests after a stint, if reports wait, and only then.
func TestQueriesGiveWayToTheIntake(t *testing.T) {
	for what, c := range map[string]struct {
		worked  time.Duration
		waiting bool
		rest    time.Duration
	}{
		"nothing waits":    {worked: time.Second},
		"a moment":         {worked: stint - 1, waiting: true},
		"a stint":          {worked: stint, waiting: true, rest: restFor * stint},
		"far more at once": {worked: time.Minute, waiting: true, rest: restFor * 4 * stint},
	} {
		synctest.Test(t, func(t *testing.T) {
			s, err := newStore(Config{Dir: "nowhere"})
			if err != nil {
				t.Fatal(err)
			}
			if c.waiting {
				s.queue.put(&pending{})
			}
			p := pace{store: s}
			if err := p.giveWay(t.Context()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(c.worked)
			began := time.Now()
			if err := p.giveWay(t.Context()); err != nil || time.Since(began) != c.rest {
				t.Errorf("%s: it rested %v, not %v; %v", what, time.Since(began), c.rest, err)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		s, err := newStore(Config{Dir: "nowhere"})
		if err != nil {
			t.Fatal(err)
		}
		s.queue.put(&pending{})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		began := time.Now()
		if err := (&pace{store: s, began: began.Add(-time.Hour)}).giveWay(ctx); err != context.Canceled || time.Since(began) != 0 {
			t.Errorf("after the end it rested %v; %v", time.Since(began), err)
		}
	})
}

// While the intake is overloaded, all who read have a share together that does not depend on how many they are, and
// each of them comes on. Afterwards nobody rests.
func TestReadersOfAnOverloadedIntakeShareLittle(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	const long, piece = 20 * time.Second, time.Millisecond
	for _, readers := range []int{1, 20} {
		synctest.Test(t, func(t *testing.T) {
			s, err := newStore(Config{Dir: "nowhere"})
			if err != nil {
				t.Fatal(err)
			}
			s.queue.over = true
			began := time.Now()
			worked := make([]time.Duration, readers)
			var all sync.WaitGroup
			for i := range worked {
				all.Go(func() {
					for time.Since(began) < long {
						p := pace{store: s}
						for range 7 { // who reads again and again begins as often with a new pace
							if err := p.giveWay(t.Context()); err != nil {
								t.Error(err)
							}
							time.Sleep(piece)
							worked[i] += piece
						}
						p.end()
					}
				})
			}
			all.Wait()
			share := long * time.Duration(runtime.GOMAXPROCS(0)) / shareOfReaders
			var sum time.Duration
			for _, d := range worked {
				sum += d
			}
			if low, high := share*8/10, share*11/10+time.Duration(readers)*10*piece; sum < low || sum > high {
				t.Errorf("%d readers have read for %v, not %v to %v", readers, sum, low, high)
			}
			if least := share / time.Duration(2*readers); slices.Min(worked) < least {
				t.Errorf("of %d readers one has read for %v only, not %v", readers, slices.Min(worked), least)
			}
			s.queue.over = false
			ended := time.Now()
			p := pace{store: s}
			if err := p.giveWay(t.Context()); err != nil || time.Since(ended) != 0 {
				t.Errorf("%d readers: after that, one rested %v; %v", readers, time.Since(ended), err)
			}
		})
	}
}

// Whatever is read is charged: of the intake, of the archive, by whom it may be.
func TestWhoeverReadsIsChargedWhileTheIntakeIsOverloaded(t *testing.T) {
	for where, archived := range map[string]bool{"in the intake": false, "in the archive": true} {
		c := newClock("2026-11-20T12:00:00Z")
		s := start(t, Config{Dir: t.TempDir(), now: c.now, noArchive: true, Rotation: time.Minute})
		now := c.now()
		for i := range uint64(3) {
			if _, err := s.Append(t.Context(), "agent-0000", manySeries(rand.New(rand.NewPCG(1, i)), c.now(), i+1, 3)); err != nil {
				t.Fatal(err)
			}
			c.add(2 * time.Minute)
		}
		if archived {
			if err := s.archiveAll(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		read := map[string]func() error{
			"scanned": func() (err error) {
				for _, err = range s.Scan(t.Context(), time.Time{}, time.Time{}, nil) {
					if err != nil {
						return err
					}
				}
				return nil
			},
			"asked for": func() error {
				_, err := s.Query(t.Context(), Query{From: now.Add(-time.Hour), To: c.now()})
				return err
			},
			"asked for one by one": func() error {
				_, err := s.Query(t.Context(), Query{From: now.Add(-time.Hour), To: c.now(), Flows: true})
				return err
			},
		}
		for what, do := range read {
			s.queue.mu.Lock()
			s.queue.over, s.queue.idleFrom = true, time.Time{}
			s.queue.mu.Unlock()
			s.readers.until = time.Time{}
			if err := do(); err != nil {
				t.Fatal(err)
			}
			if s.readers.until.IsZero() {
				t.Errorf("what was %s %s has cost nothing", what, where)
			}
		}
	}
}

// A committer that is at work for most of the time, with much to store, has too much to do; one that rests has not,
// even if it had before, nor one that the disk keeps waiting.
func TestTheIntakeIsOverloadedWhenItHardlyRests(t *testing.T) {
	for what, c := range map[string]struct {
		rest, work time.Duration
		bytes      int // every 10 ms
		over       bool
	}{
		"seldom at work":                 {9 * time.Millisecond, time.Millisecond, heavyLoad / 50, false},
		"mostly at work":                 {2 * time.Millisecond, 8 * time.Millisecond, heavyLoad / 50, true},
		"always at work":                 {0, 10 * time.Millisecond, heavyLoad / 50, true},
		"always at work, on a slow disk": {0, 10 * time.Millisecond, heavyLoad / 200, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			q := newQueue()
			var both sync.WaitGroup
			both.Go(func() {
				for q.take(maxCommit) != nil {
					time.Sleep(c.work)
				}
			})
			for range 100 {
				time.Sleep(c.rest + c.work)
				q.put(&pending{value: make([]byte, c.bytes)})
			}
			synctest.Wait()
			if q.overloaded() != c.over {
				t.Errorf("%s: overloaded: %v", what, !c.over)
			}
			time.Sleep(2 * loadWindow)
			if q.overloaded() {
				t.Errorf("%s, and then not any more: it is still overloaded", what)
			}
			q.close()
			both.Wait()
		})
	}
}

// A window of the archive has many series, and the intake goes first between them. Who is sent away meanwhile is told so.
func TestAScanOfTheArchiveGivesWay(t *testing.T) {
	c := newClock("2026-11-20T12:00:00Z")
	s := start(t, Config{Dir: t.TempDir(), now: c.now, noArchive: true, Rotation: time.Minute})
	const series = 50
	for i := range uint64(2) {
		if _, err := s.Append(t.Context(), "agent-0000", manySeries(rand.New(rand.NewPCG(1, i)), c.now(), i+1, series)); err != nil {
			t.Fatal(err)
		}
		c.add(2 * time.Minute)
	}
	if err := s.archiveAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	asked, enough := 0, math.MaxInt
	r := reader{end: math.MaxUint64, goOn: func() error {
		if asked++; asked > enough {
			return context.Canceled
		}
		return nil
	}}
	at := whereabouts{archive: s.archive[0]}
	if _, _, err := s.entries(&r, at, Filter{}); err != nil || asked < series {
		t.Errorf("it has given way %d times, with %d series; %v", asked, series, err)
	}
	enough, asked = asked-1, 0
	r.next = 0
	if _, _, err := s.entries(&r, at, Filter{}); err != context.Canceled {
		t.Errorf("it goes on though it may not; %v", err)
	}
}
