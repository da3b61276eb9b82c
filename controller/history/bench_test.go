package history

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/synmesh/synmesh/controller/history/rollup"
	"github.com/synmesh/synmesh/probe"
	synmeshv1 "github.com/synmesh/synmesh/proto/synmesh/v1"
)

const benchResults = 1000

// series makes a report of a result for each of a thousand series, or of one
// series.
func series(sequence uint64, blocks int) *synmeshv1.Report {
	r := &synmeshv1.Report{Epoch: 1, Sequence: sequence}
	for i := range blocks {
		b := report(1, sequence, benchResults/blocks).GetBlocks()[0]
		b.Target = fmt.Sprintf("agent-%d", i)
		r.Blocks = append(r.Blocks, b)
	}
	return r
}

// BenchmarkAppend appends reports of 1000 results. One operation is a report.
func BenchmarkAppend(b *testing.B) {
	for _, blocks := range []int{1, 100, 1000} {
		for _, agents := range []int{1, 10, 100, 1000} {
			b.Run(fmt.Sprintf("blocks=%d/agents=%d", blocks, agents), func(b *testing.B) {
				s := start(b, Config{Dir: b.TempDir()})
				var wg sync.WaitGroup
				for a := range agents {
					r := series(0, blocks)
					wg.Go(func() {
						for range (b.N + agents - 1 - a) / agents {
							r.Sequence++
							if _, err := s.Append(b.Context(), fmt.Sprintf("agent-%d", a), r); err != nil {
								b.Error(err)
							}
						}
					})
				}
				wg.Wait()
				b.StopTimer()
				b.ReportMetric(float64(s.Stats().Results)/b.Elapsed().Seconds(), "results/s")
				b.ReportMetric(float64(s.Stats().Reports)/float64(s.Stats().Commits), "reports/commit")
			})
		}
	}
}

// BenchmarkScan reads reports of 1000 results. One operation is a report.
func BenchmarkScan(b *testing.B) {
	for _, blocks := range []int{1, 100} {
		b.Run(fmt.Sprintf("blocks=%d", blocks), func(b *testing.B) {
			s := start(b, Config{Dir: b.TempDir()})
			var wg sync.WaitGroup
			for a := range 50 {
				r := series(0, blocks)
				wg.Go(func() {
					for range 40 {
						r.Sequence++
						if _, err := s.Append(b.Context(), fmt.Sprintf("agent-%d", a), r); err != nil {
							b.Error(err)
						}
					}
				})
			}
			wg.Wait()
			b.ResetTimer()
			b.ReportAllocs()
			for n := 0; n < b.N; {
				for _, err := range s.Scan(b.Context(), time.Time{}, time.Time{}, nil) {
					if err != nil {
						b.Fatal(err)
					}
					if n++; n == b.N {
						break
					}
				}
			}
			b.ReportMetric(float64(b.N)*benchResults/b.Elapsed().Seconds(), "results/s")
		})
	}
}

