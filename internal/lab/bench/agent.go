//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/synmesh/synmesh/internal/lab"
)

// warmUp is how long a fleet gets before it is measured: an agent that has just begun is collecting garbage.
const warmUp = 10 * time.Second

// fleet is a controller on the target host, and an enrolled agent on the other: the
// programs themselves, out of a folder.
type fleet struct {
	network *network
	bin     string
	folder  string
	agent   *program
	running []*program
}

type program struct {
	cmd    *exec.Cmd
	log    bytes.Buffer
	exited chan error
}

// startFleet has an agent measure so many targets once a second.
func startFleet(ctx context.Context, n *network, bin string, targets int) (f *fleet, err error) {
	f = &fleet{network: n, bin: bin}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.close())
		}
	}()
	if f.folder, err = os.MkdirTemp("", "synmesh-bench-"); err != nil {
		return f, err
	}
	if err := os.WriteFile(f.at("measurements.yaml"), []byte(f.measurement(targets)), 0o600); err != nil {
		return f, err
	}
	controller := n.to.Addr4().String()
	if _, err := f.start(n.to, "probe-controller", "--data", f.at("data"), "--advertise", controller, "--measurements", f.at("measurements.yaml")); err != nil {
		return f, err
	}
	if err := f.until(ctx, "the controller answers", func() error { return f.run(ctx, n.to, "probectl", f.as("whoami")...) }); err != nil {
		return f, err
	}
	if err := f.run(ctx, n.to, "probectl", f.as("token", "create", "--agent", "steady", "--token-file", f.at("token"))...); err != nil {
		return f, err
	}
	if err := f.run(ctx, n.from, "probe-agent", "enroll", "--controller", controller+":7400", "--token-file", f.at("token"), "--state", f.at("state")); err != nil {
		return f, err
	}
	f.agent, err = f.start(n.from, "probe-agent", "--controller", controller+":7400", "--join", controller+":7946", "--state", f.at("state"))
	return f, err
}

func (f *fleet) at(name string) string { return filepath.Join(f.folder, name) }

// as is a command of the operator's.
func (f *fleet) as(args ...string) []string {
	return append([]string{"--context", f.at("data/operator.yaml")}, args...)
}

func (f *fleet) measurement(targets int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "measurements:\n- name: steady\n  interval: 1s\n  budget: %d\n  targets:\n    targets:\n", targets)
	for a := firstTarget; targets > 0; a, targets = a.Next(), targets-1 {
		fmt.Fprintf(&b, "    - %s:%d\n", a, port)
	}
	return b.String()
}

func (f *fleet) start(on *lab.Node, name string, args ...string) (*program, error) {
	p := &program{cmd: exec.Command(filepath.Join(f.bin, name), args...), exited: make(chan error, 1)}
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	if err := on.Start(p.cmd); err != nil {
		return nil, fmt.Errorf("start %s, which `make build` makes: %w", name, err)
	}
	go func() { p.exited <- p.cmd.Wait() }()
	f.running = append(f.running, p)
	return p, nil
}

func (f *fleet) run(ctx context.Context, on *lab.Node, name string, args ...string) error {
	_, err := output(on, exec.CommandContext(ctx, filepath.Join(f.bin, name), args...))
	return err
}

// until tries until it works, for some seconds.
func (f *fleet) until(ctx context.Context, what string, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("waiting until %s: %w", what, err)
		}
	}
}

// stored is how many results the controller has stored lately, and how many of them are open.
func (f *fleet) stored(ctx context.Context, lately time.Duration) (open, all int, err error) {
	out, err := output(f.network.to, exec.CommandContext(ctx, filepath.Join(f.bin, "probectl"),
		f.as("get", "results", "--source", "measurements/steady", "--since", lately.String(), "-o", "jsonl")...))
	return bytes.Count(out, []byte(`"outcome":"open"`)), bytes.Count(out, []byte("\n")), err
}

// usage is the processor time of the agent so far, and its memory.
func (f *fleet) usage() (cpu time.Duration, resident int64, err error) {
	pid := f.agent.cmd.Process.Pid
	if cpu, err = processorTimeOf(pid); err != nil {
		return 0, 0, err
	}
	kib, err := field(fmt.Sprintf("/proc/%d/status", pid), "VmRSS:", 1)
	return cpu, kib << 10, err
}

func (f *fleet) close() error {
	var errs []error
	for _, p := range f.running {
		_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		select {
		case <-p.exited:
		case <-time.After(10 * time.Second):
			errs = append(errs, fmt.Errorf("%s does not end: %w", p.cmd.Path, p.cmd.Process.Kill()))
			<-p.exited
		}
	}
	if f.folder != "" {
		errs = append(errs, os.RemoveAll(f.folder))
	}
	return errors.Join(errs...)
}
