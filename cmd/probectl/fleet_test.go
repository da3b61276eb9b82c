//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/synmesh/synmesh/agent"
	"github.com/synmesh/synmesh/controller"
	"github.com/synmesh/synmesh/controller/api/apitest"
	"github.com/synmesh/synmesh/internal/identity"
	"github.com/synmesh/synmesh/internal/identity/contexts"
	"github.com/synmesh/synmesh/internal/lab"
	"github.com/synmesh/synmesh/probe"
)

func init() {
	programs["agent"] = func() error {
		cfg := agent.Config{Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
			Controllers: []string{os.Args[1]}, Labels: map[string]string{"dc": os.Args[2]}, StateDir: os.Args[3]}
		a, err := agent.New(cfg)
		if err != nil {
			return err
		}
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		return a.Run(ctx)
	}
	programs["enroll"] = func() error {
		token, err := identity.ParseToken(os.Args[2])
		if err != nil {
			return err
		}
		_, err = agent.Enrol(context.Background(), agent.EnrolConfig{Controller: os.Args[1], Token: token, StateDir: os.Args[3]})
		return err
	}
	programs["controller"] = func() error {
		cfg := controller.Config{Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)), Name: "controller", DataDir: os.Args[1]}
		cfg.Gossip.Listen = netip.MustParseAddrPort("127.0.0.1:0")
		c, err := controller.New(cfg)
		if err != nil {
			return err
		}
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		return c.Run(ctx)
	}
}

