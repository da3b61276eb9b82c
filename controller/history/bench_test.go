package history

import (
	"fmt"
	"sync"
	"testing"
	"time"

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
	for _, blocks := range []int{1, 100} {
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
