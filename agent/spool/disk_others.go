//go:build !linux

package spool

import "os"

// syncData makes what was written to a file durable.
func syncData(f *os.File) error { return f.Sync() }

// lockFile does nothing: agents run on Linux, and elsewhere in tests alone.
func lockFile(*os.File) error { return nil }
