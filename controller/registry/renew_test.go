package registry

import (
	"testing"
	"time"
)

func TestAnAgentRenewsForEver(t *testing.T) {
	f := newFleet(t)
	key := f.enrol(t, "fra-1")
	for i := range uint64(maxEarlier + 3) {
		next := newKey(t)
		e, err := f.Renew("fra-1", hash(t, key), &next.PublicKey)
		if err != nil || e.Generation != i+2 {
			t.Fatalf("generation %d: %v", e.Generation, err)
		}
		// Until the new one has been seen, the agent may not have it.
		want(t, f.Allowed(f.id("fra-1"), hash(t, key)), nil)
		want(t, f.Admit(f.id("fra-1"), hash(t, next)), nil)
		want(t, f.Allowed(f.id("fra-1"), hash(t, key)), ErrSuperseded)
		key = next
		f.clock.add(35 * 24 * time.Hour) // offline, with a certificate that expired
	}
	f.reopen(t)
	want(t, f.Allowed(f.id("fra-1"), hash(t, key)), nil)
}

func TestALostAnswerToARenewalIsNoClone(t *testing.T) {
	f := newFleet(t)
	key, next := f.enrol(t, "fra-1"), newKey(t)
	first, err := f.Renew("fra-1", hash(t, key), &next.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	f.reopen(t)
	for range 3 {
		again, err := f.Renew("fra-1", hash(t, key), &next.PublicKey)
		if err != nil || again.Generation != 2 || !again.Chain[0].Equal(first.Chain[0]) {
			t.Fatalf("generation %d, %v", again.Generation, err)
		}
	}
	want(t, f.Admit(f.id("fra-1"), hash(t, next)), nil)
	// A request that was under way all the time does no harm either.
	if _, err := f.Renew("fra-1", hash(t, key), &next.PublicKey); err != nil {
		t.Fatal(err)
	}
	if n := f.acts(t, "renew"); n != 1 {
		t.Errorf("%d renewals are in the audit log", n)
	}
}

func TestACopiedStateLocksBothCopies(t *testing.T) {
	f := newFleet(t)
	stolen := f.enrol(t, "fra-1")
	key, copied := newKey(t), newKey(t)
	if _, err := f.Renew("fra-1", hash(t, stolen), &key.PublicKey); err != nil {
		t.Fatal(err)
	}
	token := f.token(t, "fra-1")
	changed := f.Changed()
	_, err := f.Renew("fra-1", hash(t, stolen), &copied.PublicKey)
	want(t, err, ErrLocked)
	<-changed
	for range 2 {
		want(t, f.Allowed(f.id("fra-1"), hash(t, key)), ErrLocked)
		want(t, f.Allowed(f.id("fra-1"), hash(t, stolen)), ErrLocked)
		_, err = f.Renew("fra-1", hash(t, key), &newKey(t).PublicKey)
		want(t, err, ErrLocked)
		_, _, err = f.CreateToken(f.admin, "fra-1", 0)
		want(t, err, ErrLocked)
		f.reopen(t)
	}
	if n := f.acts(t, "lock agent"); n != 1 {
		t.Errorf("%d locks are in the audit log", n)
	}
	want(t, f.Unlock(f.admin, "fra-1"), nil)
	want(t, f.Allowed(f.id("fra-1"), hash(t, key)), ErrUnknown)
	_, err = f.Renew("fra-1", hash(t, key), &newKey(t).PublicKey)
	want(t, err, ErrUnknown)
	_, err = f.Enrol(token.Hash(), "", &copied.PublicKey)
	want(t, err, ErrTokenRevoked) // it may have been in the wrong hands, too
	f.enrol(t, "fra-1")
}

func TestAnOldCopyLocksToo(t *testing.T) {
	f := newFleet(t)
	old := f.enrol(t, "fra-1")
	key := old
	for range 5 {
		next := newKey(t)
		if _, err := f.Renew("fra-1", hash(t, key), &next.PublicKey); err != nil {
			t.Fatal(err)
		}
		key = next
	}
	_, err := f.Renew("fra-1", hash(t, old), &key.PublicKey)
	want(t, err, ErrLocked)
}

func TestAHostThatAnotherReplacedLocksNobody(t *testing.T) {
	f := newFleet(t)
	before := f.enrol(t, "fra-1")
	after := f.enrol(t, "fra-1")
	want(t, f.Allowed(f.id("fra-1"), hash(t, before)), ErrSuperseded)
	_, err := f.Renew("fra-1", hash(t, before), &newKey(t).PublicKey)
	want(t, err, ErrUnknown)
	want(t, f.Admit(f.id("fra-1"), hash(t, after)), nil)
}

func TestARenewalTakesANewKey(t *testing.T) {
	f := newFleet(t)
	first := f.enrol(t, "fra-1")
	_, err := f.Renew("fra-1", hash(t, first), &first.PublicKey)
	want(t, err, ErrInvalid)
	second := newKey(t)
	if _, err := f.Renew("fra-1", hash(t, first), &second.PublicKey); err != nil {
		t.Fatal(err)
	}
	_, err = f.Renew("fra-1", hash(t, second), &first.PublicKey)
	want(t, err, ErrInvalid)
	want(t, f.Allowed(f.id("fra-1"), hash(t, second)), nil)
}
