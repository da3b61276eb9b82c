//go:build unix

package history

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/synmesh/synmesh/probe"
	synmeshv1 "github.com/synmesh/synmesh/proto/synmesh/v1"
)

const (
	killAgents = 8
	// killResults is how many results a report of the children has.
	killResults = 20
)

// The children go on after what is stored, several agents at a time, until they are
// killed, and print every report once it is acknowledged.
func init() {
	for part, config := range killed {
		children[part] = func(dir string) error { return appendForEver(part, dir, config()) }
	}
}

const century = 100 * 365 * 24 * time.Hour

// killed is what is under way while the children are killed.
var killed = map[string]func() Config{
	// Commits, new files, and the making of the archive, of 12 parts at a time.
	"append": func() Config { return Config{Rotation: 5 * time.Millisecond} },
	// Every commit but some is of another hour: a new file each, and days that end.
	"midnight": func() Config {
		return Config{Rotation: 2 * time.Hour, Retention: century, MinuteRetention: century, HourRetention: century}
	},
	// Backups, one after the other, beside all that.
	"backup": func() Config { return Config{Rotation: 20 * time.Millisecond} },
}

// appendForEver is a child.
func appendForEver(part, dir string, cfg Config) error {
	cfg.Dir = dir
	var ahead atomic.Int64 // of the clock
	if part == "midnight" {
		cfg.now = func() time.Time { return time.Now().Add(time.Duration(ahead.Add(int64(20 * time.Minute)))) }
	}
	s, err := Open(cfg)
	if err != nil {
		return err
	}
	if last := int64(s.last) - time.Now().UnixNano(); last > 0 {
		ahead.Store(last)
	}
	failed := make(chan error, killAgents+2)
	go func() { failed <- s.Run(context.Background()) }()
	if part == "backup" {
		go func() { failed <- backUpForEver(s) }()
	}
	var mu sync.Mutex
	for a := range killAgents {
		go func() {
			agent := fmt.Sprintf("agent-%d", a)
			sequence, err := s.Sequence(agent, 1)
			for err == nil {
				sequence++
				// Every other report is sent twice, as after a connection broken.
				for range 1 + sequence%2 {
					_, err = s.Append(context.Background(), agent, killReport(sequence))
				}
				mu.Lock()
				fmt.Printf("%s %d\n", agent, sequence)
				mu.Unlock()
			}
			failed <- err
		}()
	}
	return <-failed
}

func backUpForEver(s *Store) (err error) {
	for err == nil {
		err = s.Backup(context.Background(), func(_ string, _ int64, content io.Reader) error {
			_, err := io.Copy(io.Discard, content)
			return err
		})
	}
	return err
}

// killReport makes a report of one of two series, of 1970.
func killReport(sequence uint64) *synmeshv1.Report {
	r := report(1, sequence, killResults)
	r.Blocks[0].Target = fmt.Sprint("target-", sequence%2)
	return r
}

// killOnce runs a child, kills it at some moment, and notes what it has acknowledged.
func killOnce(t *testing.T, part, dir string, acknowledged map[string]uint64) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], dir)
	cmd.Env = append(os.Environ(), childEnv+"="+part)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(out)
	var timer *time.Timer
	for {
		line, err := r.ReadBytes('\n')
		if err != nil { // and a line cut off has not been told to anybody
			break
		}
		if timer == nil {
			timer = time.AfterFunc(rand.N(150*time.Millisecond), func() { _ = cmd.Process.Kill() })
		}
		var agent string
		var sequence uint64
		if _, err := fmt.Fscan(bytes.NewReader(line), &agent, &sequence); err != nil {
			t.Fatal(err)
		}
		acknowledged[agent] = sequence
	}
	if err := cmd.Wait(); cmd.ProcessState.Exited() {
		t.Fatalf("the child ended by itself: %v", err)
	}
}

