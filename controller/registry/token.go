package registry

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/synmesh/synmesh/internal/identity"
)

// Why a token is refused.
var (
	ErrTokenUnknown = errors.New("the token is unknown here, or was used or expired long ago; make another with probectl token create")
	ErrTokenExpired = errors.New("the token has expired; make another with probectl token create")
	ErrTokenRevoked = errors.New("the token was revoked; make another with probectl token create")
	ErrTokenUsed    = errors.New("the token has been used, and lets in one host only; make another with probectl token create")
	ErrTokenName    = errors.New("the token is for another agent")
)

// How long tokens last.
const (
	TokenLife    = 15 * time.Minute // unless another is asked for
	MaxTokenLife = 7 * 24 * time.Hour
)

const (
	// maxTokens bounds the tokens that are kept.
	maxTokens = 100_000
	// keepTokens is how long a token is remembered that lets in nobody any more,
	// so that it can be said why.
	keepTokens = 30 * 24 * time.Hour
	// forgetTokens bounds how many are forgotten in one transaction.
	forgetTokens = 100
)

// Token is what the registry knows of a token.
type Token struct {
	ID      string
	Agent   string // who may enrol with it
	Creator string
	Created time.Time
	Expires time.Time
	Used    time.Time // zero: not used
	Revoked time.Time // zero: not revoked
}

// token is a Token on disk.
type token struct {
	Agent   string    `json:"agent"`
	Creator string    `json:"creator"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
	Used    time.Time `json:"used,omitzero"`
	Revoked time.Time `json:"revoked,omitzero"`
	// Key is the hash of the key that a certificate was issued for, and
	// Enrolment the agent's enrolment that this was.
	Key       []byte `json:"key,omitempty"`
	Enrolment uint64 `json:"enrolment,omitempty"`
}

// CreateToken makes a token for one enrolment of an agent; life 0 is TokenLife.
// The text of the token can be had from what is returned, and nowhere else. An
// agent that is enrolled keeps its certificate until the token is used.
func (r *Registry) CreateToken(actor identity.Identity, name string, life time.Duration) (identity.Token, Token, error) {
	if life == 0 {
		life = TokenLife
	}
	if r.cfg.Issuer == nil {
		return identity.Token{}, Token{}, ErrOwnPKI
	}
	if err := identity.CheckName(name); err != nil {
		return identity.Token{}, Token{}, fmt.Errorf("%w: agent %w", ErrInvalid, err)
	}
	if life < time.Second || life > MaxTokenLife {
		return identity.Token{}, Token{}, fmt.Errorf("%w: a token lasts 1s to %v, and not %v", ErrInvalid, MaxTokenLife, life)
	}
	secret := identity.NewToken(r.cfg.Root)
	now := r.cfg.now().UTC()
	record := &token{Agent: name, Creator: actor.String(), Created: now, Expires: now.Add(life)}
	hash := secret.Hash()
	err := r.update(func(t *tx) error {
		a, err := t.agent(name)
		if err != nil {
			return err
		}
		if err := a.mayEnrol(); err != nil {
			return err
		}
		kept, err := t.forgetTokens(now)
		if err != nil {
			return err
		}
		if kept >= maxTokens {
			return fmt.Errorf("%w: %d tokens are kept; wait until some have expired", ErrTooMany, kept)
		}
		if err := put(t.Bucket(tokensBucket), string(hash[:]), record); err != nil {
			return err
		}
		return t.audit(actor, "create token", "agent/"+name, "token "+hash.ID()+", until "+record.Expires.Format(time.RFC3339))
	})
	if err != nil {
		return identity.Token{}, Token{}, err
	}
	return secret, record.public(hash[:]), nil
}

// forgetTokens removes some of those that nobody asks for any more, and counts
// the others.
func (t *tx) forgetTokens(now time.Time) (kept int, err error) {
	b := t.Bucket(tokensBucket)
	var old [][]byte
	err = each(b, func(hash string, record *token) error {
		if kept++; len(old) < forgetTokens && now.Sub(record.Expires) > keepTokens {
			old = append(old, []byte(hash))
		}
		return nil
	})
	for _, hash := range old {
		if err == nil {
			err = b.Delete(hash)
		}
	}
	return kept - len(old), err
}

// RevokeToken makes a token useless. For one that has been used it is too late:
// ban the agent.
func (r *Registry) RevokeToken(actor identity.Identity, id string) error {
	prefix, err := hex.DecodeString(id)
	if err != nil || len(prefix) != len(id)/2 || len(prefix) != 8 {
		return fmt.Errorf("%w: %.80q is not the ID of a token; it has 16 hexadecimal digits", ErrInvalid, id)
	}
	return r.update(func(t *tx) error {
		b := t.Bucket(tokensBucket)
		hash, value := b.Cursor().Seek(prefix)
		if !bytes.HasPrefix(hash, prefix) {
			return fmt.Errorf("token %s: %w", id, ErrNotFound)
		}
		record, err := decode[token](id, value)
		if err != nil {
			return err
		}
		switch {
		case !record.Used.IsZero():
			return fmt.Errorf("token %s was used on %s; ban %s if it should not have been: %w",
				id, record.Used.Format(time.RFC3339), record.Agent, ErrTokenUsed)
		case !record.Revoked.IsZero():
			return nil
		}
		record.Revoked = r.cfg.now().UTC()
		if err := put(b, string(hash), record); err != nil {
			return err
		}
		return t.audit(actor, "revoke token", "agent/"+record.Agent, "token "+id)
	})
}

// Tokens returns tokens after the one of that ID, in the order of their IDs; limit
// is 1,000 at most, and that if it is 0.
func (r *Registry) Tokens(after string, limit int) (tokens []Token, err error) {
	from, err := hex.DecodeString(after)
	if err != nil {
		return nil, fmt.Errorf("%w: %.80q is not the ID of a token", ErrInvalid, after)
	}
	if len(from) > 0 {
		from = append(from, bytes.Repeat([]byte{0xff}, 24)...)
	}
	err = r.view(func(t *tx) error {
		return page(t.Bucket(tokensBucket), string(from), limit, func(hash string, record *token) {
			tokens = append(tokens, record.public([]byte(hash)))
		})
	})
	return tokens, err
}

func (k *token) public(hash []byte) Token {
	return Token{
		ID: identity.TokenHash(hash).ID(), Agent: k.Agent, Creator: k.Creator,
		Created: k.Created, Expires: k.Expires, Used: k.Used, Revoked: k.Revoked,
	}
}
