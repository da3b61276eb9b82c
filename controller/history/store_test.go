package history

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	synmeshv1 "github.com/synmesh/synmesh/proto/synmesh/v1"
)

func TestReportsComeBackAsTheyWere(t *testing.T) {
	dir := t.TempDir()
	s := start(t, Config{Dir: dir})
	before := time.Now()
	want := report(7, 1, 100)
	want.RunEnds = []*synmeshv1.RunEnd{{Run: "runs/r", Produced: 3}}
	if stored, err := s.Append(t.Context(), "fra-1", want); err != nil || !stored {
		t.Fatal(stored, err)
	}
	check := func(s *running) {
		t.Helper()
		n := 0
		for e, err := range s.Scan(t.Context(), time.Time{}, time.Time{}, nil) {
			if err != nil {
				t.Fatal(err)
			}
			n++
			if e.Agent != "fra-1" || e.Stored.Before(before) || e.Stored.After(time.Now()) {
				t.Errorf("agent %q, stored %v", e.Agent, e.Stored)
			}
			if d := cmp.Diff(want, e.Report, protocmp.Transform()); d != "" {
				t.Error(d)
			}
		}
		if n != 1 {
			t.Errorf("%d entries, not 1", n)
		}
	}
	check(s)
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	check(start(t, Config{Dir: dir}))
}

func TestAReportIsStoredOnce(t *testing.T) {
	dir := t.TempDir()
	s := start(t, Config{Dir: dir})
	steps := []struct {
		agent           string
		epoch, sequence uint64
		stored          bool
	}{
		{"a", 1, 1, true},
		{"a", 1, 1, false},
		{"a", 1, 4, true}, // sequences may be left out
		{"a", 1, 3, false},
		{"a", 2, 1, true}, // another epoch
		{"b", 1, 1, true}, // another agent
		{"a", 1, 5, true},
	}
	var want []string
	for _, st := range steps {
		stored, err := s.Append(t.Context(), st.agent, report(st.epoch, st.sequence, 3))
		if err != nil || stored != st.stored {
			t.Errorf("%+v: stored %v, %v", st, stored, err)
		}
		if st.stored {
			want = append(want, fmt.Sprintf("%s/%d/%d", st.agent, st.epoch, st.sequence))
		}
	}
	got := s.Stats()
	if d := cmp.Diff(Stats{Reports: 5, Results: 15, Duplicates: 2, Commits: 5}, got); d != "" {
		t.Error(d)
	}
	for range 2 {
		if d := cmp.Diff(want, all(t, s)); d != "" {
			t.Error(d)
		}
		for id, sequence := range map[stream]uint64{{"a", 1}: 5, {"a", 2}: 1, {"b", 1}: 1, {"c", 1}: 0} {
			if got, err := s.Sequence(id.agent, id.epoch); got != sequence || err != nil {
				t.Errorf("Sequence of %v: %d, %v; not %d", id, got, err, sequence)
			}
		}
		if stored, err := s.Append(t.Context(), "a", report(1, 5, 3)); stored || err != nil {
			t.Errorf("a report that was stored before: %v, %v", stored, err)
		}
		if err := s.stop(); err != nil {
			t.Fatal(err)
		}
		s = start(t, Config{Dir: dir})
	}
}

// Two sessions of one agent may overlap; the second sends what the first is
// still waiting for.
func TestTheSameReportTwiceInOneCommitIsStoredOnce(t *testing.T) {
	s := start(t, Config{Dir: t.TempDir()})
	for sequence := uint64(1); sequence <= 20; sequence++ {
		var wg sync.WaitGroup
		var mu sync.Mutex
		times := 0
		for range 8 {
			wg.Go(func() {
				stored, err := s.Append(t.Context(), "a", report(1, sequence, 1))
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				if stored {
					times++
				}
			})
		}
		wg.Wait()
		if times != 1 {
			t.Fatalf("report %d was stored %d times", sequence, times)
		}
	}
	if n := len(all(t, s)); n != 20 {
		t.Errorf("%d entries, not 20", n)
	}
}

func TestConcurrentAgentsShareCommits(t *testing.T) {
	const agents, each = 50, 20
	s := start(t, Config{Dir: t.TempDir()})
	var wg sync.WaitGroup
	for a := range agents {
		wg.Go(func() {
			for sequence := uint64(1); sequence <= each; sequence++ {
				if stored, err := s.Append(t.Context(), fmt.Sprintf("agent-%d", a), report(1, sequence, 2)); err != nil || !stored {
					t.Error(stored, err)
				}
			}
		})
	}
	wg.Wait()
	st := s.Stats()
	if st.Reports != agents*each || st.Results != 2*agents*each || st.Commits >= agents*each/2 {
		t.Errorf("%+v", st)
	}
	next := map[string]uint64{}
	for e, err := range s.Scan(t.Context(), time.Time{}, time.Time{}, nil) {
		if err != nil {
			t.Fatal(err)
		}
		if next[e.Agent]++; next[e.Agent] != e.Report.GetSequence() {
			t.Fatalf("%s out of order: %d, not %d", e.Agent, e.Report.GetSequence(), next[e.Agent])
		}
	}
	if len(next) != agents {
		t.Errorf("%d agents", len(next))
	}
}

