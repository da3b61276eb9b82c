//go:build !unix

package identity

import "os"

// lock opens the file; agents, who need more, run on Unix.
func lock(path string) (*os.File, error) { return os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) }
