package rawsock

import (
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pause is how long a bell is silent after it has rung, if more is to come. Waking
// somebody up is the dearest thing that the kernel does for a packet; of those
// that come soon after another, it does it once for all. Where none does, the
// end of the pause would be one waking more.
const pause = 250 * time.Microsecond

// bell rings once when one of some sockets can be read, and not again until
// somebody waits for it. In between the kernel has nobody to wake up. It is an
// epoll instance of its own, which the runtime waits on in the sockets' place.
type bell struct {
	sockets []int
	file    *os.File // the epoll instance
	conn    syscall.RawConn
	rang    time.Time
	busy    bool // it rang soon after it was armed
}

func hang(sockets []int) (*bell, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	b := &bell{sockets: sockets}
	err = os.NewSyscallError("fcntl", unix.SetNonblock(fd, true)) // without it, the runtime would not wait on it
	if err == nil {
		err = b.arm(fd, unix.EPOLL_CTL_ADD, 0)
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	b.file = os.NewFile(uintptr(fd), "bell")
	if b.conn, err = b.file.SyscallConn(); err != nil {
		b.file.Close()
		return nil, err
	}
	return b, nil
}

// arm has each socket ring once for these events.
func (b *bell) arm(fd, op int, events uint32) error {
	for _, s := range b.sockets {
		if err := unix.EpollCtl(fd, op, s, &unix.EpollEvent{Events: events | unix.EPOLLONESHOT}); err != nil {
			return os.NewSyscallError("epoll_ctl", err)
		}
	}
	return nil
}

// wait returns when a socket can be read, or the bell is closed. More says
// that this is expected soon, as it is in any case of a bell that has rung as soon as it was armed.
func (b *bell) wait(more bool) error {
	if rest := pause - time.Since(b.rang); (more || b.busy) && rest > 0 {
		time.Sleep(rest)
	}
	begun := time.Now()
	var failed error
	armed := false
	err := b.conn.Read(func(fd uintptr) bool {
		if !armed {
			// Here, where the bell cannot be closed meanwhile, nor the sockets before it.
			armed = true
			failed = b.arm(int(fd), unix.EPOLL_CTL_MOD, unix.EPOLLIN)
		}
		var rung bool
		if failed == nil {
			rung, failed = hasRung(int(fd))
		}
		return rung || failed != nil
	})
	b.rang = time.Now()
	b.busy = b.rang.Sub(begun) < pause
	if err == nil {
		err = failed
	}
	return err
}

// hasRung takes in that the bell has rung. It does not wait; see mmsg.
func hasRung(fd int) (bool, error) {
	var event unix.EpollEvent
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(fd), uintptr(unsafe.Pointer(&event)), 1, 0, 0, 0)
		switch errno {
		case 0:
			return n > 0, nil
		case unix.EINTR:
		default:
			return false, os.NewSyscallError("epoll_pwait", errno)
		}
	}
}

func (b *bell) close() error { return b.file.Close() }