// fleet is a controller, agents and an operator on hosts around one router.
type fleet struct {
	t          *testing.T
	lab        *lab.Lab
	router     *lab.Node
	operator   *lab.Node
	controller *lab.Node

	controllerProcess *exec.Cmd

	agents  map[string]*exec.Cmd
	hosts   map[string]*lab.Node
	states  map[string]string // folders
	context string            // the operator's file
	links   map[string]*lab.Link
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newFleet starts a controller and an agent for each data centre named.
func newFleet(t *testing.T, centres ...string) *fleet {
	t.Helper()
	return newFarFleet(t, nil, centres...)
}

// newFarFleet is newFleet with some hosts at the end of a link with a delay.
func newFarFleet(t *testing.T, delays map[string]time.Duration, centres ...string) *fleet {
	t.Helper()
	l, err := lab.New()
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	f := &fleet{t: t, lab: l, agents: make(map[string]*exec.Cmd), hosts: make(map[string]*lab.Node), states: make(map[string]string), links: make(map[string]*lab.Link)}
	f.router, err = l.Router("router")
	must(t, err)
	f.operator, f.controller = f.host("operator", delays), f.host("controller", delays)
	for _, dc := range centres {
		f.hosts[dc] = f.host(dc, delays)
	}
	must(t, l.Route())
	data := t.TempDir()
	f.context = filepath.Join(data, "operator.yaml")
	f.controllerProcess = f.start(f.controller, "controller", data)
	f.until("the controller answers", func(string) bool { return true }, "whoami")
	for _, dc := range centres {
		f.states[dc] = t.TempDir()
		f.enrol(dc)
		f.agents[dc] = f.start(f.hosts[dc], "agent", f.address(), dc, f.states[dc])
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		out, _, _ := f.probectl("get", "agents", "-o", "jsonl")
		if strings.Count(out, `"state":"connected"`) == len(centres) {
			return f
		}
		if time.Now().After(deadline) {
			t.Fatalf("the fleet has not gathered: %s", out)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// enrol uses up a new token for the state of an agent.
func (f *fleet) enrol(dc string) {
	f.t.Helper()
	token, stderr, code := f.probectl("token", "create", "--agent", dc+"-1")
	if code != 0 {
		f.t.Fatalf("exit code %d: %s", code, stderr)
	}
	c := command(f.t, "enroll", f.address(), strings.TrimSpace(token), f.states[dc])
	must(f.t, f.hosts[dc].Start(c))
	must(f.t, c.Wait())
}

func (f *fleet) address() string { return net.JoinHostPort(f.controller.Addr4().String(), "7400") }

func (f *fleet) host(name string, delays map[string]time.Duration) *lab.Node {
	f.t.Helper()
	n, err := f.lab.Host(name)
	must(f.t, err)
	if delay, ok := delays[name]; ok {
		f.links[name], err = f.lab.Link(n, f.router, lab.Impairment{Delay: delay})
	} else {
		_, err = f.lab.Wire(n, f.router)
	}
	must(f.t, err)
	return n
}

func (f *fleet) start(on *lab.Node, program string, args ...string) *exec.Cmd {
	f.t.Helper()
	c := command(f.t, program, args...)
	must(f.t, on.Start(c))
	f.t.Cleanup(func() {
		_ = c.Process.Signal(syscall.SIGTERM) // it may have ended
		_ = c.Wait()
	})
	return c
}

// command is the test binary as one of the programs.
func command(t *testing.T, program string, args ...string) *exec.Cmd {
	self, err := os.Executable()
	must(t, err)
	c := exec.Command(self, args...)
	c.Env = append(os.Environ(), asProgram+"="+program, "XDG_CONFIG_HOME="+t.TempDir())
	c.Stderr = os.Stderr
	return c
}

// probectl runs a command on the operator's host.
func (f *fleet) probectl(args ...string) (stdout, stderr string, code int) {
	f.t.Helper()
	return runOn(f.t, f.operator, append([]string{"--controller", f.address(), "--context", f.context}, args...)...)
}

func runOn(t *testing.T, n *lab.Node, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	c := command(t, "probectl", args...)
	var out, complaints bytes.Buffer
	c.Stdout, c.Stderr = &out, &complaints
	must(t, n.Start(c))
	kill := time.AfterFunc(time.Minute, func() { _ = c.Process.Kill() })
	defer kill.Stop()
	err := c.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), complaints.String(), c.ProcessState.ExitCode()
}

func results(t *testing.T, jsonl string) []probe.Result {
	t.Helper()
	var rs []probe.Result
	for line := range strings.Lines(jsonl) {
		var r probe.Result
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		rs = append(rs, r)
	}
	return rs
}

func TestAHostAloneMeasuresItself(t *testing.T) {
	l, err := lab.New()
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	host, err := l.Host("alone")
	must(t, err)
	var listener net.Listener
	must(t, host.Do(func() (err error) { listener, err = net.Listen("tcp", "127.0.0.1:0"); return err }))
	defer listener.Close()
	stdout, stderr, code := runOn(t, host, "run", listener.Addr().String(), "-c", "5", "-i", "10ms", "-o", "jsonl")
	if code != 0 || !strings.Contains(stderr, "probing from this host") {
		t.Fatalf("exit code %d, stderr %q", code, stderr)
	}
	rs := results(t, stdout)
	if len(rs) != 5 {
		t.Fatalf("%d objects, want 5:\n%s", len(rs), stdout)
	}
	for i, r := range rs {
		if r.Outcome != probe.Open || r.Stamp != probe.StampKernel || r.RTT <= 0 || r.SynAck == nil || r.Target != listener.Addr().String() {
			t.Errorf("result %d: %+v", i, r)
		}
	}
	for _, field := range []string{"time", "agent", "target", "remote", "local_port", "outcome", "rtt_seconds", "attempts",
		"stamp", "lateness_seconds", "host_delay_seconds", "syn", "syn_ack", "window", "mss", "window_scale", "sack_permitted", "timestamps", "ttl"} {
		if n := strings.Count(stdout, `"`+field+`":`); n != 5 {
			t.Errorf("field %s is there %d times", field, n)
		}
	}
	if _, _, code := runOn(t, host, "run", "127.0.0.1:9", "-c", "2", "-i", "10ms", "--fail-if", "max>1ns"); code != 1 {
		t.Errorf("a broken threshold: exit code %d, want 1", code)
	}
	if _, stderr, code := runOn(t, host, "run", "10.99.0.1:9", "-c", "1"); code != 1 || !strings.Contains(stderr, "no probe was answered: 1 error") {
		t.Errorf("nothing answered: exit code %d, stderr %q", code, stderr)
	}
}

func TestARunGoesFromTheKeyboardToTheHistoryAndBack(t *testing.T) {
	f := newFleet(t, "fra", "nyc")
	stdout, stderr, code := f.probectl("run", "fra-1", f.router.Addr4().String()+":9", "--from", "dc=nyc", "-c", "3", "-i", "0.2", "-o", "jsonl")
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	shown := results(t, stdout)
	if len(shown) != 6 {
		t.Fatalf("%d results, want 6: %s", len(shown), stdout)
	}
	for _, r := range shown {
		want := probe.Open
		if r.Target != "fra-1" {
			want = probe.Closed
		}
		if r.Agent != "nyc-1" || r.Outcome != want || r.RTT <= 0 {
			t.Errorf("%+v", r)
		}
	}
	stored, _, code := f.probectl("get", "results", "--source", shown[0].Source, "-o", "jsonl")
	if code != 0 || stored != stdout {
		t.Errorf("exit code %d; stored:\n%s\nshown:\n%s", code, stored, stdout)
	}
}

func TestAnAgentKilledInARunIsNamedAndTheRunEnds(t *testing.T) {
	f := newFleet(t, "fra", "nyc", "sin")
	began := time.Now()
	killed := time.AfterFunc(time.Second, func() { _ = f.agents["nyc"].Process.Kill() })
	defer killed.Stop()
	stdout, stderr, code := f.probectl("run", "fra-1", "-c", "20", "-i", "0.2", "-o", "jsonl")
	if code != 4 {
		t.Errorf("exit code %d, want 4", code)
	}
	if !strings.Contains(stderr, "agent nyc-1: it was lost: its session ended in the middle of the run") {
		t.Errorf("the agent is not named: %q", stderr)
	}
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("the run took %v", took)
	}
	count := make(map[string]int)
	for _, r := range results(t, stdout) {
		count[r.Agent]++
	}
	if count["fra-1"] != 20 || count["sin-1"] != 20 || count["nyc-1"] == 0 || count["nyc-1"] == 20 {
		t.Errorf("results: %v", count)
	}
}

func TestAControllerThatIsNotThereIsReportedInTime(t *testing.T) {
	l, err := lab.New()
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	someone := filepath.Join(t.TempDir(), "someone.yaml")
	text, err := contexts.Context{State: state(apitest.NewMembers(t), "someone")}.Encode()
	must(t, err)
	must(t, identity.WriteFile(someone, text))
	operator, err := l.Host("operator")
	must(t, err)
	controller, err := l.Host("controller")
	must(t, err)
	_, err = l.Link(operator, controller, lab.Impairment{Loss: 1})
	must(t, err)
	must(t, l.Route())
	for name, address := range map[string]string{
		"refused": "127.0.0.1:7400", "silent": controller.Addr4().String() + ":7400", "no such name": "controller.invalid:7400",
	} {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			_, stderr, code := runOn(t, operator, "--controller", address, "--context", someone, "run", "10.0.0.1:9")
			if code != 3 || !strings.Contains(stderr, "see that probe-controller runs there") {
				t.Errorf("exit code %d, stderr %q", code, stderr)
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

func TestWhatTheControllerRefusesIsAUsageError(t *testing.T) {
	f := newFleet(t, "fra")
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"run", "nobody"}, `target "nobody": no port; write nobody:443`},
		{[]string{"run", "fra-1", "--from", "dc=nyc"}, `no agent matches "dc=nyc"; see probectl get agents for names and labels`},
		{[]string{"matrix", "mesh", "--by", "rack"}, `no agent has the label "rack"; see probectl get agents`},
	} {
		_, stderr, code := f.probectl(c.args...)
		lines := strings.Split(strings.TrimSpace(stderr), "\n")
		if code != 2 || !strings.HasPrefix(lines[len(lines)-1], "probectl: "+c.says) {
			t.Errorf("%v: exit code %d, stderr %q", c.args, code, stderr)
		}
	}
	_, stderr, code := f.probectl("run", "fra-1", "-i", "10ms")
	if code != 4 || !strings.Contains(stderr, "agent fra-1: 100 SYNs a second to one target; agents allow 10: an interval of at least 0.1s with 1 flows, or fewer flows") {
		t.Errorf("an agent's policy: exit code %d, stderr %q", code, stderr)
	}
}

func TestAnInterruptedRunSaysWhatItHas(t *testing.T) {
	f := newFleet(t, "fra")
	c := command(t, "probectl", "--controller", f.address(), "--context", f.context, "run", "fra-1", "-c", "0", "-i", "0.1")
	var out bytes.Buffer
	c.Stdout = &out
	must(t, f.operator.Start(c))
	time.AfterFunc(1500*time.Millisecond, func() { _ = c.Process.Signal(os.Interrupt) })
	_ = c.Wait() // the exit code tells
	if code := c.ProcessState.ExitCode(); code != 130 {
		t.Errorf("exit code %d, want 130", code)
	}
	if !strings.Contains(out.String(), "fra-1") {
		t.Errorf("no summary: %q", out.String())
	}
}
