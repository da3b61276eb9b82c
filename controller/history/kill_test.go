//go:build unix

package history

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const killAgents = 8

func init() {
	children["append"] = appendForEver
}

// appendForEver goes on after what is stored, several agents at a time, and
// prints every report once it is acknowledged.
func appendForEver(dir string) error {
	r, err := run(Config{Dir: dir, Rotation: 5 * time.Millisecond}) // so that it is killed while it archives, too
	if err != nil {
		return err
	}
	var mu sync.Mutex
	failed := make(chan error, killAgents)
	for a := range killAgents {
		go func() {
			agent := fmt.Sprintf("agent-%d", a)
			sequence, err := r.Sequence(agent, 1)
			for err == nil {
				sequence++
				// Every other report is sent twice, as after a connection broken.
				for range 1 + sequence%2 {
					_, err = r.Append(context.Background(), agent, report(1, sequence, 20))
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

func TestNothingAcknowledgedIsLostOrDoubledByKill(t *testing.T) {
	dir := t.TempDir()
	acknowledged := map[string]uint64{}
	const rounds = 8
	for range rounds {
		cmd := exec.CommandContext(t.Context(), os.Args[0], dir)
		cmd.Env = append(os.Environ(), childEnv+"=append")
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
		_ = cmd.Wait() // it was killed
	}

	if !slices.ContainsFunc(fileNames(t, dir), func(n string) bool { return strings.HasPrefix(n, "raw-") }) {
		t.Error("nothing was archived: the test does not see what it is about")
	}
	s := start(t, Config{Dir: dir})
	stored, total := map[string]uint64{}, 0
	for e, err := range s.Scan(t.Context(), time.Time{}, time.Time{}, nil) {
		if err != nil {
			t.Fatal(err)
		}
		total++
		if stored[e.Agent]++; e.Report.GetSequence() != stored[e.Agent] {
			t.Fatalf("%s: report %d comes where %d should", e.Agent, e.Report.GetSequence(), stored[e.Agent])
		}
	}
	for a := range killAgents {
		agent := fmt.Sprintf("agent-%d", a)
		sequence, err := s.Sequence(agent, 1)
		if err != nil || sequence != stored[agent] || sequence < acknowledged[agent] || sequence > acknowledged[agent]+1 {
			t.Errorf("%s: %d acknowledged, %d stored, mark %d, %v", agent, acknowledged[agent], stored[agent], sequence, err)
		}
	}
	if st := s.Stats(); st.CorruptRecords+st.DamagedFiles != 0 {
		t.Errorf("%+v", st)
	}
	t.Logf("%d kills, %d reports", rounds, total)
}
