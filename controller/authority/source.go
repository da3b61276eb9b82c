package authority

import (
	"fmt"
	"sync"
	"time"

	"github.com/synmesh/synmesh/internal/identity"
)

// source is a controller's own certificate. Its key lives as long as the process
// and is on no disk.
type source struct {
	authority *Authority
	id        identity.Identity

	mu      sync.Mutex
	current *identity.Credentials
	renewal time.Time
}

// Source returns the certificate of the controller of that name, which is renewed as
// it is asked for.
func (a *Authority) Source(controller string) (identity.Source, error) {
	s := &source{authority: a, id: identity.Identity{Fleet: a.Fleet(), Kind: identity.Controller, Name: controller}}
	if _, err := s.Current(); err != nil {
		return nil, err
	}
	return s, nil
}

// Current implements identity.Source.
func (s *source) Current() (*identity.Credentials, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.authority.cfg.now()
	if s.current != nil && now.Before(s.renewal) {
		return s.current, nil
	}
	next, err := s.renew()
	if err != nil {
		// What is still good serves on; the authority has logged why.
		if s.current != nil && now.Before(s.current.Leaf().NotAfter) {
			return s.current, nil
		}
		return nil, fmt.Errorf("the controller's own certificate: %w", err)
	}
	s.current, s.renewal = next, identity.RenewalOf(next.Leaf())
	return next, nil
}

func (s *source) renew() (*identity.Credentials, error) {
	key, err := identity.NewKey()
	if err != nil {
		return nil, err
	}
	chain, err := s.authority.Issue(s.id, &key.PublicKey, 0)
	if err != nil {
		return nil, err
	}
	return identity.NewCredentials(key, chain, s.authority.Roots())
}
