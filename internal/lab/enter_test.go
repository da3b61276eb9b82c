//go:build linux

package lab

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// unprivileged prepares the test binary to run as one of the programs, without the right to make namespaces: a user
// namespace of its own is the only way.
func unprivileged(t *testing.T, program string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "an argument")
	cmd.Env = append(os.Environ(), asProgram+"="+program)
	cmd.Stderr = os.Stderr
	return cmd
}

// start starts cmd without CAP_SYS_ADMIN, which a thread can give up for what it will execute.
func start(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	var err error
	<-ownThread(func() {
		if err = unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_SYS_ADMIN, 0, 0, 0); err == nil {
			err = cmd.Start()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
}

func TestEnterWithoutPrivilege(t *testing.T) {
	for _, c := range []struct {
		program string
		status  int
	}{
		{"handshake", 0},
		{"status 7", 7},
		{"suicide", 128 + int(unix.SIGKILL)},
	} {
		t.Run(c.program, func(t *testing.T) {
			t.Parallel()
			cmd := unprivileged(t, c.program)
			var out bytes.Buffer
			cmd.Stdout = &out
			start(t, cmd)
			_ = cmd.Wait()
			if got := cmd.ProcessState.ExitCode(); got != c.status {
				t.Errorf("exit status %d, want %d; output %q", got, c.status, &out)
			}
		})
	}
}

func TestEnterPassesSignalsOn(t *testing.T) {
	cmd := unprivileged(t, "signalled")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	start(t, cmd)
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("%q, %v", line, err)
	}
	if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != 9 {
		t.Errorf("exit status %d, want 9", got)
	}
}

func TestNothingOutlivesAKilledProcess(t *testing.T) {
	cmd := unprivileged(t, "holding a process")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	start(t, cmd)
	var inner, held int
	if _, err := fmt.Fscan(bufio.NewReader(out), &inner, &held); err != nil {
		t.Fatal(err)
	}
	if inner == cmd.Process.Pid || !alive(inner) || !alive(held) {
		t.Fatalf("processes: outer %d, inner %d, held %d", cmd.Process.Pid, inner, held)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	eventually(t, "the inner process is killed", func() bool { return !alive(inner) })
	eventually(t, "the process on the node is killed", func() bool { return !alive(held) })
}
