//go:build linux && !386 && !s390x

package connect

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synmesh/synmesh/probe"
)

// asNobody marks the environment of a test program that is to probe the
// addresses that it holds, and to say what it found.
const asNobody = "SYNMESH_CONNECT_AS_NOBODY"

// report is what that program says.
type report struct {
	UID          int
	Capabilities string // effective ones, as /proc has them
	Err          string
	Results      []probe.Result
}

func probeAsNobody(addresses string) report {
	r := report{UID: os.Getuid()}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		r.Err = err.Error()
		return r
	}
	if m := regexp.MustCompile(`CapEff:\s*(\w+)`).FindSubmatch(status); m != nil {
		r.Capabilities = string(m[1])
	}
	s := probe.Spec{Mode: probe.Connect, Count: 2, Interval: 10 * time.Millisecond, Timeout: 300 * time.Millisecond, Flows: 1}
	s.Sending.TTL, s.Sending.DSCP, s.Sending.Interface = 32, 8, "eth0"
	for _, a := range strings.Fields(addresses) {
		ts, err := probe.ParseTargets(a)
		if err != nil {
			r.Err = err.Error()
			return r
		}
		s.Targets = append(s.Targets, ts...)
	}
	err = New(Config{}).Do(context.Background(), s, func(found *probe.Result) { r.Results = append(r.Results, *found) })
	if err != nil {
		r.Err = err.Error()
	}
	return r
}

func TestNoPrivilegeIsNeeded(t *testing.T) {
	n := twoHosts(t, nil)
	listenOn(t, n.to, ":443")
	inside(t, n.router, func() {
		complain(t, n.router, "10.99.0.1/32", "fd99::1/128", map[bool]probe.ICMP{false: {Type: 3, Code: 1}, true: {Type: 1, Code: 3}})
	})
	want := map[string]probe.Outcome{
		at(n.to.Addr4(), 443): probe.Open, at(n.to.Addr6(), 443): probe.Open,
		at(n.to.Addr4(), 444): probe.Closed, at(n.to.Addr6(), 444): probe.Closed,
		"10.99.0.1:443": probe.Unreachable, "[fd99::1]:443": probe.Unreachable,
	}
	var addresses []string
	for a := range want {
		addresses = append(addresses, a)
	}
	got := runAsNobody(t, n, strings.Join(addresses, " "))
	if got.Err != "" || strings.Trim(got.Capabilities, "0") != "" || got.Capabilities == "" {
		t.Errorf("user %d with capabilities %q: %s", got.UID, got.Capabilities, got.Err)
	}
	t.Logf("as user %d", got.UID)
	count := byTarget(got.Results, func(r *probe.Result) {
		if r.Outcome != want[r.Target] {
			t.Errorf("%+v, want %v", r, want[r.Target])
		}
	})
	if len(got.Results) != 2*len(want) || len(count) != len(want) {
		t.Errorf("results %v", count)
	}
}

// runAsNobody runs the test program in the node of the first host, without
// capabilities, and as another user than root where there is one.
func runAsNobody(t *testing.T, n network, addresses string) (r report) {
	t.Helper()
	var out bytes.Buffer
	cmd := func(attr *syscall.SysProcAttr) *exec.Cmd {
		c := exec.Command("/proc/self/exe")
		c.Env = append(os.Environ(), asNobody+"="+addresses)
		c.Stdout, c.Stderr, c.SysProcAttr = &out, os.Stderr, attr
		return c
	}
	inside(t, n.from, func() {
		// The thread of this function is thrown away, and its bounds with it.
		for capability := uintptr(0); capability < 64; capability++ {
			_, _, errno := unix.Syscall(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, capability, 0)
			if errno != 0 && errno != unix.EINVAL { // there are fewer
				t.Fatal(errno)
			}
		}
		c := cmd(&syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534, NoSetGroups: true}})
		if c.Start() != nil { // in a user namespace that has one user only
			c = cmd(nil)
			must(t, c.Start())
		}
		must(t, c.Wait())
	})
	must(t, json.Unmarshal(out.Bytes(), &r))
	return r
}
