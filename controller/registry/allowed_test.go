package registry

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/synmesh/synmesh/internal/identity"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

func TestBanAndUnbanAreToldToThoseWhoWatch(t *testing.T) {
	f := newFleet(t)
	key := f.enrol(t, "fra-1")
	id := f.id("fra-1")
	changed := f.Changed()
	want(t, f.Ban(f.admin, "fra-1", "it is on fire"), nil)
	<-changed
	want(t, f.Allowed(id, hash(t, key)), ErrBanned)
	_, err := f.Renew("fra-1", hash(t, key), &newKey(t).PublicKey)
	want(t, err, ErrBanned)
	f.reopen(t)
	want(t, f.Admit(id, hash(t, key)), ErrBanned)
	changed = f.Changed()
	want(t, f.Unban(f.admin, "fra-1"), nil)
	<-changed
	want(t, f.Allowed(id, hash(t, key)), nil)
	if f.acts(t, "ban agent") != 1 || f.acts(t, "unban agent") != 1 {
		t.Error("the audit log does not tell")
	}
}

func TestOthersAreNotAllowed(t *testing.T) {
	f := newFleet(t)
	key := hash(t, f.enrol(t, "fra-1"))
	foreign := f.id("fra-1")
	foreign.Fleet = "fleet-0000000000000000"
	want(t, f.Allowed(foreign, key), ErrUnknown)
	want(t, f.Allowed(f.id("fra-2"), key), ErrUnknown)
	want(t, f.Allowed(f.id("fra-1"), hash(t, newKey(t))), ErrSuperseded)
	want(t, f.Allowed(identity.Identity{Fleet: f.ca.Fleet()}, key), ErrUnknown)
	want(t, f.Allowed(f.admin, key), ErrUnknown)
}

func TestUsersComeAndGo(t *testing.T) {
	f := newFleet(t)
	alice, bob := newKey(t), newKey(t)
	e, err := f.CreateUser(f.admin, "alice", identity.Admin, &alice.PublicKey, 0)
	if err != nil {
		t.Fatal(err)
	}
	again, err := f.CreateUser(f.admin, "alice", identity.Admin, &alice.PublicKey, 0)
	if err != nil || !again.Chain[0].Equal(e.Chain[0]) {
		t.Errorf("another certificate, %v", err)
	}
	_, err = f.CreateUser(f.admin, "alice", identity.Viewer, &bob.PublicKey, 0)
	want(t, err, ErrExists)
	want(t, f.Allowed(e.Identity, hash(t, alice)), nil)
	weaker := e.Identity
	weaker.Role = identity.Viewer
	want(t, f.Allowed(weaker, hash(t, alice)), ErrSuperseded)
	want(t, f.RevokeUser(f.admin, "alice", "left"), ErrLastAdmin)

	b, err := f.CreateUser(f.admin, "bob", identity.Admin, &bob.PublicKey, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	want(t, f.RevokeUser(f.admin, "alice", "left"), nil)
	f.reopen(t)
	want(t, f.Allowed(e.Identity, hash(t, alice)), ErrRevoked)
	want(t, f.Allowed(b.Identity, hash(t, bob)), nil)
	users, err := f.Users("", 0)
	if err != nil || len(users) != 2 || users[0].Revoked == nil || users[1].Key != hash(t, bob) {
		t.Errorf("%+v, %v", users, err)
	}
	// A name is free again when its certificate has expired.
	f.clock.add(2 * time.Hour)
	if _, err := f.CreateUser(f.admin, "bob", identity.Viewer, &newKey(t).PublicKey, 0); err != nil {
		t.Error(err)
	}
	want(t, f.Allowed(b.Identity, hash(t, bob)), ErrSuperseded)
}

func TestAnOwnPKIIsBelievedButForBans(t *testing.T) {
	r, err := Open(Config{Dir: filepath.Join(t.TempDir(), "registry"), Fleet: "example.org"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { want(t, r.Close(), nil) }()
	key := hash(t, newKey(t))
	agent := identity.Identity{Fleet: "example.org", Kind: identity.Agent, Name: "fra-1"}
	carol := identity.Identity{Fleet: "example.org", Kind: identity.User, Role: identity.Admin, Name: "carol"}
	want(t, r.Admit(agent, key), nil)
	want(t, r.Allowed(carol, key), nil)
	dave := carol
	dave.Name = "dave"
	want(t, r.RevokeUser(carol, "carol", "by mistake"), ErrLastAdmin)
	want(t, r.Ban(carol, "fra-1", "stolen"), nil)
	want(t, r.Admit(agent, key), ErrBanned)
	want(t, r.RevokeUser(dave, "carol", "left"), nil)
	want(t, r.Allowed(carol, key), ErrRevoked)
	want(t, r.Unban(carol, "fra-1"), nil)
	want(t, r.Admit(agent, key), nil)
	_, _, err = r.CreateToken(carol, "fra-1", 0)
	want(t, err, ErrOwnPKI)
}

func TestMeasurementsAreStoredAllOrNone(t *testing.T) {
	f := newFleet(t)
	a, b := &synmeshv1.Measurement{Name: "a", Flows: 1}, &synmeshv1.Measurement{Name: "b", Flows: 2}
	changed := f.Changed()
	want(t, f.ChangeMeasurements(t.Context(), f.admin, []*synmeshv1.Measurement{b, a}, nil), nil)
	<-changed
	want(t, f.ChangeMeasurements(t.Context(), f.admin, []*synmeshv1.Measurement{{Name: "c"}}, []string{"a", "x"}), ErrNotFound)
	want(t, f.ChangeMeasurements(t.Context(), f.admin, []*synmeshv1.Measurement{{Name: "c"}, {Name: "no name"}}, nil), ErrInvalid)
	for range 2 {
		got, revision, err := f.Measurements()
		if diff := cmp.Diff([]*synmeshv1.Measurement{a, b}, got, protocmp.Transform()); diff != "" || revision != 1 || err != nil {
			t.Errorf("revision %d, %v\n%s", revision, err, diff)
		}
		f.reopen(t)
	}
	want(t, f.ChangeMeasurements(t.Context(), identity.Identity{}, nil, []string{"a"}), nil)
	if entries, err := f.Audit(2, 0); err != nil || len(entries) != 1 || entries[0].Actor != "anybody" {
		t.Errorf("%+v, %v", entries, err)
	}
	if got, revision, _ := f.Measurements(); len(got) != 1 || revision != 2 {
		t.Errorf("%v at revision %d", got, revision)
	}
	if f.acts(t, "set measurement") != 2 || f.acts(t, "delete measurement") != 1 {
		t.Error("the audit log does not tell")
	}
}
