//go:build linux

package lab

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	pollEvery = 2 * time.Millisecond  // How often something is looked at that sends no event.
	waitGrace = 50 * time.Millisecond // How long a caller of cmd.Wait has to collect a dead process.
)

// stopProcesses kills what runs on the nodes, first the commands that Start started, then what these left behind, and
// reaps the commands.
func (l *Lab) stopProcesses(patience time.Duration) error {
	if len(l.commands) == 0 {
		return nil
	}
	deadline := time.Now().Add(patience)
	for _, c := range l.commands {
		_ = c.Process.Kill() // Fails only if the process has ended.
	}
	var errs []error
	grace := time.Now().Add(waitGrace)
	for _, c := range l.commands {
		if err := reap(c.Process, grace, deadline); err != nil {
			errs = append(errs, fmt.Errorf("waiting for %s (process %d): %w", c.Path, c.Process.Pid, err))
		}
	}
	for {
		left, err := l.killStrays()
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		if left == 0 {
			return errors.Join(errs...)
		}
		if time.Now().After(deadline) {
			return errors.Join(append(errs, fmt.Errorf("%d processes left by commands do not end", left))...)
		}
		time.Sleep(pollEvery)
	}
}

// reap returns when the process has ended and been waited for. Until the time grace that is left to whoever may be in
// cmd.Wait, so that they learn how the process ended.
func reap(p *os.Process, grace, deadline time.Time) error {
	for {
		var dead bool
		err := p.WithHandle(func(fd uintptr) {
			fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			n, err := unix.Poll(fds, 0)
			dead = err == nil && n > 0
		})
		now := time.Now()
		switch {
		case errors.Is(err, os.ErrProcessDone):
			return nil
		case err != nil:
			return err
		case dead && now.After(grace):
			_, _ = p.Wait() // Fails only if somebody else was quicker.
			return nil
		case now.After(deadline):
			return os.ErrDeadlineExceeded
		}
		time.Sleep(pollEvery)
	}
}

// killStrays kills every other process that is in the namespace of a node, and tells how many there were. The
// namespace is looked at while a handle pins the process, so that a reused process number is never hit.
func (l *Lab) killStrays() (int, error) {
	inodes := make(map[uint64]bool, len(l.nodes))
	for _, n := range l.nodes {
		inodes[n.space.inode] = true
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, fmt.Errorf("listing processes: %w", err)
	}
	found := 0
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue // It has ended.
		}
		var st unix.Stat_t
		// The link of a process that is not ours cannot be read, and that of a zombie is gone.
		if unix.Stat("/proc/"+e.Name()+"/ns/net", &st) == nil && inodes[st.Ino] {
			found++
			_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) // Fails only if it has ended.
		}
		_ = unix.Close(fd)
	}
	return found, nil
}
