//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"time"

	"github.com/synmesh/synmesh/internal/lab"
	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/probe/engine"
)

// jobVariable holds the job in the environment of a child: this program, run
// again on a host of the lab, so that its processor time and memory are its own.
const jobVariable = "SYNMESH_BENCH_JOB"

// job is what a child is to probe.
type job struct {
	With     string // "engine", "connect", or "dial" for net.Dial
	Stamping engine.Stamping
	First    netip.Addr
	Targets  int // First and the addresses after it
	Flows    int // 0 is 1
	Count    int // in each flow
	Interval time.Duration
	Cores    int    // that may be used at a time; 0: all
	Keep     bool   // whether each probe's round trip is wanted
	Profile  string // the file for a CPU profile, if one is wanted
}

// found is what a child found.
type found struct {
	Probes   []timed
	Outcomes map[string]int
	Drops    uint64        // packets that the capture had no room for
	CPU      time.Duration // of the process, while it probed
	Resident int64         // bytes, at the end
}

// timed is a round trip as it was reported, and what it is recognised by in a
// capture: the sequence number of the SYN-ACK, or our port, or else its turn.
type timed struct {
	RTT  time.Duration
	Seq  uint32
	Port uint16
}

// childMain does the job that the environment asks for, if it does.
func childMain(out io.Writer) (ran bool, err error) {
	text, ok := os.LookupEnv(jobVariable)
	if !ok {
		return false, nil
	}
	var j job
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		return true, fmt.Errorf("read the job: %w", err)
	}
	do := map[string]func(job, *found) error{"engine": probeByEngine, "connect": probeByConnect, "dial": probeByDial}[j.With]
	if do == nil {
		return true, fmt.Errorf("nothing probes with %q", j.With)
	}
	if j.Cores > 0 {
		runtime.GOMAXPROCS(j.Cores)
	}
	f := found{Outcomes: make(map[string]int)}
	if j.Profile != "" {
		stop, err := profile(j.Profile)
		if err != nil {
			return true, err
		}
		defer func() { err = errors.Join(err, stop()) }()
	}
	if err := do(j, &f); err != nil {
		return true, err
	}
	if f.Resident, err = resident(); err != nil {
		return true, err
	}
	return true, json.NewEncoder(out).Encode(f)
}

// child has a child do the job on a host.
func child(ctx context.Context, on *lab.Node, j job) (found, *os.ProcessState, error) {
	var f found
	text, err := json.Marshal(j)
	if err != nil {
		return f, nil, err
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Env = append(os.Environ(), jobVariable+"="+string(text))
	out, err := output(on, cmd)
	if err != nil {
		return f, nil, err
	}
	if err := json.Unmarshal(out, &f); err != nil {
		return f, nil, fmt.Errorf("read what the child found: %w", err)
	}
	return f, cmd.ProcessState, nil
}

// output runs a command on a host and returns what it printed.
func output(on *lab.Node, cmd *exec.Cmd) ([]byte, error) {
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := on.Start(cmd); err != nil {
		return nil, err
	}
	if err := cmd.Wait(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", cmd.Path, err, bytes.TrimSpace(complaints.Bytes()[max(0, complaints.Len()-500):]))
	}
	return out.Bytes(), nil
}

func (j job) spec() probe.Spec {
	s := probe.Spec{Count: j.Count, Interval: j.Interval, Timeout: 2 * time.Second, Flows: max(j.Flows, 1)}
	for a := j.First; len(s.Targets) < j.Targets; a = a.Next() {
		s.Targets = append(s.Targets, probe.Target{Name: a.String(), Host: a.String(), Port: port})
	}
	return s
}

func probeByEngine(j job, f *found) (err error) {
	e, err := engine.New(engine.Config{Stamping: j.Stamping})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- e.Run(ctx) }()
	defer func() { cancel(); err = errors.Join(err, <-ran) }()
	err = f.measure(j.spec(), j.Keep, e.Do)
	f.Drops = e.Stats().Drops
	return err
}

// measure probes, and counts what it took.
func (f *found) measure(spec probe.Spec, keep bool, do func(context.Context, probe.Spec, func(*probe.Result)) error) error {
	before, err := processorTime()
	if err != nil {
		return err
	}
	err = do(context.Background(), spec, func(r *probe.Result) {
		what := r.Outcome.String()
		if r.Err != "" {
			what += ": " + r.Err
		}
		f.Outcomes[what]++
		if keep && r.Outcome == probe.Open {
			t := timed{RTT: r.RTT, Port: r.LocalPort}
			if r.SynAck != nil {
				t.Seq = r.SynAck.Seq
			}
			f.Probes = append(f.Probes, t)
		}
	})
	if err != nil {
		return err
	}
	after, err := processorTime()
	f.CPU = after - before
	return err
}
