//go:build unix

package history

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

func init() { children["load"] = load }

// load stores what 100 agents report of 100 series each, and says so for every thousand reports.
func load(dir string) error {
	s, err := run(Config{Dir: dir, noArchive: true})
	if err != nil {
		return err
	}
	for round := uint64(1); ; round++ {
		rnd := rand.New(rand.NewPCG(round, 2))
		failed := make(chan error, 100)
		for a := range 100 {
			r := seldom(rnd, time.Now(), round, 100, 10_000)
			r.Epoch = uint64(time.Now().UnixNano())
			go func() {
				_, err := s.Append(context.Background(), fmt.Sprintf("agent-%04d", a), r)
				failed <- err
			}()
		}
		for range 100 {
			if err := <-failed; err != nil {
				return err
			}
		}
		if round%10 == 0 {
			fmt.Println(round * 100)
		}
	}
}

// BenchmarkOpenAfterKill opens the history of 30 days of 10,000 series, whose controller was killed
// while reports came in: as many files as there are then, those of the hours in full, of the
// others a series each, for no more than their beginnings is read; and of the intake so
// many reports of 100 results as are said.
func BenchmarkOpenAfterKill(b *testing.B) {
	now := time.Now().UTC()
	dir := b.TempDir()
	rollups(b, dir, now.Truncate(24*time.Hour), 30, 100)
	sparse(b, dir, now)
	reports := 0
	var opened time.Duration
	for b.Loop() {
		b.StopTimer()
		reports += loadAndKill(b, dir)
		b.StartTimer()
		began := time.Now()
		s, err := Open(Config{Dir: dir})
		opened = max(opened, time.Since(began))
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(len(fileNames(b, dir))), "files")
	b.ReportMetric(float64(reports), "reports")
	b.ReportMetric(opened.Seconds()*1000, "ms-at-most")
}

// sparse makes the files of minutes and of results of the days before.
func sparse(b *testing.B, dir string, now time.Time) {
	b.Helper()
	var wg sync.WaitGroup
	for d := 1; d <= 30; d++ {
		day := dayOf(uint64(now.AddDate(0, 0, -d).UnixNano()))
		wg.Go(func() {
			for h := range 24 {
				emptyFile(b, dir, parts{minutes, day, 12*h + 1, 12*h + 12})
			}
			for part := 1; d <= 7 && part <= 288; part++ {
				emptyFile(b, dir, parts{raw, day, part, part})
			}
		})
	}
	wg.Wait()
}

func emptyFile(b *testing.B, dir string, p parts) {
	out, err := build(filepath.Join(dir, p.String()))
	if err == nil {
		out.brought(name{day: p.day}.start() + uint64(p.first))
		err = publishAll(out)
	}
	if err != nil {
		b.Error(err)
	}
}

// loadAndKill runs the child until it has stored some thousand reports, and returns how many.
func loadAndKill(b *testing.B, dir string) (reports int) {
	b.Helper()
	cmd := exec.CommandContext(b.Context(), os.Args[0], dir)
	cmd.Env = append(os.Environ(), childEnv+"=load")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	for r := bufio.NewReader(out); reports < 10_000; {
		if _, err := fmt.Fscan(r, &reports); err != nil {
			b.Fatal(err)
		}
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // it was killed
	return reports
}
