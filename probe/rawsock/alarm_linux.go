package rawsock

import (
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Alarm goes off at an appointed time, some microseconds late. A time.Timer may
// be late by a millisecond, for the runtime sleeps for whole ones; it wakes up
// twice for that, and so does its monitor.
type Alarm struct {
	file   *os.File // a timerfd
	conn   syscall.RawConn
	closed atomic.Bool
}

// OpenAlarm opens an alarm that is not set.
func OpenAlarm() (*Alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("timerfd_create", err)
	}
	a := &Alarm{file: os.NewFile(uintptr(fd), "alarm")}
	if a.conn, err = a.file.SyscallConn(); err != nil {
		a.file.Close()
		return nil, err
	}
	return a, nil
}

// Set has the alarm go off once, after d. What it was set to before is void.
func (a *Alarm) Set(d time.Duration) error {
	at := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(max(d, 1)))} // 0 would never come
	var failed error
	err := a.conn.Control(func(fd uintptr) {
		failed = os.NewSyscallError("timerfd_settime", unix.TimerfdSettime(int(fd), 0, &at, nil))
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		return fmt.Errorf("set an alarm: %w", err)
	}
	return nil
}

// Each calls fn whenever the alarm goes off, and returns nil after Close.
func (a *Alarm) Each(fn func()) error {
	var failed error
	err := a.conn.Read(func(fd uintptr) bool {
		var times uint64
		// This does not wait; see mmsg.
		_, _, errno := unix.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(&times)), unsafe.Sizeof(times))
		switch errno {
		case 0:
			fn()
		case unix.EAGAIN, unix.EINTR:
		default:
			failed = os.NewSyscallError("read", errno)
		}
		return failed != nil
	})
	if err == nil {
		err = failed
	}
	if a.closed.Load() {
		return nil
	}
	return fmt.Errorf("wait for an alarm: %w", err)
}

// Close ends the alarm, and Each.
func (a *Alarm) Close() error {
	if a.closed.Swap(true) {
		return os.ErrClosed
	}
	return a.file.Close()
}
