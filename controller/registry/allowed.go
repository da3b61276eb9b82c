package registry

import (
	"errors"
	"fmt"

	"github.com/synmesh/synmesh/internal/identity"
)

// standing is what Allowed has to know of somebody.
type standing struct {
	refusal  error // not allowed, whatever the key
	enrolled bool
	key      identity.KeyHash
	previous identity.KeyHash // good as well while unused
	unused   bool             // nobody has come with key yet
	role     identity.Role
}

func (a *agent) standing() standing {
	s := standing{refusal: a.mayEnrol(), enrolled: len(a.Keys) > 0, unused: !a.Confirmed}
	if s.enrolled {
		s.key = identity.KeyHash(a.Keys[0])
	}
	if len(a.Keys) > 1 {
		s.previous = identity.KeyHash(a.Keys[1])
	}
	return s
}

// Allowed tells whether somebody who has shown a certificate with this key
// belongs to the fleet now, and why not. It asks the memory only: call it for
// each message. What a user may do is another question.
func (r *Registry) Allowed(id identity.Identity, key identity.KeyHash) error {
	if err := r.allowed(id, key); err != nil {
		return fmt.Errorf("%v: %w", id, err)
	}
	return nil
}

func (r *Registry) allowed(id identity.Identity, key identity.KeyHash) error {
	if id.Fleet != r.cfg.Fleet {
		return fmt.Errorf("%w: it is of fleet %s", ErrUnknown, id.Fleet)
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	var s standing
	switch id.Kind {
	case identity.Controller:
		return nil // only the CA makes them, in its own process
	case identity.Agent:
		s = r.agents[id.Name]
	case identity.User:
		s = r.users[id.Name]
	default:
		return fmt.Errorf("%w: %v", ErrUnknown, id.Kind)
	}
	switch {
	case s.refusal != nil:
		return s.refusal
	case r.cfg.Issuer == nil:
		return nil
	case !s.enrolled && id.Kind == identity.User:
		return fmt.Errorf("%w; make the user with probectl user create", ErrUnknown)
	case !s.enrolled:
		return fmt.Errorf("%w; enrol it with a token", ErrUnknown)
	case id.Kind == identity.User && (s.key != key || s.role != id.Role):
		return fmt.Errorf("%w: the user was made anew, and has another certificate", ErrSuperseded)
	case s.key == key:
		return nil
	case s.previous != key:
		return fmt.Errorf("%w: the certificate is not the one of this agent's last enrolment", ErrSuperseded)
	case !s.unused:
		return fmt.Errorf("%w: the certificate has been renewed; connect again with the new one", ErrSuperseded)
	}
	return nil
}

// Admit is Allowed for the beginning of a session. If an agent comes with
// its newest certificate for the first time, the one before is of no use from then on.
func (r *Registry) Admit(id identity.Identity, key identity.KeyHash) error {
	if err := r.Allowed(id, key); err != nil || id.Kind != identity.Agent || r.cfg.Issuer == nil {
		return err
	}
	r.mu.RLock()
	s := r.agents[id.Name]
	r.mu.RUnlock()
	if !s.unused || s.key != key {
		return nil
	}
	err := r.update(func(t *tx) error {
		a, err := t.agent(id.Name)
		if err != nil {
			return err
		}
		if age, known := a.age(key); !known || age > 0 || a.Confirmed {
			return errNothing // it has been renewed or enrolled anew meanwhile
		}
		a.Confirmed = true
		return t.putAgent(id.Name, a)
	})
	if errors.Is(err, errNothing) {
		err = nil
	}
	if err != nil {
		return err
	}
	return r.Allowed(id, key)
}
