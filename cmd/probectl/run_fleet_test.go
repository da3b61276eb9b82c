//go:build linux

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/synmesh/synmesh/internal/lab"
	"github.com/synmesh/synmesh/probe"
)

// How busy the machine is decides how late programs are, so that what follows has to
// be so once in some tries. A start or a stop that is not as it should be never is.
const tries = 5

// Agents as far apart as continents begin at once.
func TestNearAndFarAgentsBeginARunTogether(t *testing.T) {
	delays := map[string]time.Duration{"ams": 20 * time.Millisecond, "nyc": 80 * time.Millisecond, "sin": 150 * time.Millisecond}
	f := newFarFleet(t, delays, "fra", "ams", "nyc", "sin")
	f.until("all clocks are known", func(out string) bool { return strings.Count(out, `"clock_error_seconds"`) == 4 }, "get", "agents", "-o", "jsonl")
	var apart time.Duration
	for range tries {
		first := make(map[string]time.Time)
		for _, r := range results(t, f.said("run", f.router.Addr4().String()+":9", "-c", "1", "-o", "jsonl", "--fail-if", "loss>99%")) {
			first[r.Agent] = r.Time
		}
		if len(first) != 4 {
			t.Fatalf("results of %v", first)
		}
		least, most := first["fra-1"], first["fra-1"]
		for _, at := range first {
			if at.Before(least) {
				least = at
			}
			if at.After(most) {
				most = at
			}
		}
		apart = most.Sub(least)
		t.Logf("the first SYNs were sent within %v", apart)
		if apart < 50*time.Millisecond {
			return
		}
	}
	t.Errorf("the agents began %v apart", apart)
}

// A client ends, is killed, or cannot be heard: no agent sends a SYN a second later.
func TestARunStopsWithinASecondOfItsClient(t *testing.T) {
	f := newFarFleet(t, map[string]time.Duration{"operator": 0, "sin": 150 * time.Millisecond}, "fra", "sin")
	link := f.links["operator"]
	for _, tt := range []struct {
		name string
		lose func(*exec.Cmd) error
	}{
		{"interrupted", func(c *exec.Cmd) error { return c.Process.Signal(os.Interrupt) }},
		{"killed", func(c *exec.Cmd) error { return c.Process.Kill() }},
		{"stopped", func(c *exec.Cmd) error { return c.Process.Signal(syscall.SIGSTOP) }},
		{"cut off", func(*exec.Cmd) error { return link.Set(lab.Impairment{Loss: 1}) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var stopped time.Duration
			for range tries {
				source, left := f.lose(tt.lose)
				must(t, link.Set(lab.Impairment{}))
				stopped = f.last(source).Sub(left)
				t.Logf("the last SYN was sent %v after the client was lost", stopped)
				if stopped < time.Second {
					return
				}
			}
			t.Errorf("the run went on for %v", stopped)
		})
	}
}

// lose begins a run, loses its client once both agents have results, and tells when.
func (f *fleet) lose(lose func(*exec.Cmd) error) (source string, left time.Time) {
	f.t.Helper()
	path := filepath.Join(f.t.TempDir(), "out")
	out, err := os.Create(path)
	must(f.t, err)
	defer out.Close()
	c := command(f.t, "probectl", "--controller", f.address(), "--context", f.context, "run", "fra-1", "-c", "0", "-i", "0.1", "-o", "jsonl")
	var complaints bytes.Buffer
	c.Stdout, c.Stderr = out, &complaints
	must(f.t, f.operator.Start(c))
	defer func() {
		_ = c.Process.Kill() // it may have ended
		_ = c.Wait()
	}()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		text, err := os.ReadFile(path)
		must(f.t, err)
		if strings.Contains(string(text), `"fra-1"`) && strings.Contains(string(text), `"sin-1"`) {
			line, _, _ := strings.Cut(string(text), "\n")
			source = results(f.t, line)[0].Source
			break
		}
		if time.Now().After(deadline) {
			f.t.Fatalf("no results came: %s", &complaints)
		}
	}
	left = time.Now()
	must(f.t, lose(c))
	time.Sleep(1500 * time.Millisecond) // in which the agents must not go on
	return source, left
}

// last returns when the last SYN of a run left.
func (f *fleet) last(source string) (at time.Time) {
	f.t.Helper()
	var last probe.Result
	for _, r := range results(f.t, f.said("get", "results", "--source", source, "-o", "jsonl")) {
		if r.Time.After(last.Time) {
			last = r
		}
	}
	return last.Time
}