// BenchmarkOpen opens a folder with 10,000 reports and as many marks.
func BenchmarkOpen(b *testing.B) {
	cfg := Config{Dir: b.TempDir()}
	s := start(b, cfg)
	var wg sync.WaitGroup
	for a := range 100 {
		wg.Go(func() {
			for i := range 100 {
				if _, err := s.Append(b.Context(), fmt.Sprintf("agent-%d-%d", a, i), report(1, 1, 10)); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := s.stop(); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	for b.Loop() {
		s, err := Open(cfg)
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkArchive archives what 50 agents report in five minutes, of 100 series each, once a
// second. One operation is a file of the intake; twelve show what an hour takes on disk.
func BenchmarkArchive(b *testing.B) {
	const agents, targets, seconds = 50, 100, 300
	c := newClock("2026-11-20T12:00:00Z")
	cfg := Config{Dir: b.TempDir(), now: c.now, noArchive: true}
	s := start(b, cfg)
	rnd := rand.New(rand.NewPCG(1, 2))
	var took time.Duration
	files := 0
	for b.Loop() {
		b.StopTimer()
		for i := range uint64(seconds) {
			var wg sync.WaitGroup
			for a := range agents {
				r := seldom(rnd, c.now(), uint64(files*seconds)+i+1, targets, 10_000)
				wg.Go(func() {
					if _, err := s.Append(b.Context(), fmt.Sprintf("agent-%04d", a), r); err != nil {
						b.Error(err)
					}
				})
			}
			wg.Wait()
			c.add(time.Second)
		}
		r := manySeries(rnd, c.now(), 1, 1)
		if _, err := s.Append(b.Context(), fmt.Sprintf("last-%d", files), r); err != nil {
			b.Fatal(err)
		}
		files++
		b.StartTimer()
		began := time.Now()
		if err := s.compact(b.Context(), s.finished()); err != nil {
			b.Fatal(err)
		}
		took += time.Since(began)
	}
	if err := s.mergeAll(b.Context()); err != nil { // of twelve files, an hour's
		b.Fatal(err)
	}
	results := float64(files * agents * targets * seconds)
	for t := raw; t <= hours; t++ {
		size := int64(0)
		for _, n := range fileNames(b, cfg.Dir) {
			if p, ok := parseParts(n); ok && p.tier == t {
				info, err := os.Stat(filepath.Join(cfg.Dir, n))
				if err != nil {
					b.Fatal(err)
				}
				size += info.Size()
			}
		}
		b.ReportMetric(float64(size)/results, tierWords[t]+"-B/result")
	}
	b.ReportMetric(float64(took.Nanoseconds())/results, "ns/result")
}

// rollups makes files as merging leaves them: of hours for some days, and of minutes for the
// last one, of agents times agents series.
func rollups(b *testing.B, dir string, now time.Time, days, agents int) {
	b.Helper()
	rnd := rand.New(rand.NewPCG(1, 2))
	some := make([]rollup.Summary, 64)
	fill := func(results int) {
		for i := range some {
			some[i] = rollup.Summary{}
			for range results {
				some[i].Add(probe.Open, time.Duration(1e6*math.Exp(0.3*rnd.NormFloat64())), true)
			}
		}
	}
	file := func(p parts, from time.Time, slots int) {
		out, err := build(filepath.Join(dir, p.String()))
		if err != nil {
			b.Fatal(err)
		}
		list := make([]rollup.Slot, slots)
		for i := range agents * agents {
			for n := range list {
				list[n] = rollup.Slot{At: from.UnixNano()/int64(p.tier.slot()) + int64(n), Summary: some[rnd.IntN(len(some))]}
			}
			key := seriesKey(fmt.Sprintf("agent-%04d", i/agents), "measurements/mesh", fmt.Sprintf("agent-%04d", i%agents))
			if err := putSlots(out, key, 1, list, p.tier); err != nil {
				b.Fatal(err)
			}
		}
		if err := publishAll(out); err != nil {
			b.Fatal(err)
		}
	}
	today := now.Truncate(24 * time.Hour)
	fill(3600)
	for d := range days {
		day := today.AddDate(0, 0, -d)
		file(parts{hours, dayOf(uint64(day.UnixNano())), 1, 288}, day, 24)
	}
	fill(60)
	for h := range now.Hour() {
		file(parts{minutes, dayOf(uint64(now.UnixNano())), 12*h + 1, 12*h + 12}, today.Add(time.Duration(h)*time.Hour), 60)
	}
	for m := 0; m < now.Minute(); m += 5 {
		first := 12*now.Hour() + m/5 + 1
		file(parts{minutes, dayOf(uint64(now.UnixNano())), first, first}, now.Truncate(time.Hour).Add(time.Duration(m)*time.Minute), 5)
	}
}

// newest appends what as many agents as there are targets report in some seconds.
func newest(b *testing.B, s *running, c *clock, agents, seconds int) {
	b.Helper()
	rnd := rand.New(rand.NewPCG(3, 4))
	reports := make([]*synmeshv1.Report, agents)
	for a := range reports {
		reports[a] = seldom(rnd, c.now(), 0, agents, 10_000)
	}
	for range seconds {
		var wg sync.WaitGroup
		for a, r := range reports {
			r.Sequence++
			for _, block := range r.Blocks {
				block.Start += int64(time.Second)
				block.Rtts[0] = int64(1e6 * math.Exp(0.3*rnd.NormFloat64()))
			}
			wg.Go(func() {
				if _, err := s.Append(b.Context(), fmt.Sprintf("agent-%04d", a), r); err != nil {
					b.Error(err)
				}
			})
		}
		wg.Wait()
		c.add(time.Second)
	}
}

// BenchmarkQuery asks a history of 30 days of 100 agents that probe each other once a second, of which
// the newest five minutes are in the intake. The rollups are asked for what is aligned to them, too.
func BenchmarkQuery(b *testing.B) {
	c := newClock("2026-11-20T03:30:00Z")
	cfg := Config{Dir: b.TempDir(), now: c.now, noArchive: true, Rotation: 10 * time.Minute}
	rollups(b, cfg.Dir, c.now(), 30, 100)
	archived := c.now()
	began := time.Now()
	s := start(b, cfg)
	opened := time.Since(began)
	newest(b, s, c, 100, 300)
	cell := func(id Series) (Series, bool) { return Series{Agent: id.Agent, Target: id.Target}, true }
	for name, q := range map[string]Query{
		"matrix":  {Source: "measurements/mesh", From: c.now().Add(-time.Hour), To: c.now().Add(time.Minute), Group: cell},
		"aligned": {Source: "measurements/mesh", From: archived.Add(-time.Hour), To: archived, Group: cell},
		"pair": {Source: "measurements/mesh", Agents: []string{"agent-0042"}, Targets: []string{"agent-0007"},
			From: archived.AddDate(0, 0, -29).Truncate(24 * time.Hour), To: archived.Truncate(time.Hour), Step: time.Hour},
	} {
		b.Run(name, func(b *testing.B) {
			if _, err := s.Query(b.Context(), q); err != nil { // those before it have read the intake
				b.Fatal(err)
			}
			for b.Loop() {
				answers, err := s.Query(b.Context(), q)
				if err != nil || len(answers) == 0 {
					b.Fatal(len(answers), err)
				}
			}
			b.ReportMetric(opened.Seconds()*1000, "ms-to-open")
		})
	}
}
