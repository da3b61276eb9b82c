package policy

import (
	"strings"
	"testing"
	"time"

	"github.com/synmesh/synmesh/probe"
)

func targets(t testing.TB, texts ...string) (ts []probe.Target) {
	t.Helper()
	for _, text := range texts {
		some, err := probe.ParseTargets(text)
		if err != nil {
			t.Fatal(err)
		}
		ts = append(ts, some...)
	}
	return ts
}

func TestCheckKeepsTheRatesBelowTheCeilings(t *testing.T) {
	one := targets(t, "db.fra:5432")
	many := make([]probe.Target, 0, 20000)
	for i := range cap(many) {
		host := string(rune('a'+i%26)) + string(rune('a'+i/26%26)) + string(rune('a'+i/26/26)) + ".fra"
		many = append(many, probe.Target{Name: host, Host: host, Port: 1})
	}
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
		{"a target named twice counts twice", probe.Spec{Targets: targets(t, "db.fra:1", "db.fra:2", "db.fra:1"), Interval: 100 * time.Millisecond, Flows: 1},
			"20 SYNs a second"},
		{"under two names it counts twice as well", probe.Spec{
			Targets: []probe.Target{{Name: "a", Host: "db.fra", Port: 1}, {Name: "b", Host: "DB.fra.", Port: 1}}, Interval: 150 * time.Millisecond, Flows: 1},
			"an interval of at least 0.2s"},
		{"a table of ports up to a host's ceiling is allowed", probe.Spec{Targets: targets(t, "db.fra:1-1000"), Interval: 10 * time.Second, Flows: 1}, ""},
		{"a larger one is not", probe.Spec{Targets: targets(t, "db.fra:1-1001"), Interval: time.Second, Flows: 1},
			"1001 SYNs a second to the ports of db.fra; agents allow 100: an interval of at least 10.01s with 1 flows, or fewer ports, or fewer flows"},
		{"other hosts have ceilings of their own", probe.Spec{Targets: targets(t, "db.fra:1-100", "db.nyc:1-100"), Interval: time.Second, Flows: 1}, ""},
		{"all together have one, too", probe.Spec{Targets: many[:10000], Interval: time.Second, Flows: 1}, ""},
		{"beyond that it is refused", probe.Spec{Targets: many, Interval: time.Second, Flows: 3, Retries: 1},
			"120000 SYNs a second in all; agents allow 10000: an interval of at least 12s with 3 flows, or fewer targets, or fewer than 1 retries or fewer flows"},
		{"an address may be a responder's", probe.Spec{Targets: targets(t, "192.0.2.1:7401"), Interval: time.Millisecond, Flows: 1}, ""},
		{"which has a ceiling as well", probe.Spec{Targets: targets(t, "[2001:db8::1]:7401"), Interval: time.Millisecond, Flows: 2},
			"2000 SYNs a second to one target; even a responder gets no more than 1000: an interval of at least 0.002s with 2 flows, or fewer flows"},
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
