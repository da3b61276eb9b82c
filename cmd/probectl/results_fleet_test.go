//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/synmesh/synmesh/probe"
)

// measure has a fleet measure, and returns when all agents do.
func (f *fleet) measure(name, spec string) {
	f.t.Helper()
	file := filepath.Join(f.t.TempDir(), "measurements.yaml")
	must(f.t, os.WriteFile(file, []byte("measurements:\n- name: "+name+"\n"+spec), 0o600))
	if _, stderr, code := f.probectl("apply", "-f", file); code != 0 {
		f.t.Fatalf("exit code %d: %s", code, stderr)
	}
}

// watch starts probectl watch, which writes to a file.
func (f *fleet) watch(file string, args ...string) *exec.Cmd {
	f.t.Helper()
	out, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	must(f.t, err)
	defer out.Close()
	c := command(f.t, "probectl", append([]string{"--controller", f.address(), "--context", f.context, "watch"}, args...)...)
	c.Stdout = out
	must(f.t, f.operator.Start(c))
	f.t.Cleanup(func() { _ = c.Process.Kill() }) // it has ended, if all went well
	return c
}

// interrupted ends a command as Ctrl-C does.
func interrupted(t *testing.T, c *exec.Cmd) {
	t.Helper()
	must(t, c.Process.Signal(os.Interrupt))
	_ = c.Wait() // the exit code tells
	if code := c.ProcessState.ExitCode(); code != exitInterrupted {
		t.Errorf("exit code %d, want 130", code)
	}
}

// grows waits until the file has so many lines more.
func grows(t *testing.T, file string, lines int) {
	t.Helper()
	count := func() int {
		text, err := os.ReadFile(file)
		must(t, err)
		return bytes.Count(text, []byte("\n"))
	}
	goal := count() + lines
	for deadline := time.Now().Add(90 * time.Second); count() < goal; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d lines, want %d", count(), goal)
		}
	}
}

// kept is what of a result is the same before and after it is archived, in microseconds but for the round trip.
func kept(r *probe.Result) string {
	return fmt.Sprint(r.Time.UnixMicro(), r.Agent, r.Source, r.Target, r.LocalPort, r.Outcome, r.RTT, r.Lateness.Microseconds())
}

// A watch goes on through the death of its controller and its own end, and has everything once.
func TestAWatchHasEverythingOnce(t *testing.T) {
	f := newFleet(t, "fra", "nyc")
	file, cursor := filepath.Join(t.TempDir(), "watched.jsonl"), filepath.Join(t.TempDir(), "cursor")
	data := filepath.Dir(f.context)
	watch := f.watch(file, "mesh", "-o", "jsonl", "--cursor-file", cursor)
	f.until("the watch has begun", func(string) bool { _, err := os.Stat(cursor); return err == nil }, "whoami")
	f.measure("mesh", "  mesh: {}\n  interval: 0.1s\n")
	grows(t, file, 20)

	must(t, f.killController())
	f.start(f.controller, "controller", data)
	grows(t, file, 20)
	interrupted(t, watch)
	watch = f.watch(file, "mesh", "-o", "jsonl", "--cursor-file", cursor)
	grows(t, file, 20)

	if _, stderr, code := f.probectl("delete", "measurement", "mesh"); code != 0 {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	stored := f.settled("mesh")
	watched := f.all(file, len(results(t, stored)))
	interrupted(t, watch)
	counts := make(map[string]int)
	for _, r := range watched {
		counts[kept(&r)]++
	}
	for _, r := range results(t, stored) {
		if counts[kept(&r)] != 1 {
			t.Errorf("watched %d times: %+v", counts[kept(&r)], r)
		}
	}
	if len(counts) != len(results(t, stored)) {
		t.Errorf("watched %d results, and %d are stored", len(counts), len(results(t, stored)))
	}
	f.summedUp(results(t, stored))
	f.exported(results(t, stored))
}

// settled waits until the agents are back and have handed over all, and nothing more is measured.
// Then it returns what is stored, as JSON lines.
func (f *fleet) settled(measurement string) string {
	f.t.Helper()
	last := ""
	for deadline := time.Now().Add(90 * time.Second); ; time.Sleep(time.Second) { // ten intervals
		agents, _, _ := f.probectl("get", "agents", "-o", "jsonl")
		stored, _, _ := f.probectl("export", measurement)
		if stored == last && strings.Count(agents, `"state":"connected"`) == len(f.agents) && strings.Count(agents, `"backlog":0,`) == len(f.agents) {
			return stored
		}
		if time.Now().After(deadline) {
			f.t.Fatalf("%d bytes are stored, before that %d; agents: %s", len(stored), len(last), agents)
		}
		last = stored
	}
}

// all waits until a file has so many results, and returns them.
func (f *fleet) all(file string, n int) []probe.Result {
	f.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		text, err := os.ReadFile(file)
		must(f.t, err)
		if lines := bytes.Count(text, []byte("\n")); lines >= n || time.Now().After(deadline) {
			return results(f.t, string(text))
		}
	}
}

