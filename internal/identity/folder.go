package identity

import (
	"crypto/ecdsa"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"sync"
)

// stateFile holds the state in a folder. It is one file, so that key and
// certificate are never of different ages.
const stateFile = "identity.json"

// ErrInUse says that another process has the folder. Two agents of one state
// would look like a copied one, and be locked.
var ErrInUse = errors.New("another process uses this folder; stop it, or give each agent a folder of its own")

// ErrNotEnrolled says that there is no certificate yet.
var ErrNotEnrolled = errors.New("there is no certificate yet; enrol with a token first")

// Folder is an agent's state on its disk, and a Source. Its methods may be
// called concurrently.
type Folder struct {
	dir  string
	lock *os.File

	mu          sync.Mutex
	state       State
	credentials *Credentials
	changed     chan struct{}
}

// OpenFolder opens a state folder, which it makes if it is not there, and keeps
// other processes out until Close.
func OpenFolder(dir string) (*Folder, error) {
	f, err := openFolder(dir)
	if err != nil {
		return nil, fmt.Errorf("state folder %s: %w", dir, err)
	}
	return f, nil
}

func openFolder(dir string) (_ *Folder, err error) {
	if err := MakeFolder(dir); err != nil {
		return nil, err
	}
	f := &Folder{dir: dir, changed: make(chan struct{})}
	if f.lock, err = lock(filepath.Join(dir, "lock")); err != nil {
		return nil, err
	}
	if err := f.read(); err != nil {
		return nil, errors.Join(err, f.lock.Close())
	}
	return f, nil
}

func (f *Folder) read() error {
	path := filepath.Join(f.dir, stateFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := checkPrivate(path, 0o077); err != nil {
		return err
	}
	s, err := DecodeState(text)
	if err != nil {
		return err
	}
	if s.Enrolled() {
		if f.credentials, err = s.Credentials(); err != nil {
			return err
		}
	}
	f.state = *s
	return nil
}

// Close lets others have the folder.
func (f *Folder) Close() error { return f.lock.Close() }

// Current implements Source. Without a certificate it returns ErrNotEnrolled.
func (f *Folder) Current() (*Credentials, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.credentials == nil {
		return nil, ErrNotEnrolled
	}
	return f.credentials, nil
}

// State returns a copy of the state.
func (f *Folder) State() State {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.state
	s.Files = maps.Clone(s.Files)
	return s
}

// Changed returns a channel that is closed when the next certificate is there.
// Take it before looking at Current.
func (f *Folder) Changed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed
}

// Pending returns the key to ask a certificate for. It is on the disk when this
// returns, and the same until a certificate for it has been accepted.
func (f *Folder) Pending() (*ecdsa.PrivateKey, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.state.Pending != nil {
		return f.state.Pending, nil
	}
	key, err := NewKey()
	if err != nil {
		return nil, err
	}
	next := f.state
	next.Pending = key
	if err := f.write(&next); err != nil {
		return nil, err
	}
	f.state = next
	return key, nil
}

// Accept stores what was issued for the pending key. From then on it is current.
func (f *Folder) Accept(i Issued) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	next := f.state
	if err := next.Accept(i); err != nil {
		return err
	}
	credentials, err := next.Credentials()
	if err != nil {
		return err
	}
	if err := f.write(&next); err != nil {
		return err
	}
	f.state, f.credentials = next, credentials
	close(f.changed)
	f.changed = make(chan struct{})
	return nil
}

func (f *Folder) write(s *State) error {
	text, err := s.Encode()
	if err != nil {
		return err
	}
	if err := WriteFile(filepath.Join(f.dir, stateFile), text); err != nil {
		return fmt.Errorf("state folder %s: %w", f.dir, err)
	}
	return nil
}
