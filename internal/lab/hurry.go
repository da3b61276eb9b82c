//go:build linux

package lab

import (
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// hurry asks the kernel to run the calling thread as soon as its time has come, by every means that it may be allowed.
// Each may fail, and what is left then still keeps the median in time; only the tail grows on a busy machine.
func hurry() {
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	fifo := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}
	if unix.SchedSetAttr(0, &fifo, 0) == nil {
		return
	}
	// A thread that asks for short turns may interrupt others that had longer ones. Needs Linux 6.12, but no privilege.
	short := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL, Runtime: 100_000}
	_ = unix.SchedSetAttr(0, &short, 0)
}

// spareProcessors is how much GOMAXPROCS is raised while there are relays.
const spareProcessors = 4

// relaying counts the labs of this process that have relays. GOMAXPROCS belongs to the whole process, so this does too.
var relaying struct {
	sync.Mutex
	labs int
}

// reserveProcessors (labs = 1) makes it unlikely that a relay whose time has come must wait for one of the Go runtime's
// processors, all of them held by threads that the kernel keeps waiting for a core: on two cores that are kept busy it
// takes the 99th percentile of lateness from milliseconds to tens of microseconds. labs = -1 takes it back.
func reserveProcessors(labs int) {
	relaying.Lock()
	defer relaying.Unlock()
	before := relaying.labs > 0
	relaying.labs += labs
	switch after := relaying.labs > 0; {
	case after && !before:
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + spareProcessors)
	case before && !after:
		runtime.GOMAXPROCS(max(1, runtime.GOMAXPROCS(0)-spareProcessors))
	}
}
