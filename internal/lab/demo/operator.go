//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/synmesh/synmesh/probe"
)

// operator types commands on a host of its own.
type operator struct {
	network *network
	out     io.Writer
}

// await waits until the controller knows its operator.
func (o *operator) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, connects)
	defer cancel()
	for {
		_, err := o.capture(ctx, "whoami")
		if err == nil {
			return nil
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("the controller has not started: %w", err)
		}
	}
}

// say shows a command and what it prints.
func (o *operator) say(ctx context.Context, args ...string) error {
	fmt.Fprintf(o.out, "\n$ probectl %s\n", quote(args))
	return o.run(ctx, o.out, args)
}

func (o *operator) capture(ctx context.Context, args ...string) (string, error) {
	var out bytes.Buffer
	err := o.run(ctx, &out, args)
	return out.String(), err
}

func (o *operator) run(ctx context.Context, out io.Writer, args []string) error {
	var complaints bytes.Buffer
	cmd := exec.CommandContext(ctx, filepath.Join(o.network.bin, "probectl"), args...)
	cmd.Stdout, cmd.Stderr = out, &complaints
	cmd.Env = append(os.Environ(), "PROBECTL_CONTROLLER="+o.network.controller(),
		"PROBECTL_CONTEXT="+filepath.Join(o.network.folder, "data", "operator.yaml"))
	if err := o.network.hosts["operator"].Start(cmd); err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("probectl %s: %w\n%s", quote(args), err, complaints.String())
	}
	return nil
}

func quote(args []string) string {
	var b strings.Builder
	for i, a := range args {
		if i > 0 {
			b.WriteByte(' ')
		}
		if strings.ContainsAny(a, " ()!") {
			a = "'" + a + "'"
		}
		b.WriteString(a)
	}
	return b.String()
}

// pair is two data centres.
type pair struct{ from, to string }

// roundTrips returns those of all results of the mesh, by data centres, in order.
func (o *operator) roundTrips(ctx context.Context) (map[pair][]time.Duration, error) {
	text, err := o.capture(ctx, "export", "mesh", "--since", "5m", "-o", "jsonl")
	if err != nil {
		return nil, err
	}
	all := make(map[pair][]time.Duration)
	for line := range strings.Lines(text) {
		var r probe.Result
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			return nil, fmt.Errorf("export: %w", err)
		}
		if r.Outcome == probe.Open {
			from, _, _ := strings.Cut(r.Agent, "-")
			to, _, _ := strings.Cut(r.Target, "-")
			all[pair{from, to}] = append(all[pair{from, to}], r.RTT)
		}
	}
	for _, rtts := range all {
		slices.Sort(rtts)
	}
	return all, nil
}

// judge compares what was measured between data centres with the delay that the network was given: the
// median may be off by 0.3 ms or 2 %, whichever is larger. It is that of single results, for a matrix has it within 1 %.
func (n *network) judge(out io.Writer, measured map[pair][]time.Duration) error {
	fmt.Fprintf(out, "\nWhat was measured against what the network was given:\n")
	wrong := 0
	for _, from := range centres {
		for _, to := range centres {
			rtts := measured[pair{from, to}]
			if len(rtts) == 0 {
				return fmt.Errorf("nothing was measured from %s to %s", from, to)
			}
			told := n.lab.RTT(n.hosts[from+"-1"], n.hosts[to+"-2"])
			median := rtts[(len(rtts)-1)/2]
			off, allowed := (median - told).Abs(), max(300*time.Microsecond, told/50)
			verdict := "ok"
			if off > allowed {
				verdict = "WRONG"
				wrong++
			}
			fmt.Fprintf(out, "  %s -> %s   told %5v   median %8.3fms of %4d   off by %5.3fms, allowed %5.3fms   %s\n",
				from, to, told, float64(median)/1e6, len(rtts), float64(off)/1e6, float64(allowed)/1e6, verdict)
		}
	}
	if wrong > 0 {
		return fmt.Errorf("%d of %d medians are off", wrong, len(centres)*len(centres))
	}
	return nil
}
