package identity

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// WriteFile writes a file that only its owner may read. After a power cut there
// is either all of it or what was there before.
func WriteFile(path string, content []byte) error {
	aside := path + ".tmp"
	// What a crash left there may have other rights.
	if err := os.Remove(aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(aside, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(aside, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(aside))
	}
	return SyncFolder(filepath.Dir(path))
}

// SyncFolder makes durable which names a folder holds.
func SyncFolder(dir string) error {
	if runtime.GOOS == "windows" {
		return nil // it takes the right to write there
	}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// MakeFolder makes a folder that only its owner may enter, durably. One that is
// there may be read by others, for files have modes of their own, but nobody
// else may put files into it.
func MakeFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 && runtime.GOOS != "windows" {
		return fmt.Errorf("%s: others may write to it (mode %#o), and what it holds is trusted; chmod 0700 it", dir, mode)
	}
	return SyncFolder(filepath.Dir(filepath.Clean(dir)))
}

// CheckPrivate refuses a file that others than its owner may read or write.
func CheckPrivate(path string) error { return checkPrivate(path, 0o077) }

// checkPrivate refuses a file that gives others any of the rights.
func checkPrivate(path string, rights fs.FileMode) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if mode := info.Mode().Perm(); mode&rights != 0 && runtime.GOOS != "windows" {
		return fmt.Errorf("%s: too many may use it (mode %#o), and it holds a private key; chmod 0600 it", path, mode)
	}
	return nil
}
