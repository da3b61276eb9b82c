package registry

import (
	"bytes"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"time"

	"github.com/synmesh/synmesh/internal/identity"
)

// ErrLastAdmin says that nobody could let anybody in any more.
var ErrLastAdmin = errors.New("this is the only admin left; create another first")

// User is what the registry knows of a person.
type User struct {
	Name    string
	Role    identity.Role // 0: an own PKI's
	Creator string
	Created time.Time
	Expires time.Time
	Key     identity.KeyHash
	Revoked *Mark // nil: not
}

// user is a User on disk.
type user struct {
	Role    identity.Role `json:"role"`
	Creator string        `json:"creator"`
	Created time.Time     `json:"created,omitzero"`
	Expires time.Time     `json:"expires,omitzero"`
	Key     []byte        `json:"key,omitempty"`
	Chain   [][]byte      `json:"chain,omitempty"`
	Revoked *Mark         `json:"revoked,omitempty"`
}

func (u *user) standing() standing {
	s := standing{enrolled: len(u.Key) > 0, role: u.Role}
	if s.enrolled {
		s.key = identity.KeyHash(u.Key)
	}
	if u.Revoked != nil {
		s.refusal = u.Revoked.refuse(ErrRevoked, "an admin can create the user again")
	}
	return s
}

// active tells whether the user can do anything.
func (u *user) active(now time.Time) bool { return u.Revoked == nil && now.Before(u.Expires) }

// CreateUser issues a certificate for a person's key; for life see
// authority.Issue. A name can be taken again when its certificate has expired or was
// revoked. Who asks again with the same key and role gets the same certificate.
func (r *Registry) CreateUser(actor identity.Identity, name string, role identity.Role, key *ecdsa.PublicKey, life time.Duration) (Enrolment, error) {
	if r.cfg.Issuer == nil {
		return Enrolment{}, ErrOwnPKI
	}
	id := identity.Identity{Fleet: r.cfg.Fleet, Kind: identity.User, Role: role, Name: name}
	if err := id.Check(); err != nil {
		return Enrolment{}, fmt.Errorf("%w: user %w", ErrInvalid, err)
	}
	hash, err := identity.HashKey(key)
	if err != nil {
		return Enrolment{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return r.createUser(actor, id, key, hash, life, false)
}

// RestoreAdmin makes an admin, whoever had the name before: their certificate is of
// no use any more.
func (r *Registry) RestoreAdmin(actor identity.Identity, name string, key *ecdsa.PublicKey) (Enrolment, error) {
	if r.cfg.Issuer == nil {
		return Enrolment{}, ErrOwnPKI
	}
	id := identity.Identity{Fleet: r.cfg.Fleet, Kind: identity.User, Role: identity.Admin, Name: name}
	if err := id.Check(); err != nil {
		return Enrolment{}, fmt.Errorf("%w: user %w", ErrInvalid, err)
	}
	hash, err := identity.HashKey(key)
	if err != nil {
		return Enrolment{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return r.createUser(actor, id, key, hash, 0, true)
}

// createUser makes a user; one of the name who is active is in the way, unless they are to be replaced.
func (r *Registry) createUser(actor, id identity.Identity, key *ecdsa.PublicKey, hash identity.KeyHash, life time.Duration, replace bool) (Enrolment, error) {
	var e Enrolment
	name, role := id.Name, id.Role
	err := r.update(func(t *tx) error {
		now := r.cfg.now().UTC()
		before, err := t.user(name)
		if err != nil {
			return err
		}
		if before != nil && before.active(now) && !replace {
			if before.Role != role || !bytes.Equal(before.Key, hash[:]) {
				return fmt.Errorf("user %s: %w, as %v until %s; revoke it first",
					name, ErrExists, before.Role, before.Expires.Format(time.RFC3339))
			}
			chain, err := identity.ParseChain(before.Chain)
			if err != nil {
				return fmt.Errorf("%w: user %s: %w", ErrDamaged, name, err)
			}
			e = Enrolment{id, 1, chain}
			return errNothing
		}
		chain, err := r.cfg.Issuer.Issue(id, key, life)
		if err != nil {
			return err
		}
		u := &user{Role: role, Creator: actor.String(), Created: now, Expires: chain[0].NotAfter.UTC(), Key: hash[:]}
		for _, c := range chain {
			u.Chain = append(u.Chain, c.Raw)
		}
		if err := t.putUser(name, u); err != nil {
			return err
		}
		e = Enrolment{id, 1, chain}
		return t.audit(actor, "create user", id.String(), fmt.Sprintf("key %v, certificate %x until %s",
			hash, chain[0].SerialNumber, u.Expires.Format(time.RFC3339)))
	})
	if err != nil && !errors.Is(err, errNothing) {
		return Enrolment{}, err
	}
	return e, nil
}

// RevokeUser keeps a person out.
func (r *Registry) RevokeUser(actor identity.Identity, name, reason string) error {
	if err := identity.CheckName(name); err != nil {
		return fmt.Errorf("%w: user %w", ErrInvalid, err)
	}
	if reason == "" || len(reason) > maxDetail {
		return fmt.Errorf("%w: the reason has %d characters; it has 1 to %d", ErrInvalid, len(reason), maxDetail)
	}
	if r.cfg.Issuer == nil && actor.Kind == identity.User && actor.Name == name {
		// It is not known here who else there is, and nobody could take it back.
		return fmt.Errorf("user %s: %w: with your own PKI nobody can revoke themselves; ask another admin", name, ErrLastAdmin)
	}
	return r.update(func(t *tx) error {
		u, err := t.user(name)
		switch {
		case err != nil:
			return err
		case u == nil && r.cfg.Issuer != nil:
			return fmt.Errorf("user %s: %w", name, ErrNotFound)
		case u == nil:
			u = &user{}
		}
		if u.Role == identity.Admin && u.active(r.cfg.now()) {
			if err := t.checkOtherAdmin(name); err != nil {
				return err
			}
		}
		u.Revoked = r.mark(actor, reason)
		if err := t.putUser(name, u); err != nil {
			return err
		}
		return t.audit(actor, "revoke user", "user/"+u.Role.String()+"/"+name, reason)
	})
}

func (t *tx) checkOtherAdmin(name string) error {
	others, now := 0, t.registry.cfg.now()
	err := each(t.Bucket(usersBucket), func(other string, u *user) error {
		if other != name && u.Role == identity.Admin && u.active(now) {
			others++
		}
		return nil
	})
	if err == nil && others == 0 {
		err = fmt.Errorf("user %s: %w", name, ErrLastAdmin)
	}
	return err
}

// Users returns users after the one of that name, in order; limit is 1,000 at most,
// and that if it is 0.
func (r *Registry) Users(after string, limit int) (users []User, err error) {
	err = r.view(func(t *tx) error {
		return page(t.Bucket(usersBucket), after, limit, func(name string, u *user) {
			p := User{Name: name, Role: u.Role, Creator: u.Creator, Created: u.Created, Expires: u.Expires, Revoked: u.Revoked}
			copy(p.Key[:], u.Key)
			users = append(users, p)
		})
	})
	return users, err
}
