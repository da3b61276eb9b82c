//go:build linux

package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// entered marks the environment of a program that Enter executed again, so that it does so once only.
const entered = "SYNMESH_LAB_ENTERED"

// Enter makes sure that the process may make network namespaces. If it may (as root, or inside `unshare -rn`), Enter
// brings the loopback interface up, which is down inside `unshare -rn`, and that is all. If not, it executes the program again, with the same arguments, environment and standard files, as root
// of a new user namespace and in a new network namespace whose loopback interface is up; it passes signals on, and
// exits with the status of that program, 128 and the signal's number if a signal ended it. Should this process be
// killed, the other one is too. Call Enter before anything else in main or TestMain. It returns an error if there is no
// way; tests must then fail, not be skipped.
func Enter() error {
	err := mayMakeSpaces()
	again := os.Getenv(entered) != ""
	if err := os.Unsetenv(entered); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	switch {
	case err == nil:
		return loopbackUp() // inside unshare -rn it is down
	case again || !errors.Is(err, unix.EPERM):
		return fmt.Errorf("lab: making a network namespace: %w", err)
	}
	status, err := runAgain()
	if err != nil {
		return fmt.Errorf("lab: this needs root, or leave to make user namespaces: %w", err)
	}
	os.Exit(status)
	return nil
}

func loopbackUp() error {
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("lab: bringing the loopback interface up: %w", err)
	}
	return nil
}

// runAgain runs the program in namespaces of its own and returns its exit status.
func runAgain() (int, error) {
	cmd := exec.Command("/proc/self/exe") // Works also where the path of the program is out of reach.
	cmd.Args = os.Args
	cmd.Env = append(os.Environ(), entered+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	// The signal of a parent's death comes when the thread ends that forked.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case s := <-signals:
			if !fromTerminal(s) {
				_ = cmd.Process.Signal(s) // Fails only if it has ended.
			}
		case err := <-ended:
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				return 0, err
			}
			if w, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && w.Signaled() {
				return 128 + int(w.Signal()), nil
			}
			return cmd.ProcessState.ExitCode(), nil
		}
	}
}

// fromTerminal tells whether a signal is one that the terminal sends to all processes of the foreground, and this one is
// in the foreground: the other process then has it already.
func fromTerminal(s os.Signal) bool {
	if s != unix.SIGINT && s != unix.SIGQUIT {
		return false
	}
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	defer tty.Close()
	group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}