func TestNothingAcknowledgedIsLostOrDoubledByKill(t *testing.T) {
	for part, made := range map[string]string{"append": "raw-", "midnight": "hours-", "backup": "raw-"} {
		t.Run(part, func(t *testing.T) {
			dir := t.TempDir()
			acknowledged := map[string]uint64{}
			var unfinished, backups int
			n := rounds(6, 150)
			for round := range n {
				killOnce(t, part, dir, acknowledged)
				for _, name := range fileNames(t, dir) {
					if strings.HasSuffix(name, tmpSuffix) {
						unfinished++
					}
					if strings.HasPrefix(name, backupPrefix) {
						backups++
					}
				}
				if round%10 == 9 || round == n-1 {
					checkKilled(t, dir, killed[part](), acknowledged)
				}
			}
			if !slices.ContainsFunc(fileNames(t, dir), func(n string) bool { return strings.HasPrefix(n, made) }) {
				t.Error("nothing was archived: the test does not see what it is about")
			}
			if part == "backup" && backups == 0 {
				t.Error("no backup was under way: the test does not see what it is about")
			}
			t.Logf("%d kills, %d files unfinished, %d backups under way", n, unfinished, backups)
		})
	}
}

// checkKilled sees that everything acknowledged is there exactly once, by Scan and by Query.
func checkKilled(t *testing.T, dir string, cfg Config, acknowledged map[string]uint64) {
	t.Helper()
	cfg.Dir, cfg.noArchive = dir, true
	s := start(t, cfg)
	defer func() {
		if err := s.stop(); err != nil {
			t.Fatal(err)
		}
	}()
	for _, name := range fileNames(t, dir) {
		if strings.HasSuffix(name, tmpSuffix) || strings.HasPrefix(name, backupPrefix) || strings.HasSuffix(name, damagedSuffix) {
			t.Errorf("%s is left", name)
		}
	}
	stored := map[string]uint64{}
	for e, err := range s.Scan(t.Context(), time.Time{}, time.Time{}, nil) {
		if err != nil {
			t.Fatal(err)
		}
		if stored[e.Agent]++; e.Report.GetSequence() != stored[e.Agent] || countResults(e.Report) != killResults {
			t.Fatalf("%s: report %d of %d results comes where %d should", e.Agent, e.Report.GetSequence(), countResults(e.Report), stored[e.Agent])
		}
	}
	summed, single := queryKilled(t, s, 0), queryKilled(t, s, 61000)
	for a := range killAgents {
		agent := fmt.Sprintf("agent-%d", a)
		sequence, err := s.Sequence(agent, 1)
		if err != nil || sequence != stored[agent] || sequence < acknowledged[agent] || sequence > acknowledged[agent]+1 {
			t.Errorf("%s: %d acknowledged, %d stored, mark %d, %v", agent, acknowledged[agent], stored[agent], sequence, err)
		}
		if want := stored[agent] * killResults; summed[agent] != want || single[agent] != want {
			t.Errorf("%s: %d results by summaries, %d by themselves, not %d", agent, summed[agent], single[agent], want)
		}
		acknowledged[agent] = sequence // it is from now on
	}
	if st := s.Stats(); st.CorruptRecords+st.DamagedFiles != 0 {
		t.Errorf("%+v", st)
	}
	var bad []error
	if err := Check(t.Context(), dir, func(f Finding) {
		if !f.OK() {
			bad = append(bad, fmt.Errorf("%s: %d corrupt, %v", f.File, f.Corrupt, f.Err))
		}
	}); err != nil || len(bad) > 0 {
		t.Error(errors.Join(append(bad, err)...))
	}
}

// queryKilled returns how many results of each agent there are: of a port, which takes
// reading each of them, or of all.
func queryKilled(t *testing.T, s *running, port uint16) map[string]uint64 {
	t.Helper()
	answers, err := s.Query(t.Context(), Query{From: time.Unix(0, 0), To: time.Unix(0, 0).AddDate(1, 0, 0), LocalPort: port})
	if err != nil {
		t.Fatal(err)
	}
	sums := map[string]uint64{}
	for _, a := range answers {
		sums[a.Agent] += a.Steps[0].Counts[probe.Open]
	}
	return sums
}
