package spool

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// syncData makes what was written to a file durable.
func syncData(f *os.File) error {
	for {
		err := syscall.Fdatasync(int(f.Fd()))
		if !errors.Is(err, syscall.EINTR) {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}

// lockFile keeps other processes out as long as the file is open.
func lockFile(f *os.File) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return fmt.Errorf("another process uses it; stop that one, or give this one a folder of its own")
	}
	return os.NewSyscallError("flock", err)
}
