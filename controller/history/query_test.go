package history

import (
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/synmesh/synmesh/internal/convert"
	"github.com/synmesh/synmesh/probe"
)

// fed makes a store with some minutes of results of two agents, in many files of the intake, and
// returns the results.
func fed(t testing.TB, cfg Config, c *clock, seconds int) (*running, []probe.Result) {
	t.Helper()
	cfg.noArchive = true
	s := start(t, cfg)
	rnd := rand.New(rand.NewPCG(5, 6))
	var all []probe.Result
	for i := range uint64(seconds) {
		for a := range 2 {
			agent := fmt.Sprintf("agent-%04d", a)
			r := manySeries(rnd, c.now(), i+1, 4)
			for res := range convert.Rows(agent, r) {
				all = append(all, *res)
			}
			if stored, err := s.Append(t.Context(), agent, r); err != nil || !stored {
				t.Fatal(stored, err)
			}
		}
		c.add(time.Second)
	}
	return s, all
}

// summed lists answers as text, in order.
func summed(list []Answer) (lines []string) {
	for _, a := range list {
		for i, s := range a.Steps {
			if s != nil {
				lines = append(lines, fmt.Sprint(a.Series, a.LocalPort, i, s.Counts, s.Timed, s.Min, s.Max, s.Sum))
			}
		}
	}
	slices.Sort(lines)
	return lines
}

// expected sums results up as Query should, and keeps them.
func expected(all []probe.Result, q Query, from time.Time, step time.Duration) (lines []string, exact map[string]*probe.Summary) {
	type place struct {
		Series
		port uint16
		step int
	}
	sums := map[place]*probe.Summary{}
	total := map[place]time.Duration{}
	for _, r := range all {
		if r.Time.Before(from) || !r.Time.Before(q.To) || len(q.Agents) > 0 && !slices.Contains(q.Agents, r.Agent) ||
			len(q.Targets) > 0 && !slices.Contains(q.Targets, r.Target) || q.Source != "" && q.Source != r.Source ||
			q.WantsAgent != nil && !q.WantsAgent(r.Agent) || q.LocalPort != 0 && q.LocalPort != r.LocalPort {
			continue
		}
		as := Series{r.Source, r.Agent, r.Target}
		if q.Group != nil {
			var ok bool
			if as, ok = q.Group(as); !ok {
				continue
			}
		}
		p := place{Series: as, step: int(r.Time.Sub(from) / step)}
		if q.Flows {
			p.port = r.LocalPort
		}
		if sums[p] == nil {
			sums[p] = &probe.Summary{}
		}
		sums[p].Add(&r)
		if r.Timed() {
			total[p] += r.RTT
		}
	}
	exact = map[string]*probe.Summary{}
	for p, s := range sums {
		counts := []int{0}
		for _, o := range probe.Outcomes() {
			counts = append(counts, s.Count(o))
		}
		lines = append(lines, fmt.Sprint(p.Series, p.port, p.step, counts, s.Timed(), s.Quantile(0), s.Quantile(1), total[p]))
		exact[fmt.Sprint(p.Series, p.port, p.step)] = s
	}
	slices.Sort(lines)
	return lines, exact
}

