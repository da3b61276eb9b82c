package policy

import (
	"strings"
	"testing"
	"time"

	"github.com/synmesh/synmesh/probe"
)

func TestCheckKeepsTheRateOfEachTargetBelowTheCeiling(t *testing.T) {
	targets := func(texts ...string) (ts []probe.Target) {
		for _, text := range texts {
			some, err := probe.ParseTargets(text)
			if err != nil {
				t.Fatal(err)
			}
			ts = append(ts, some...)
		}
		return ts
	}
	one := targets("db.fra:5432")
	tests := []struct {
		name    string
		spec    probe.Spec
		refused string // a part of the message; empty: allowed
	}{
		{"one flow a second is allowed", probe.Spec{Targets: one, Interval: time.Second, Flows: 1}, ""},
		{"just the ceiling is allowed", probe.Spec{Targets: one, Interval: 100 * time.Millisecond, Flows: 1}, ""},
		{"just the ceiling in many flows is allowed", probe.Spec{Targets: one, Interval: 25600 * time.Millisecond, Flows: 256}, ""},
		{"a little more is refused", probe.Spec{Targets: one, Interval: 99 * time.Millisecond, Flows: 1},
			"10.1 SYNs a second to one target; agents allow 10: an interval of at least 0.1s with 1 flows, or fewer flows"},
		{"flows count together", probe.Spec{Targets: one, Interval: time.Second, Flows: 11}, "an interval of at least 1.1s with 11 flows"},
		{"retries count, for a silent target gets them all", probe.Spec{Targets: one, Interval: time.Second, Flows: 2, Retries: 5},
			"12 SYNs a second to one target; agents allow 10: an interval of at least 1.2s with 2 flows, or fewer than 5 retries or fewer flows"},
		{"a hundred targets are as many ceilings", probe.Spec{Targets: targets("db.fra:1-100"), Interval: 100 * time.Millisecond, Flows: 1}, ""},
		{"a target named twice counts twice", probe.Spec{Targets: targets("db.fra:1", "db.fra:2", "db.fra:1"), Interval: 100 * time.Millisecond, Flows: 1},
			"20 SYNs a second"},
		{"under two names it counts twice as well", probe.Spec{
			Targets: []probe.Target{{Name: "a", Host: "db.fra", Port: 1}, {Name: "b", Host: "db.fra", Port: 1}}, Interval: 150 * time.Millisecond, Flows: 1},
			"an interval of at least 0.2s"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := Check(&tt.spec)
			switch {
			case tt.refused == "" && err != nil:
				t.Errorf("refused: %v", err)
			case tt.refused != "" && (err == nil || !strings.Contains(err.Error(), tt.refused)):
				t.Errorf("got %v, want it to say %q", err, tt.refused)
			}
		})
	}
}

// What a refusal tells to do is allowed.
func TestAnIntervalThatARefusalNamesIsAllowed(t *testing.T) {
	spec := probe.Spec{Targets: []probe.Target{{Name: "a:1", Host: "a", Port: 1}}, Interval: time.Millisecond, Flows: 7}
	if err := Check(&spec); err == nil || !strings.Contains(err.Error(), "at least 0.7s") {
		t.Fatalf("got %v, want 0.7s named", err)
	}
	spec.Interval = 700 * time.Millisecond
	if err := Check(&spec); err != nil {
		t.Errorf("refused: %v", err)
	}
}
