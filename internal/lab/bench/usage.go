//go:build linux

package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"runtime/pprof"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// processorTime is what this process has used, for itself and in the kernel.
func processorTime() (time.Duration, error) {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0, os.NewSyscallError("getrusage", err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}

// processorTimeOf is what another process has used.
func processorTimeOf(pid int) (time.Duration, error) {
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every architecture of Linux that Go knows
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	words := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	var user, system int64
	if len(words) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(words))
	}
	_, err = fmt.Sscan(words[11]+" "+words[12], &user, &system)
	return time.Duration(user+system) * tick, err
}

// threadTime is what the calling thread has used.
func threadTime() (time.Duration, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		return 0, os.NewSyscallError("clock_gettime", err)
	}
	return time.Duration(t.Nano()), nil
}

// resident is how much of this process is in memory.
func resident() (int64, error) {
	kib, err := field("/proc/self/status", "VmRSS:", 1)
	return kib << 10, err
}

// machineTime is the time that all cores together have worked, including what
// the kernel does for packets on behalf of nobody.
func machineTime() (time.Duration, error) {
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every architecture of Linux that Go knows
	var busy int64
	for _, i := range []int{1, 2, 3, 6, 7} { // user, nice, system, irq, softirq
		v, err := field("/proc/stat", "cpu", i)
		if err != nil {
			return 0, err
		}
		busy += v
	}
	return time.Duration(busy) * tick, nil
}

// field returns the i-th word, a number, of the line in a file whose first word is name.
func field(file, name string, i int) (int64, error) {
	f, err := os.Open(file)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		if words := strings.Fields(s.Text()); len(words) > i && words[0] == name {
			return strconv.ParseInt(words[i], 10, 64)
		}
	}
	return 0, fmt.Errorf("%s does not tell %s", file, name)
}

// profile writes a CPU profile of this process to a file, until it is stopped.
func profile(name string) (stop func() error, err error) {
	f, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() error { pprof.StopCPUProfile(); return f.Close() }, nil
}