// Queries give the same, and the truth, whatever of the results is in the intake,
// archived or merged.
func TestQueriesAreRightInEveryState(t *testing.T) {
	c := newClock("2026-11-20T11:57:30Z")
	cfg := Config{Dir: t.TempDir(), now: c.now, Rotation: 10 * time.Second}
	s, all := fed(t, cfg, c, 250)
	begin := time.Date(2026, 11, 20, 11, 57, 0, 0, time.UTC)
	queries := map[string]Query{
		"all, at once":             {From: begin, To: begin.Add(6 * time.Minute)},
		"from between minutes":     {From: begin.Add(90 * time.Second), To: begin.Add(3 * time.Minute)},
		"minute by minute":         {Source: "measurements/mesh", From: begin, To: begin.Add(6 * time.Minute), Step: time.Minute},
		"two hours, hour by hour":  {From: begin.Add(-57 * time.Minute), To: begin.Add(63 * time.Minute), Step: time.Hour},
		"one pair":                 {Source: "measurements/mesh", Agents: []string{"agent-0001"}, Targets: []string{"agent-0002"}, From: begin, To: begin.Add(2 * time.Hour)},
		"one target":               {Targets: []string{"agent-0002"}, From: begin, To: begin.Add(4 * time.Minute)},
		"seconds":                  {Agents: []string{"agent-0000"}, From: begin.Add(time.Minute), To: begin.Add(100 * time.Second), Step: 7 * time.Second},
		"flows":                    {Agents: []string{"agent-0000"}, From: begin, To: begin.Add(10 * time.Minute), Step: time.Minute, Flows: true},
		"agents by what they are":  {WantsAgent: func(name string) bool { return name > "agent-0000" }, From: begin, To: begin.Add(4 * time.Minute), Step: time.Minute},
		"nobody, by what they are": {WantsAgent: func(string) bool { return false }, From: begin, To: begin.Add(4 * time.Minute)},
		"one flow":                 {WantsAgent: func(name string) bool { return name > "agent-0000" }, LocalPort: 61007, From: begin, To: begin.Add(4 * time.Minute)},
		"groups": {From: begin, To: begin.Add(6 * time.Minute), Step: 2 * time.Minute, Group: func(id Series) (Series, bool) {
			return Series{Target: id.Target[len(id.Target)-1:]}, id.Agent != "agent-0001" || id.Target != "agent-0002"
		}},
		"nobody": {Agents: []string{"nobody"}, From: begin, To: begin.Add(time.Hour)},
	}
	check := func(when string) {
		t.Helper()
		for what, q := range queries {
			from, step := q.From, q.Step
			if !q.Flows && q.LocalPort == 0 && q.Step%time.Minute == 0 {
				from = from.Truncate(time.Minute)
			}
			if step == 0 {
				step = q.To.Sub(from)
			}
			want, exact := expected(all, q, from, step)
			answers, err := s.Query(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			if got := summed(answers); !slices.Equal(want, got) {
				t.Errorf("%s, %s:\n%s\nnot\n%s", when, what, strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			for _, a := range answers {
				for i, sum := range a.Steps {
					if sum == nil {
						continue
					}
					e := exact[fmt.Sprint(a.Series, a.LocalPort, i)]
					for _, quantile := range []float64{0.5, 0.9, 0.99} {
						if got, want := sum.Quantile(quantile), e.Quantile(quantile); math.Abs(float64(got-want)) > 0.01*float64(want)+1 {
							t.Errorf("%s, %s: the quantile %v is %v, not %v", when, what, quantile, got, want)
						}
					}
				}
			}
		}
	}
	check("in the intake")
	r := manySeries(rand.New(rand.NewPCG(7, 8)), c.now(), 1000, 4)
	if _, err := s.Append(t.Context(), "agent-0000", r); err != nil {
		t.Fatal(err)
	}
	for res := range convert.Rows("agent-0000", r) {
		all = append(all, *res)
	}
	check("in the intake, read on")
	if err := s.compact(t.Context(), s.finished()); err != nil {
		t.Fatal(err)
	}
	check("partly archived")
	for f := s.finished(); f != nil; f = s.finished() {
		if err := s.compact(t.Context(), f); err != nil {
			t.Fatal(err)
		}
	}
	check("archived")
	if err := s.mergeAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(fileNames(t, cfg.Dir), "minutes-20261120-1-12.db") || slices.Contains(fileNames(t, cfg.Dir), "hours-20261120-3-3.db") {
		t.Errorf("nothing was merged: %v", fileNames(t, cfg.Dir))
	}
	check("merged")
	// The day is over.
	c.add(24 * time.Hour)
	add(t, s, "late", 1, 1)
	if err := s.archiveAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	names := fileNames(t, cfg.Dir)
	if n := len(slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !strings.HasPrefix(n, "hours-") })); n != 1 {
		t.Errorf("the hours of a day that is over are in %d files: %v", n, names)
	}
	check("merged when the day was over")
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	s = start(t, cfg)
	check("opened again")
	if st := s.Stats(); st.CorruptRecords+st.DamagedFiles != 0 {
		t.Errorf("%+v", st)
	}
}

func TestQueriesThatCannotBeRightAreRefused(t *testing.T) {
	s := start(t, Config{Dir: t.TempDir()})
	now := time.Now()
	for what, q := range map[string]Query{
		"no time":        {},
		"ends before":    {From: now, To: now.Add(-time.Second)},
		"negative step":  {From: now.Add(-time.Hour), To: now, Step: -1},
		"too many steps": {From: now.Add(-time.Hour), To: now, Step: time.Millisecond},
	} {
		if _, err := s.Query(t.Context(), q); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// copyFiles copies files of a folder to another.
func copyFiles(t testing.TB, from, to string, names ...string) {
	t.Helper()
	for _, n := range names {
		in, err := os.Open(filepath.Join(from, n))
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		out, err := os.Create(filepath.Join(to, n))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(out, in); err != nil {
			t.Fatal(err)
		}
		if err := out.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Wherever a process is stopped between two steps of archiving and merging, the next
// finds everything once.
func TestACrashBetweenAnyTwoStepsLosesAndDoublesNothing(t *testing.T) {
	c := newClock("2026-11-20T12:00:00Z")
	cfg := Config{Dir: t.TempDir(), now: c.now, Rotation: 10 * time.Second}
	s, _ := fed(t, cfg, c, 140)
	q := Query{From: c.now().Add(-time.Hour), To: c.now().Add(time.Hour)}
	answer := func(s *running) []string {
		list, err := s.Query(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		return summed(list)
	}
	wantAnswer, wantRows := answer(s), rowsOf(t, entriesOf(t, s, Filter{}))
	before := t.TempDir()
	copyFiles(t, cfg.Dir, before, fileNames(t, cfg.Dir)...)
	for f := s.finished(); f != nil; f = s.finished() {
		if err := s.compact(t.Context(), f); err != nil {
			t.Fatal(err)
		}
	}
	archived := t.TempDir()
	copyFiles(t, cfg.Dir, archived, fileNames(t, cfg.Dir)...)
	if err := s.mergeAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	merged := t.TempDir()
	copyFiles(t, cfg.Dir, merged, fileNames(t, cfg.Dir)...)
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	first := "intake-20261120.db"
	part := []string{"hours-20261120-1-1.db", "minutes-20261120-1-1.db", "raw-20261120-1-1.db"}
	for what, prepare := range map[string]func(dir string){
		"the hours are named": func(dir string) {
			copyFiles(t, before, dir, fileNames(t, before)...)
			copyFiles(t, archived, dir, part[:1]...)
		},
		"hours and minutes are named": func(dir string) {
			copyFiles(t, before, dir, fileNames(t, before)...)
			copyFiles(t, archived, dir, part[:2]...)
		},
		"the intake is still there": func(dir string) {
			copyFiles(t, before, dir, fileNames(t, before)...)
			copyFiles(t, archived, dir, part...)
		},
		"all is archived but not deleted": func(dir string) {
			copyFiles(t, archived, dir, fileNames(t, archived)...)
			copyFiles(t, before, dir, first)
		},
		"merged but not deleted": func(dir string) {
			copyFiles(t, archived, dir, fileNames(t, archived)...)
			copyFiles(t, merged, dir, fileNames(t, merged)...)
		},
		"half of what was merged is left": func(dir string) {
			copyFiles(t, merged, dir, fileNames(t, merged)...)
			copyFiles(t, archived, dir, part[1])
		},
		"files half made": func(dir string) {
			copyFiles(t, before, dir, fileNames(t, before)...)
			for _, n := range part {
				if err := os.WriteFile(filepath.Join(dir, n+tmpSuffix), []byte("half"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		},
	} {
		t.Run(what, func(t *testing.T) {
			cfg := Config{Dir: t.TempDir(), now: c.now, Rotation: 10 * time.Second, noArchive: true}
			prepare(cfg.Dir)
			s := start(t, cfg)
			for range 2 {
				if got := answer(s); !slices.Equal(got, wantAnswer) {
					t.Errorf("%s\nnot\n%s", strings.Join(got, "\n"), strings.Join(wantAnswer, "\n"))
				}
				if got := rowsOf(t, entriesOf(t, s, Filter{})); !slices.Equal(got, wantRows) {
					t.Errorf("%d rows, not %d", len(got), len(wantRows))
				}
				if err := s.archiveAll(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			for _, n := range fileNames(t, cfg.Dir) {
				if strings.HasSuffix(n, tmpSuffix) || n == first {
					t.Errorf("%s is left", n)
				}
			}
		})
	}
}

// Damage in an archive file costs what it hits.
func TestDamageInTheArchiveCostsWhatItHits(t *testing.T) {
	c := newClock("2026-11-20T12:00:00Z")
	cfg := Config{Dir: t.TempDir(), now: c.now, Rotation: 10 * time.Second}
	s, all := fed(t, cfg, c, 60)
	if err := s.archiveAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	edit(t, cfg.Dir, "raw-20261120-1-1.db", func(b []byte) {
		at := strings.Index(string(b), "measurements/meshagent-0002")
		b[at+60] ^= 1
	})
	edit(t, cfg.Dir, "minutes-20261120-2-2.db", func(b []byte) { clear(b) })
	cfg.noArchive = true
	s = start(t, cfg)
	rows := 0
	for _, e := range entriesOf(t, s, Filter{}) {
		rows += int(countResults(e.Report))
	}
	if lost := len(all) - rows; lost != 10 {
		t.Errorf("%d results are lost, not the 10 of a series in a file", lost)
	}
	answers, err := s.Query(t.Context(), Query{From: c.now().Add(-time.Hour), To: c.now().Add(59 * time.Minute), Step: time.Minute})
	if err != nil || len(answers) != 8 {
		t.Error(len(answers), err)
	}
	if st := s.Stats(); st.CorruptRecords != 1 || st.DamagedFiles != 1 {
		t.Errorf("%+v", st)
	}
	if !slices.Contains(fileNames(t, cfg.Dir), "minutes-20261120-2-2.db.damaged") {
		t.Error(fileNames(t, cfg.Dir))
	}
}
