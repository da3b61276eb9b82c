package engine

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"os"
	"time"
)

// A segment's timestamp is a clock's, plus an offset that belongs to its
// addresses and ports, as with Linux's own TCP: who does not see our segments
// cannot guess one, and who sees some can guess none of other ports or targets
// (RFC 7323 section 7.1). For one set of addresses and ports they rise (RFC 6191), and over
// the lives of engines as well, until the host is booted again.

// tick returns the time of the timestamps' clock, which no other segment has:
// the milliseconds of the wall clock, or one more than the last.
func (e *Engine) tick() uint32 {
	for {
		last, next := e.ticks.Load(), milliseconds()
		if int32(next-last) <= 0 {
			next = last + 1
		}
		if e.ticks.CompareAndSwap(last, next) {
			return next
		}
	}
}

func milliseconds() uint32 { return uint32(time.Now().UnixMilli()) }

// offsetKey is what the offsets of timestamps are hashed with. Where the system
// has no name for the time since it was booted, it is the engine's own.
func offsetKey() (key [16]byte) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		_, _ = rand.Read(key[:]) // never fails
		return key
	}
	sum := sha256.Sum256(append([]byte("synmesh timestamps "), boot...))
	copy(key[:], sum[:])
	return key
}

// tuple is a flight's addresses and ports.
type tuple [36]byte

func (f *flight) tuple() (b tuple) {
	src, dst := f.way.src.As16(), f.target.plain.Addr().As16()
	copy(b[:], src[:])
	copy(b[16:], dst[:])
	binary.NativeEndian.PutUint16(b[32:], f.local)
	binary.NativeEndian.PutUint16(b[34:], f.target.plain.Port())
	return b
}

// offset is by how much the tuple's timestamps are ahead of the clock.
func (e *Engine) offset(of tuple) uint32 {
	var b [len(e.key) + len(of)]byte // in one block of SHA-256
	copy(b[:], e.key[:])
	copy(b[len(e.key):], of[:])
	sum := sha256.Sum256(b[:])
	return binary.NativeEndian.Uint32(sum[:])
}
