package registry

import (
	"crypto/ecdsa"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/synmesh/synmesh/internal/identity"
)

func TestOneTokenGivesOneCertificateTo200AtOnce(t *testing.T) {
	f := newFleet(t)
	token := f.token(t, "fra-1")
	const crowd = 200
	keys := make([]*ecdsa.PrivateKey, crowd)
	for i := range keys {
		keys[i] = newKey(t)
	}
	var begin, done sync.WaitGroup
	begin.Add(1)
	errs := make([]error, crowd)
	for i := range keys {
		done.Go(func() {
			begin.Wait()
			_, errs[i] = f.Enrol(token.Hash(), "fra-1", &keys[i].PublicKey)
		})
	}
	begin.Done()
	done.Wait()
	winner := -1
	for i, err := range errs {
		switch {
		case err == nil && winner >= 0:
			t.Fatal("two have a certificate")
		case err == nil:
			winner = i
		case !errors.Is(err, ErrTokenUsed):
			t.Fatal(err)
		}
	}
	if winner < 0 {
		t.Fatal("nobody has a certificate")
	}
	if n := f.acts(t, "enrol"); n != 1 {
		t.Errorf("%d enrolments are in the audit log", n)
	}
	for i, key := range keys {
		if err := f.Allowed(f.id("fra-1"), hash(t, key)); (err == nil) != (i == winner) {
			t.Fatalf("key %d, and %d has won: %v", i, winner, err)
		}
	}
}

func TestAnEnrolmentWhoseAnswerWasLostIsAnsweredAgain(t *testing.T) {
	f := newFleet(t)
	token, key := f.token(t, "fra-1"), newKey(t)
	first, err := f.Enrol(token.Hash(), "", &key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	f.reopen(t)
	f.clock.add(time.Hour)
	again, err := f.Enrol(token.Hash(), "fra-1", &key.PublicKey)
	if err != nil || !again.Chain[0].Equal(first.Chain[0]) || again.Generation != 1 {
		t.Fatalf("%v: another certificate", err)
	}
	// Once the agent has gone on, the token is of no more use to anybody.
	next := newKey(t)
	if _, err := f.Renew("fra-1", hash(t, key), &next.PublicKey); err != nil {
		t.Fatal(err)
	}
	_, err = f.Enrol(token.Hash(), "", &key.PublicKey)
	want(t, err, ErrTokenUsed)
}

func TestTokensAreRefusedWithTheirReason(t *testing.T) {
	f := newFleet(t)
	tests := []struct {
		name string
		make func(*testing.T) (identity.TokenHash, string)
		want error
	}{
		{"of nobody", func(*testing.T) (identity.TokenHash, string) {
			return identity.NewToken(f.ca.RootKey()).Hash(), ""
		}, ErrTokenUnknown},
		{"for another agent", func(t *testing.T) (identity.TokenHash, string) { return f.token(t, "a").Hash(), "b" }, ErrTokenName},
		{"revoked", func(t *testing.T) (identity.TokenHash, string) {
			token := f.token(t, "a")
			if err := f.RevokeToken(f.admin, token.Hash().ID()); err != nil {
				t.Fatal(err)
			}
			return token.Hash(), "a"
		}, ErrTokenRevoked},
		{"expired", func(t *testing.T) (identity.TokenHash, string) {
			token := f.token(t, "a")
			f.clock.add(TokenLife + time.Second)
			return token.Hash(), "a"
		}, ErrTokenExpired},
		{"used", func(t *testing.T) (identity.TokenHash, string) {
			token := f.token(t, "used")
			if _, err := f.Enrol(token.Hash(), "", &newKey(t).PublicKey); err != nil {
				t.Fatal(err)
			}
			return token.Hash(), ""
		}, ErrTokenUsed},
		{"of a banned agent", func(t *testing.T) (identity.TokenHash, string) {
			f.enrol(t, "banned")
			token := f.token(t, "banned")
			if err := f.Ban(f.admin, "banned", "stolen"); err != nil {
				t.Fatal(err)
			}
			return token.Hash(), ""
		}, ErrBanned},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			token, agent := tt.make(t)
			_, err := f.Enrol(token, agent, &newKey(t).PublicKey)
			want(t, err, tt.want)
		})
	}
	if _, err := f.Agent("a"); !errors.Is(err, ErrNotFound) {
		t.Errorf("an agent came of it: %v", err)
	}
}

func TestTokensAreListedAndForgotten(t *testing.T) {
	f := newFleet(t)
	made := map[string]bool{}
	for i := range 7 {
		made[f.token(t, fmt.Sprintf("a%d", i)).Hash().ID()] = true
	}
	for after := ""; ; {
		tokens, err := f.Tokens(after, 3)
		if err != nil {
			t.Fatal(err)
		}
		if len(tokens) == 0 {
			break
		}
		for _, k := range tokens {
			if after = k.ID; !made[k.ID] || k.Creator != "user/admin/alice" {
				t.Errorf("%+v comes twice or from nowhere", k)
			}
			delete(made, k.ID)
		}
	}
	if len(made) != 0 {
		t.Errorf("%d are missing", len(made))
	}
	f.clock.add(keepTokens + 2*TokenLife)
	f.token(t, "b")
	if tokens, err := f.Tokens("", 0); err != nil || len(tokens) != 1 {
		t.Errorf("%d tokens, %v", len(tokens), err)
	}
}

func TestWhatCannotBeRightIsRefused(t *testing.T) {
	f := newFleet(t)
	_, _, err := f.CreateToken(f.admin, "fra 1", 0)
	want(t, err, ErrInvalid)
	_, _, err = f.CreateToken(f.admin, "fra-1", MaxTokenLife+1)
	want(t, err, ErrInvalid)
	want(t, f.RevokeToken(f.admin, "xyz"), ErrInvalid)
	want(t, f.RevokeToken(f.admin, "0123456789abcdef"), ErrNotFound)
	want(t, f.Ban(f.admin, "fra-1", ""), ErrInvalid)
	want(t, f.Ban(f.admin, "fra-1", "typo"), ErrNotFound)
	want(t, f.Unban(f.admin, "fra-1"), ErrNotFound)
	want(t, f.Unlock(f.admin, "fra-1"), ErrNotFound)
	want(t, f.RevokeUser(f.admin, "bob", "left"), ErrNotFound)
	if number, _, err := f.AuditHead(); err != nil || number != 0 {
		t.Errorf("%d entries in the audit log, %v", number, err)
	}
}