func TestAppendRefusesWhatItCannotStore(t *testing.T) {
	s := start(t, Config{Dir: t.TempDir()})
	huge := report(1, 1, 0)
	huge.Blocks[0].Address = make([]byte, maxReport)
	text := report(1, 1, 0)
	text.Blocks[0].Target = "\xff"
	for what, c := range map[string]struct {
		agent  string
		report *synmeshv1.Report
	}{
		"no report":              {"a", nil},
		"no sequence":            {"a", report(1, 0, 1)},
		"no agent":               {"", report(1, 1, 1)},
		"a long agent":           {strings.Repeat("a", 256), report(1, 1, 1)},
		"a huge report":          {"a", huge},
		"text that is not UTF-8": {"a", text},
	} {
		if stored, err := s.Append(t.Context(), c.agent, c.report); stored || !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v, %v", what, stored, err)
		}
	}
	add(t, s, strings.Repeat("a", 255), 1, 1)
	huge.Blocks[0].Address = make([]byte, maxReport-200)
	if stored, err := s.Append(t.Context(), "b", huge); !stored || err != nil {
		t.Error(stored, err)
	}
	if n := len(all(t, s)); n != 2 {
		t.Errorf("%d entries, not 2", n)
	}
}

func TestAppendGivesUpWithItsContext(t *testing.T) {
	s, err := Open(Config{Dir: t.TempDir()}) // and nobody runs it
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := s.Append(ctx, "a", report(1, 1, 1)); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	waiting := make(chan error)
	go func() {
		_, err := s.Append(t.Context(), "a", report(1, 2, 1))
		waiting <- err
	}()
	for len(s.waiting()) < 2 {
		time.Sleep(time.Millisecond)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-waiting; !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if !s.room.TryAcquire(maxWaiting) {
		t.Error("reports that are gone still take room")
	}
}

func (s *Store) waiting() []*pending {
	s.queue.mu.Lock()
	defer s.queue.mu.Unlock()
	return slices.Clone(s.queue.waiting)
}

func TestRunFinishesWhatWasAccepted(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	const n = 30
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if stored, err := s.Append(t.Context(), fmt.Sprint(i), report(1, 1, 1)); err != nil || !stored {
				t.Error(stored, err)
			}
		})
	}
	for len(s.waiting()) < n {
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Run(ctx); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if _, err := s.Append(t.Context(), "late", report(1, 1, 1)); !errors.Is(err, ErrClosed) {
		t.Errorf("Append after Run: %v", err)
	}
	if err := s.Run(t.Context()); err == nil {
		t.Error("Run can be called twice")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, err := range s.Scan(t.Context(), time.Time{}, time.Time{}, nil) {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("Scan after Close: %v", err)
		}
	}
	if _, err := s.Sequence("0", 1); !errors.Is(err, ErrClosed) {
		t.Errorf("Sequence after Close: %v", err)
	}
	if got := all(t, start(t, Config{Dir: dir})); len(got) != n {
		t.Errorf("%d reports after opening again, not %d", len(got), n)
	}
}

func TestCloseWaitsForRun(t *testing.T) {
	s := start(t, Config{Dir: t.TempDir()})
	add(t, s, "a", 1, 1) // Run is running
	if err := s.Close(); err == nil {
		t.Error("Close did not mind that Run is running")
	}
	add(t, s, "a", 1, 2)
	if err := errors.Join(s.stop(), s.Close()); err != nil {
		t.Error(err)
	}
}

func TestASecondStoreIsKeptOut(t *testing.T) {
	dir := t.TempDir()
	s := start(t, Config{Dir: dir})
	began := time.Now()
	_, err := Open(Config{Dir: dir, lockWait: 100 * time.Millisecond})
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), dir) {
		t.Errorf("the second: %v", err)
	}
	if d := time.Since(began); d > time.Second {
		t.Errorf("it took %v", d)
	}
	add(t, s, "a", 1, 1)
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	start(t, Config{Dir: dir})
}

func TestConfigIsChecked(t *testing.T) {
	for what, cfg := range map[string]Config{
		"no folder":          {},
		"negative retention": {Dir: t.TempDir(), Retention: -1},
		"a file":             {Dir: os.Args[0]},
	} {
		if s, err := Open(cfg); err == nil {
			t.Errorf("%s: no error", what)
			_ = s.Close()
		}
	}
	dir := t.TempDir() + "/new/folder"
	start(t, Config{Dir: dir})
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Error(info, err)
	}
}
