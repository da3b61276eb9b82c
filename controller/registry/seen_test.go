package registry

import (
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestWhoWasThereIsKnownAfterARestart(t *testing.T) {
	f := newFleet(t)
	names := func(want ...string) {
		t.Helper()
		all, err := f.Seen()
		var got []string
		for _, s := range all {
			got = append(got, s.Name)
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("seen were %q, want %q; %v", got, want, err)
		}
	}
	names()
	fra := Seen{Name: "fra-1", Labels: map[string]string{"dc": "fra"}, Version: "v1", Responder: "10.0.0.1:7401", Stamping: "quiet", Left: time.Unix(1_790_000_000, 5).UTC()}
	want(t, f.Remember([]Seen{fra, {Name: "nyc-1"}, {Name: "sin-1"}}, nil), nil)
	want(t, f.Remember([]Seen{{Name: "ams-1"}, {Name: "nyc-1", Labels: map[string]string{"dc": "nyc"}}}, []string{"sin-1", "nobody"}), nil)
	want(t, f.Remember([]Seen{{Name: "lhr-1"}, {Name: "no name"}}, []string{"fra-1"}), ErrInvalid) // and so nothing
	f.reopen(t)
	names("ams-1", "fra-1", "nyc-1")
	all, err := f.Seen()
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(fra, all[1]); d != "" {
		t.Error(d)
	}
	if all[2].Labels["dc"] != "nyc" {
		t.Errorf("nyc-1 is %+v", all[2])
	}
	// It is no act of anybody, and lets nobody in.
	if head, _, err := f.AuditHead(); err != nil || head != 0 {
		t.Errorf("the audit log has %d entries, %v", head, err)
	}
	if agents, err := f.Agents("", 0); err != nil || len(agents) != 0 {
		t.Errorf("the agents are %v, %v", agents, err)
	}
	want(t, f.Close(), nil)
	if n, err := Check(t.Context(), filepath.Join(f.dir, "registry")); n != 3 || err != nil {
		t.Errorf("%d entries are well, %v", n, err)
	}
	f.open(t)
}