// killController ends it as a power cut does.
func (f *fleet) killController() error {
	if err := f.controllerProcess.Process.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	_ = f.controllerProcess.Wait() // it was killed
	return nil
}

// summedUp compares what probectl history says with single results.
func (f *fleet) summedUp(rs []probe.Result) {
	f.t.Helper()
	sums := make(map[string]*probe.Summary)
	for _, r := range rs {
		key := r.Agent + " to " + r.Target
		if sums[key] == nil {
			sums[key] = &probe.Summary{}
		}
		sums[key].Add(&r)
	}
	stdout, stderr, code := f.probectl("history", "mesh", "--quantiles", "0.5", "-o", "csv")
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	if code != 0 || len(lines) != len(sums)+1 {
		f.t.Fatalf("exit code %d, %s\n%s", code, stderr, stdout)
	}
	names := strings.Split(lines[0], ",")
	for _, line := range lines[1:] {
		v := make(map[string]string)
		for i, text := range strings.Split(line, ",") {
			v[names[i]] = text
		}
		s := sums[v["agent"]+" to "+v["target"]]
		if s == nil {
			f.t.Fatalf("nobody measured %q", line)
		}
		if v["sent"] != strconv.Itoa(s.Sent()) || v["open"] != strconv.Itoa(s.Count(probe.Open)) || v["min_seconds"] != decimal(int64(s.Quantile(0))) || v["max_seconds"] != decimal(int64(s.Quantile(1))) {
			f.t.Errorf("history says %q of %d results with %d open, %v to %v", line, s.Sent(), s.Count(probe.Open), s.Quantile(0), s.Quantile(1))
		}
		p50, err := strconv.ParseFloat(v["p50_seconds"], 64)
		if exact := s.Quantile(0.5).Seconds(); err != nil || p50 < exact*0.98 || p50 > exact*1.02 {
			f.t.Errorf("the median of %s is %v, and by hand %v", line, p50, exact)
		}
	}
}

// exported compares Parquet and CSV with single results, and selects by labels of both ends.
func (f *fleet) exported(rs []probe.Result) {
	f.t.Helper()
	name := filepath.Join(f.t.TempDir(), "mesh.parquet")
	_, stderr, code := f.probectl("export", "mesh", "-o", "parquet", "--file", name)
	if code != 0 || stderr != fmt.Sprintf("%d results are in %s\n", len(rs), name) {
		f.t.Fatalf("exit code %d: %s", code, stderr)
	}
	content, err := os.ReadFile(name)
	must(f.t, err)
	rows, _, err := readParquet(content)
	must(f.t, err)
	if len(rows) != len(rs) {
		f.t.Fatalf("%d rows, want %d", len(rows), len(rs))
	}
	for i, r := range rs {
		for _, c := range resultColumns {
			if want := c.kind.show(c.of(&r)); rows[i][c.name] != want {
				f.t.Fatalf("row %d: %s is %q, want %q", i, c.name, rows[i][c.name], want)
			}
		}
	}
	f.laidOut()
	some, stderr, code := f.probectl("export", "mesh", "--from", "dc=fra", "--to", "dc=nyc")
	want := slices.DeleteFunc(slices.Clone(rs), func(r probe.Result) bool { return r.Agent != "fra-1" || r.Target != "nyc-1" })
	if got := results(f.t, some); code != 0 || len(got) != len(want) || len(want) == 0 {
		f.t.Errorf("exit code %d, %d results from fra to nyc, want %d: %s", code, len(got), len(want), stderr)
	}
}

// laidOut compares the forms of a matrix with each other.
func (f *fleet) laidOut() {
	f.t.Helper()
	ask := []string{"matrix", "mesh", "--by", "dc", "--columns", "dc", "--window", "1h", "-o"}
	file, stderr, code := f.probectl(append(ask, "parquet")...)
	rows, _, err := readParquet([]byte(file))
	if code != 0 || err != nil || len(rows) != 2 {
		f.t.Fatalf("exit code %d, %d cells, %v: %s", code, len(rows), err, stderr)
	}
	csv, _, _ := f.probectl(append(ask, "csv")...)
	if rows[0]["row"] != "fra" || rows[0]["column"] != "nyc" || rows[0]["sent"] == "0" || rows[0]["p50_seconds"] == "" ||
		!strings.HasPrefix(csv, "from_\\_to,fra,nyc\nfra,-,") {
		f.t.Errorf("got %q, and as CSV %q", rows, csv)
	}
}
