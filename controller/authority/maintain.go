package authority

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/synmesh/synmesh/internal/identity"
)

const (
	// attemptEvery is how often the root's key is looked for when it is wanted.
	attemptEvery = time.Hour
	// urgent is how long before its end an intermediate is spoken of loudly.
	urgent = 90 * day
)

// Status is how long the CA will do.
type Status struct {
	RootNotAfter         time.Time
	IntermediateNotAfter time.Time
	// IntermediateRenewal is when the root's key is wanted.
	IntermediateRenewal time.Time
	// RootKeyHere tells that the root's key still lies beside everything else.
	RootKeyHere bool
	// Warning is what an operator should do now; empty: nothing.
	Warning string
}

// Status tells how long the CA will do.
func (a *Authority) Status() Status {
	a.mu.Lock()
	cert := a.signer.cert
	a.mu.Unlock()
	_, err := os.Lstat(a.path(rootKeyFile))
	s := Status{
		RootNotAfter: a.root.NotAfter, IntermediateNotAfter: cert.NotAfter,
		IntermediateRenewal: cert.NotBefore.Add(cert.NotAfter.Sub(cert.NotBefore) / 2), RootKeyHere: err == nil,
	}
	now, end := a.cfg.now(), cert.NotAfter.UTC().Format(time.DateOnly)
	switch {
	case now.After(a.root.NotAfter.Add(-intermediateLife)):
		// No intermediate outlasts it, and nobody believes another.
		s.Warning = fmt.Sprintf("the root's certificate expires on %s, and the fleet ends with it: set up a controller with a new data folder, and enrol everybody there before",
			a.root.NotAfter.UTC().Format(time.DateOnly))
	case now.After(cert.NotAfter):
		s.Warning = fmt.Sprintf("the intermediate certificate expired on %s, and nobody can enrol or renew: put %s back", end, a.path(rootKeyFile))
	case now.After(cert.NotAfter.Add(-urgent)):
		s.Warning = fmt.Sprintf("the intermediate certificate expires on %s, and then nobody can enrol or renew: put %s back for an hour", end, a.path(rootKeyFile))
	case now.After(s.IntermediateRenewal) && !s.RootKeyHere:
		s.Warning = fmt.Sprintf("the intermediate certificate should be renewed before %s: put %s back for an hour", end, a.path(rootKeyFile))
	}
	return s
}

// maintain renews the intermediate if it is due and the root's key is there. If
// that fails, the one there is goes on, and the log says what is wanted.
func (a *Authority) maintain() {
	a.mu.Lock()
	now := a.cfg.now()
	cert := a.signer.cert
	due := now.After(cert.NotBefore.Add(cert.NotAfter.Sub(cert.NotBefore) / 2))
	if !due || now.Sub(a.attempt) < attemptEvery {
		a.mu.Unlock()
		return
	}
	a.attempt = now
	err := a.renewIntermediate(now)
	a.mu.Unlock()
	switch {
	case err == nil:
		a.cfg.Logger.Info("the CA's intermediate certificate was renewed; the root's key can be moved away again")
	case errors.Is(err, fs.ErrNotExist):
		a.cfg.Logger.Warn("CA: " + a.Status().Warning)
	default:
		a.cfg.Logger.Error("the CA's intermediate certificate cannot be renewed", "reason", err)
	}
}

func (a *Authority) renewIntermediate(now time.Time) error {
	text, err := os.ReadFile(a.path(rootKeyFile))
	if err != nil {
		return err
	}
	key, err := identity.DecodeKey(text)
	if err != nil {
		return fmt.Errorf("%s: %w", a.path(rootKeyFile), err)
	}
	if !key.PublicKey.Equal(a.root.PublicKey) {
		return fmt.Errorf("%s is not the key of %s", a.path(rootKeyFile), rootFile)
	}
	next, err := newIntermediate(signer{a.root, key}, now)
	if err != nil {
		return err
	}
	if text, err = encodeSigner(next); err != nil {
		return err
	}
	if err := identity.WriteFile(a.path(intermediateFile), text); err != nil {
		return err
	}
	a.signer = next
	return nil
}
