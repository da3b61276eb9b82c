package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/synmesh/synmesh/probe"
)

// counting is a prober that says how often it was asked.
type counting struct{ asked int }

func (c *counting) Do(context.Context, probe.Spec, func(*probe.Result)) error {
	c.asked++
	return nil
}

func TestOnlyRootGoesFasterThanAgentsDo(t *testing.T) {
	fast := probe.Spec{Targets: []probe.Target{{Name: "a", Host: "192.0.2.1", Port: 1}}, Interval: 10 * time.Millisecond, Flows: 1, Timeout: time.Second}
	slow := fast
	slow.Interval = 100 * time.Millisecond
	for _, tt := range []struct {
		who  string
		uid  int
		spec probe.Spec
		want string // "" if it is allowed
	}{
		{"root may do anything", 0, fast, ""},
		{"anybody may do what agents do", 65534, slow, ""},
		{"nobody else goes faster", 65534, fast, "100 SYNs a second to one target; agents allow 10: an interval of at least 0.1s with 1 flows"},
		{"a system without such a number has no root", -1, fast, "from this host only root may go faster than agents do"},
	} {
		t.Run(tt.who, func(t *testing.T) {
			var c counting
			err := held(&c, tt.uid).Do(context.Background(), tt.spec, nil)
			if tt.want == "" {
				if err != nil || c.asked != 1 {
					t.Errorf("%v, asked %d times", err, c.asked)
				}
				return
			}
			var e *exit
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") || c.asked != 0 {
				t.Errorf("%v, asked %d times; want it to say %q", err, c.asked, tt.want)
			}
			if !errors.As(err, &e) || e.code != exitUsage {
				t.Errorf("%v is no fault of usage", err)
			}
		})
	}
}
