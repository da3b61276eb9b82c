package history

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	synmeshv1 "github.com/synmesh/synmesh/proto/synmesh/v1"
)

// childEnv makes the test binary play another part in a process of its own.
const childEnv = "SYNMESH_HISTORY_TEST_CHILD"

var children = map[string]func(dir string) error{}

func TestMain(m *testing.M) {
	if part := os.Getenv(childEnv); part != "" {
		if err := children[part](os.Args[1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if err := flag.Set("rapid.checks", "40"); err != nil { // the command line may say more
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// clock is a wall clock under the test's control.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock(s string) *clock {
	c := &clock{}
	c.set(s)
	return c
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

func (c *clock) set(s string) {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		panic(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = t
}

// logBuffer collects the log.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Count(l.b.Bytes(), []byte(s))
}

func (l *logBuffer) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// running is an open store and its Run.
type running struct {
	*Store
	stop func() error // once; ends Run and closes
}

// start opens a store and runs it until the test ends or stop is called.
func start(t testing.TB, cfg Config) *running {
	t.Helper()
	r, err := run(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func run(cfg Config) (*running, error) {
	s, err := Open(cfg)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	return &running{s, sync.OnceValue(func() error {
		cancel()
		if err := <-ended; err != nil {
			return err
		}
		return s.Close()
	})}, nil
}

// report makes a small report whose content depends on its numbers.
func report(epoch, sequence uint64, results int) *synmeshv1.Report {
	b := &synmeshv1.ResultBlock{
		Source:  "measurements/m",
		Target:  fmt.Sprintf("target-%d-%d", epoch, sequence),
		Address: []byte{10, 0, 0, 2},
		Port:    443,
		Start:   int64(sequence) * 1e9,
		Stamp:   synmeshv1.Stamp_STAMP_KERNEL,
	}
	for i := range results {
		b.TimeDeltas = append(b.TimeDeltas, int64(i)*1e6)
		b.Outcomes = append(b.Outcomes, synmeshv1.Outcome_OUTCOME_OPEN)
		b.Rtts = append(b.Rtts, 23456+int64(i*7919+int(sequence))%5000)
		b.LocalPorts = append(b.LocalPorts, 61000)
		b.Latenesses = append(b.Latenesses, 81000+int64(i*104729)%9000)
		b.HostDelays = append(b.HostDelays, 34000+int64(i*1299709)%9000)
		b.SynAckIndexes = append(b.SynAckIndexes, 0)
	}
	return &synmeshv1.Report{Epoch: epoch, Sequence: sequence, Blocks: []*synmeshv1.ResultBlock{b}}
}

// add appends a report that has not been stored yet.
func add(t testing.TB, s *running, agent string, epoch, sequence uint64) {
	t.Helper()
	stored, err := s.Append(t.Context(), agent, report(epoch, sequence, 3))
	if err != nil || !stored {
		t.Fatalf("Append of report %d of %s: stored %v, %v", sequence, agent, stored, err)
	}
}

// addMany appends reports from one sequence to another, in as few commits as
// they fit.
func addMany(t testing.TB, s *running, agent string, epoch, from, to uint64) {
	t.Helper()
	var batch []*pending
	for i := from; i <= to; i++ {
		p := &pending{stream: stream{agent, epoch}, sequence: i, weight: 1000, done: make(chan struct{})}
		if err := s.enqueue(t.Context(), p, encoded(t, report(epoch, i, 3))); err != nil {
			t.Fatal(err)
		}
		batch = append(batch, p)
	}
	for _, p := range batch {
		if <-p.done; p.err != nil || !p.stored {
			t.Fatalf("report %d of %s: stored %v, %v", p.sequence, agent, p.stored, p.err)
		}
	}
}

// ids returns the reports between two times as "agent/epoch/sequence".
func ids(t testing.TB, s *running, from, to time.Time, after Cursor) (list []string) {
	t.Helper()
	for e, err := range s.Scan(t.Context(), from, to, after) {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, id(e))
	}
	return list
}

func id(e Entry) string {
	return fmt.Sprintf("%s/%d/%d", e.Agent, e.Report.GetEpoch(), e.Report.GetSequence())
}

func all(t testing.TB, s *running) []string {
	t.Helper()
	return ids(t, s, time.Time{}, time.Time{}, nil)
}

// fileNames returns what is in the folder beside the lock.
func fileNames(t testing.TB, dir string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "lock" {
			list = append(list, e.Name())
		}
	}
	return list
}

// edit changes a file in place.
func edit(t testing.TB, dir, name string, change func(b []byte)) {
	t.Helper()
	path := filepath.Join(dir, name)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	change(b)
	if _, err := f.WriteAt(b, 0); err != nil {
		t.Fatal(err)
	}
}
