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
	"strings"
	"time"
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

// cell is a cell of the matrix, as probectl writes it.
type cell struct {
	Row    string  `json:"row"`
	Column string  `json:"column"`
	Sent   int     `json:"sent"`
	Open   int     `json:"open"`
	P50    float64 `json:"p50_seconds"`
}

func (o *operator) matrix(ctx context.Context, args ...string) ([]cell, error) {
	text, err := o.capture(ctx, args...)
	if err != nil {
		return nil, err
	}
	var cells []cell
	if err := json.Unmarshal([]byte(text), &cells); err != nil {
		return nil, fmt.Errorf("matrix: %w", err)
	}
	return cells, nil
}

// judge compares every cell with the delay that the network was given: the
// median may be off by 0.3 ms or 2 %, whichever is larger.
func (n *network) judge(out io.Writer, cells []cell) error {
	if want := len(centres) * len(centres); len(cells) != want {
		return fmt.Errorf("the matrix has %d cells; %d are wanted", len(cells), want)
	}
	fmt.Fprintf(out, "\nWhat was measured against what the network was given:\n")
	wrong := 0
	for _, c := range cells {
		told := n.lab.RTT(n.hosts[c.Row+"-1"], n.hosts[c.Column+"-2"])
		median := time.Duration(c.P50 * 1e9)
		off, allowed := (median - told).Abs(), max(300*time.Microsecond, told/50)
		verdict := "ok"
		if off > allowed || c.Open == 0 {
			verdict = "WRONG"
			wrong++
		}
		fmt.Fprintf(out, "  %s -> %s   told %5v   median %8.3fms of %4d   off by %5.3fms, allowed %5.3fms   %s\n",
			c.Row, c.Column, told, float64(median)/1e6, c.Open, float64(off)/1e6, float64(allowed)/1e6, verdict)
	}
	if wrong > 0 {
		return fmt.Errorf("%d of %d medians are off", wrong, len(cells))
	}
	return nil
}
