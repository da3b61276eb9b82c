//go:build !windows && (!linux || 386 || s390x)

package connect

import "syscall"

const (
	errRefused  = syscall.ECONNREFUSED
	errTimedOut = syscall.ETIMEDOUT
)

// once has nothing to do: a RST ends the attempt, and MaxWait comes before the second SYN.
func once(syscall.RawConn) error { return nil }
