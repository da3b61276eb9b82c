//go:build linux

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// until runs a command until what it prints is as wanted.
func (f *fleet) until(what string, right func(stdout string) bool, args ...string) string {
	f.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		stdout, stderr, code := f.probectl(args...)
		if code == 0 && right(stdout) {
			return stdout
		}
		if time.Now().After(deadline) {
			f.t.Fatalf("%s: exit code %d, stdout %q, stderr %q", what, code, stdout, stderr)
		}
	}
}

// What is applied is probed, and what is deleted is not.
func TestAFleetMeasuresWhatIsAppliedAndNoLongerWhatIsDeleted(t *testing.T) {
	f := newFleet(t, "fra", "nyc", "sin")
	file := filepath.Join(t.TempDir(), "measurements.yaml")
	must(t, os.WriteFile(file, []byte("measurements:\n- name: mesh\n  sources: '!sin-1'\n  mesh: {between: dc}\n  interval: 0.2s\n  jitter: 0.5\n"), 0o600))
	if stdout, stderr, code := f.probectl("apply", "-f", file); code != 0 || stdout != "measurement/mesh created\n" {
		t.Fatalf("exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	results := []string{"get", "results", "--source", "measurements/mesh", "--since", "10m", "-o", "csv"}
	all := f.until("every pair is probed", func(out string) bool {
		for _, pair := range []string{"fra-1,measurements/mesh,nyc-1", "fra-1,measurements/mesh,sin-1", "nyc-1,measurements/mesh,fra-1", "nyc-1,measurements/mesh,sin-1"} {
			if !strings.Contains(out, pair) {
				return false
			}
		}
		return true
	}, results...)
	if strings.Contains(all, "sin-1,measurements/mesh,") {
		t.Errorf("sin-1 is no source and probes:\n%s", all)
	}
	f.until("the agent is described", func(out string) bool {
		return strings.Contains(out, "\nmesh                2      200ms       1         10\n")
	},
		"describe", "agent", "fra-1")
	if stdout, stderr, code := f.probectl("delete", "measurement", "mesh"); code != 0 || stdout != "measurement/mesh deleted\n" {
		t.Fatalf("exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	// Deleted measurements are probed on until agents hear of it; then no more comes.
	last := -1
	f.until("nothing more is measured", func(out string) bool {
		n := strings.Count(out, "\n")
		defer func() { last = n }()
		time.Sleep(time.Second) // five intervals
		return n == last
	}, results...)
}
