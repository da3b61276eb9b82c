package registry

import (
	"bytes"
	"crypto/ecdsa"
	"fmt"
	"time"

	"github.com/synmesh/synmesh/internal/identity"
)

// Enrol uses a token up for a certificate of its agent for the key. name may be
// empty; if it is not, it must be the token's. Who asks again with the same key
// gets the same certificate; any other key is refused. A host that was this
// agent before is it no longer.
func (r *Registry) Enrol(hash identity.TokenHash, name string, key *ecdsa.PublicKey) (Enrolment, error) {
	if r.cfg.Issuer == nil {
		return Enrolment{}, ErrOwnPKI
	}
	keyHash, err := identity.HashKey(key)
	if err != nil {
		return Enrolment{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	var e Enrolment
	if err := r.update(func(t *tx) (err error) {
		e, err = t.enrol(hash, name, key, keyHash)
		return err
	}); err != nil {
		return Enrolment{}, err
	}
	return e, nil
}

func (t *tx) enrol(hash identity.TokenHash, name string, key *ecdsa.PublicKey, keyHash identity.KeyHash) (Enrolment, error) {
	r, tokens := t.registry, t.Bucket(tokensBucket)
	k, err := get[token](tokens, string(hash[:]))
	if err != nil {
		return Enrolment{}, err
	}
	if k == nil {
		return Enrolment{}, ErrTokenUnknown
	}
	if name != "" && name != k.Agent {
		return Enrolment{}, fmt.Errorf("%w: it is for %s, and you are %.80q", ErrTokenName, k.Agent, name)
	}
	a, err := t.agent(k.Agent)
	if err != nil {
		return Enrolment{}, err
	}
	if err := a.mayEnrol(); err != nil {
		return Enrolment{}, fmt.Errorf("agent %s: %w", k.Agent, err)
	}
	id := r.agentIdentity(k.Agent)
	now := r.cfg.now().UTC()
	switch {
	case !k.Revoked.IsZero():
		return Enrolment{}, ErrTokenRevoked
	case !k.Used.IsZero():
		// The answer was lost, unless somebody has been at it since.
		if a != nil && a.Enrolment == k.Enrolment && a.Generation == 1 && bytes.Equal(k.Key, keyHash[:]) {
			return a.again(id)
		}
		return Enrolment{}, fmt.Errorf("agent %s: %w", k.Agent, ErrTokenUsed)
	case now.After(k.Expires):
		return Enrolment{}, ErrTokenExpired
	}
	next := &agent{Enrolment: 1, Enrolled: now}
	if a != nil {
		next.Enrolment = a.Enrolment + 1
	}
	e, err := next.issue(r, id, key, keyHash)
	if err != nil {
		return Enrolment{}, err
	}
	k.Used, k.Key, k.Enrolment = now, keyHash[:], next.Enrolment
	if err := put(tokens, string(hash[:]), k); err != nil {
		return Enrolment{}, err
	}
	if err := t.putAgent(k.Agent, next); err != nil {
		return Enrolment{}, err
	}
	return e, t.audit(id, "enrol", id.String(), fmt.Sprintf("token %s, key %v, certificate %x until %s",
		hash.ID(), keyHash, e.Chain[0].SerialNumber, e.Chain[0].NotAfter.UTC().Format(time.RFC3339)))
}
