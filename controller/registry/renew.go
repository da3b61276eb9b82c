package registry

import (
	"crypto/ecdsa"
	"errors"
	"fmt"
	"time"

	"github.com/synmesh/synmesh/internal/identity"
)

// errNothing ends a transaction that has nothing to change.
var errNothing = errors.New("nothing to change")

// Renew issues the next certificate of the agent that has shown a certificate with the key
// shown, which may have expired: it does not matter how long ago. Who asks
// again with the same key gets the same certificate. If somebody asks with another
// one from the same generation, or from an earlier one, there are two copies of
// the agent's state; it is locked, and both are refused from then on.
func (r *Registry) Renew(name string, shown identity.KeyHash, key *ecdsa.PublicKey) (Enrolment, error) {
	if r.cfg.Issuer == nil {
		return Enrolment{}, ErrOwnPKI
	}
	next, err := identity.HashKey(key)
	if err != nil {
		return Enrolment{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	var e Enrolment
	var refused error // after a change that must last
	err = r.update(func(t *tx) error {
		a, err := t.agent(name)
		if err != nil {
			return err
		}
		id := r.agentIdentity(name)
		age, err := a.mayRenew(shown)
		if err != nil {
			return fmt.Errorf("agent %.80q: %w", name, err)
		}
		was, known := a.age(next)
		switch {
		case age == 0 && known:
			return fmt.Errorf("agent %s: %w: the key was that of a certificate before; make another", name, ErrInvalid)
		case age == 1 && known && was == 0:
			if e, err = a.again(id); err == nil {
				err = errNothing
			}
			return err
		case age > 0:
			err := t.lock(name, a, age, next)
			refused = fmt.Errorf("agent %s: %w", name, a.mayEnrol())
			return err
		}
		if e, err = a.issue(r, id, key, next); err != nil {
			return err
		}
		if err := t.putAgent(name, a); err != nil {
			return err
		}
		return t.audit(id, "renew", id.String(), fmt.Sprintf("generation %d, key %v, certificate %x until %s",
			a.Generation, next, e.Chain[0].SerialNumber, e.Chain[0].NotAfter.UTC().Format(time.RFC3339)))
	})
	if errors.Is(err, errNothing) {
		err = nil
	}
	if err = errors.Join(err, refused); err != nil {
		return Enrolment{}, err
	}
	return e, nil
}

// mayRenew tells how many generations ago the key shown was the newest, or why
// it does not count.
func (a *agent) mayRenew(shown identity.KeyHash) (age int, err error) {
	if a == nil {
		return 0, fmt.Errorf("%w; enrol it with a token", ErrUnknown)
	}
	if err := a.mayEnrol(); err != nil {
		return 0, err
	}
	age, known := a.age(shown)
	if !known {
		return 0, fmt.Errorf("%w: the key of its certificate belongs to no enrolment that counts, for another host has enrolled in its name, or it was unlocked; enrol it with a token", ErrUnknown)
	}
	return age, nil
}

// lock keeps all copies of an agent's state out, and whoever has a token for it.
func (t *tx) lock(name string, a *agent, age int, key identity.KeyHash) error {
	r := t.registry
	id := r.agentIdentity(name)
	a.Locked = &Mark{
		Time: r.cfg.now().UTC(), Actor: id.String(),
		Reason: fmt.Sprintf("its state folder has been copied or put back: generation %d was asked for with two keys, "+
			"and the second, %v, came when generation %d had been issued", a.Generation-uint64(age)+1, key, a.Generation),
	}
	r.cfg.Logger.Error("an agent is locked", "agent", name, "reason", a.Locked.Reason)
	if err := t.revokeTokens(name); err != nil {
		return err
	}
	if err := t.putAgent(name, a); err != nil {
		return err
	}
	return t.audit(id, "lock agent", id.String(), a.Locked.Reason)
}

// revokeTokens makes useless what tokens there are for an agent.
func (t *tx) revokeTokens(name string) error {
	b := t.Bucket(tokensBucket)
	revoked := make(map[string]*token)
	err := each(b, func(hash string, k *token) error {
		if k.Agent == name && k.Used.IsZero() && k.Revoked.IsZero() {
			k.Revoked = t.registry.cfg.now().UTC()
			revoked[hash] = k
		}
		return nil
	})
	for hash, k := range revoked {
		if err == nil {
			err = put(b, hash, k)
		}
	}
	return err
}
