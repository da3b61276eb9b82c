//go:build linux

package lab

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func alive(pid int) bool {
	// A zombie that nobody waits for yet counts as dead.
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, state, _ := bytes.Cut(b, []byte(") "))
	return len(state) > 0 && state[0] != 'Z' && state[0] != 'X'
}

func TestStartedProcessIsOnTheNode(t *testing.T) {
	_, a, _, _ := pair(t, Impairment{})
	var out bytes.Buffer
	cmd := exec.Command("cat", "/proc/self/net/dev")
	cmd.Stdout = &out
	if err := a.Start(cmd); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), a.Interface()+":") {
		t.Errorf("the process sees these interfaces:\n%s", out.String())
	}
	if err := a.Start(exec.Command("/nonexistent")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("starting what does not exist: %v", err)
	}
}

func TestCloseKillsWhatStillRuns(t *testing.T) {
	l, a, b, _ := pair(t, Impairment{})
	waited, ignored := exec.Command("sleep", "60"), exec.Command("sleep", "60")
	// One that leaves a grandchild behind, in a session of its own, and is gone itself.
	parent := exec.Command("sh", "-c", "setsid sleep 60 >/dev/null 2>&1 & echo $!; exit 0")
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []*exec.Cmd{waited, ignored, parent} {
		if err := a.Start(c); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Start(exec.Command("true")); err != nil {
		t.Fatal(err)
	}
	var orphan int
	if _, err := fmt.Fscan(bufio.NewReader(out), &orphan); err != nil {
		t.Fatal(err)
	}
	if err := parent.Wait(); err != nil {
		t.Fatal(err)
	}
	if !alive(orphan) {
		t.Fatal("the grandchild does not run")
	}
	result := make(chan error, 1)
	go func() { result <- waited.Wait() }()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := <-result; !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != unix.SIGKILL {
		t.Errorf("the command that was waited for ended with %v", err)
	}
	for _, pid := range []int{waited.Process.Pid, ignored.Process.Pid, orphan} {
		if alive(pid) {
			t.Errorf("process %d survived", pid)
		}
	}
	if err := a.Start(exec.Command("true")); !errors.Is(err, errClosed) {
		t.Errorf("starting in a closed lab: %v", err)
	}
}
