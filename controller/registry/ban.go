package registry

import (
	"fmt"

	"github.com/synmesh/synmesh/internal/identity"
)

// Ban keeps an agent out until Unban. It may be banned again, for another reason.
func (r *Registry) Ban(actor identity.Identity, name, reason string) error {
	if err := identity.CheckName(name); err != nil {
		return fmt.Errorf("%w: agent %w", ErrInvalid, err)
	}
	if reason == "" || len(reason) > maxDetail {
		return fmt.Errorf("%w: the reason has %d characters; it has 1 to %d", ErrInvalid, len(reason), maxDetail)
	}
	return r.update(func(t *tx) error {
		a, err := t.agent(name)
		switch {
		case err != nil:
			return err
		case a == nil && r.cfg.Issuer != nil:
			return fmt.Errorf("agent %s: %w", name, ErrNotFound)
		case a == nil:
			a = &agent{} // of an own PKI, which alone knows all that there are
		}
		a.Banned = r.mark(actor, reason)
		if err := t.putAgent(name, a); err != nil {
			return err
		}
		return t.audit(actor, "ban agent", "agent/"+name, reason)
	})
}

// Unban lets an agent in again, with the certificate that it has.
func (r *Registry) Unban(actor identity.Identity, name string) error {
	return r.update(func(t *tx) error {
		a, err := t.agent(name)
		if err != nil {
			return err
		}
		if a == nil || a.Banned == nil {
			return fmt.Errorf("agent %.80q is not banned: %w", name, ErrNotFound)
		}
		a.Banned = nil
		if err := t.putAgent(name, a); err != nil {
			return err
		}
		return t.audit(actor, "unban agent", "agent/"+name, "")
	})
}

// Unlock forgets the keys of a locked agent, of all copies of it. It can enrol
// with a new token then.
func (r *Registry) Unlock(actor identity.Identity, name string) error {
	return r.update(func(t *tx) error {
		a, err := t.agent(name)
		if err != nil {
			return err
		}
		if a == nil || a.Locked == nil {
			return fmt.Errorf("agent %.80q is not locked: %w", name, ErrNotFound)
		}
		a.Locked, a.Keys, a.Chain, a.Generation = nil, nil, nil, 0
		if err := t.putAgent(name, a); err != nil {
			return err
		}
		return t.audit(actor, "unlock agent", "agent/"+name, "")
	})
}

func (r *Registry) mark(actor identity.Identity, reason string) *Mark {
	return &Mark{Time: r.cfg.now().UTC(), Actor: actor.String(), Reason: reason}
}
