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

// links are the delays between the data centres, one way.
var links = []struct {
	a, b  string
	delay time.Duration
}{
	{"fra", "nyc", 9 * time.Millisecond},
	{"nyc", "sin", 26 * time.Millisecond},
	{"fra", "sin", 17 * time.Millisecond},
}

var centres = []string{"fra", "nyc", "sin"}

const (
	meshFor  = 15 * time.Second // how long the mesh measures before it is shown
	connects = 60 * time.Second // how long the fleet may take to gather
)

const measurements = `measurements:
- name: mesh
  mesh: {}
  interval: 0.2s
  timeout: 1s
`

// network is the lab with what runs in it.
type network struct {
	lab       *lab.Lab
	hosts     map[string]*lab.Node
	folder    string // for data and logs
	bin       string // where the programs are
	processes []*process
}

type process struct {
	name   string
	cmd    *exec.Cmd
	log    *bytes.Buffer
	exited chan error
}

// build makes the nodes: a router and two hosts in each data centre, the
// controller in Frankfurt, and the operator in New York.
func build() (n *network, err error) {
	n = &network{hosts: make(map[string]*lab.Node)}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.close(false))
		}
	}()
	self, err := os.Executable()
	if err != nil {
		return n, err
	}
	n.bin = filepath.Dir(self)
	if n.folder, err = os.MkdirTemp("", "synmesh-demo-"); err != nil {
		return n, err
	}
	if n.lab, err = lab.New(); err != nil {
		return n, err
	}
	routers := make(map[string]*lab.Node)
	for _, dc := range centres {
		if routers[dc], err = n.lab.Router(dc); err != nil {
			return n, err
		}
		hosts := []string{dc + "-1", dc + "-2"}
		switch dc {
		case "fra":
			hosts = append(hosts, "controller")
		case "nyc":
			hosts = append(hosts, "operator")
		}
		for _, name := range hosts {
			if n.hosts[name], err = n.lab.Host(name); err != nil {
				return n, err
			}
			if _, err = n.lab.Wire(n.hosts[name], routers[dc]); err != nil {
				return n, err
			}
		}
	}
	for _, l := range links {
		if _, err = n.lab.Link(routers[l.a], routers[l.b], lab.Impairment{Delay: l.delay}); err != nil {
			return n, err
		}
	}
	return n, n.lab.Route()
}

func (n *network) told() string {
	var parts []string
	for _, l := range links {
		parts = append(parts, fmt.Sprintf("%s-%s %v", l.a, l.b, 2*l.delay))
	}
	return strings.Join(parts, ", ")
}

func (n *network) controller() string { return n.hosts["controller"].Addr4().String() + ":7400" }

// startFleet starts the controller and the agents. Only fra-1 knows the
// controller; the others know fra-1, and learn the rest by gossip.
func (n *network) startFleet(ctx context.Context) error {
	plan := filepath.Join(n.folder, "measurements.yaml")
	if err := os.WriteFile(plan, []byte(measurements), 0o600); err != nil {
		return err
	}
	err := n.start("controller", "probe-controller", "--name", "controller", "--advertise",
		n.hosts["controller"].Addr4().String(), "--data", filepath.Join(n.folder, "data"), "--measurements", plan)
	if err != nil {
		return err
	}
	op := operator{network: n}
	if err := op.await(ctx); err != nil {
		return err
	}
	for _, dc := range centres {
		for _, name := range []string{dc + "-1", dc + "-2"} {
			if err := n.enrol(ctx, &op, name); err != nil {
				return err
			}
			seed := n.hosts["fra-1"]
			if name == "fra-1" {
				seed = n.hosts["controller"]
			}
			err := n.start(name, "probe-agent", "--label", "dc="+dc, "--join", seed.Addr4().String()+":7946",
				"--state", filepath.Join(n.folder, name))
			if err != nil {
				return err
			}
		}
	}
	return n.gathered(ctx)
}

// enrol gives an agent its certificate, as an operator and the agent's host do it.
func (n *network) enrol(ctx context.Context, op *operator, name string) error {
	token := filepath.Join(n.folder, name+".token")
	if _, err := op.capture(ctx, "token", "create", "--agent", name, "--token-file", token); err != nil {
		return err
	}
	var complaints bytes.Buffer
	cmd := exec.CommandContext(ctx, filepath.Join(n.bin, "probe-agent"), "enroll", "--controller", n.controller(),
		"--token-file", token, "--state", filepath.Join(n.folder, name))
	cmd.Stderr = &complaints
	if err := n.hosts[name].Start(cmd); err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("enrol %s: %w\n%s", name, err, complaints.String())
	}
	return nil
}

func (n *network) start(host, program string, args ...string) error {
	p := &process{name: host, log: &bytes.Buffer{}, exited: make(chan error, 1)}
	p.cmd = exec.Command(filepath.Join(n.bin, program), args...)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := n.hosts[host].Start(p.cmd); err != nil {
		return fmt.Errorf("start %s on %s: %w", program, host, err)
	}
	go func() { p.exited <- p.cmd.Wait() }()
	n.processes = append(n.processes, p)
	return nil
}

// gathered waits until every agent is connected.
func (n *network) gathered(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, connects)
	defer cancel()
	want := 2 * len(centres)
	for {
		op := operator{network: n}
		names, err := op.capture(ctx, "get", "agents", "-o", "jsonl")
		if err == nil && strings.Count(names, `"state":"connected"`) == want {
			return nil
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("not all of the %d agents have connected within %v: %w\n%s", want, connects, context.Cause(ctx), names)
		}
	}
}

// close ends the processes, gently first, and shows their logs if it went wrong.
func (n *network) close(failed bool) error {
	for _, p := range n.processes {
		_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	}
	patience := time.After(5 * time.Second)
	for _, p := range n.processes {
		select {
		case <-p.exited:
		case <-patience:
			patience = time.After(0)
		}
		if failed {
			fmt.Fprintf(os.Stderr, "--- %s\n%s", p.name, p.log)
		}
	}
	var errs []error
	if n.lab != nil {
		errs = append(errs, n.lab.Close())
	}
	if n.folder != "" {
		errs = append(errs, os.RemoveAll(n.folder))
	}
	return errors.Join(errs...)
}
