package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

func TestAgentsAreShownWithWhatTheyHoldAndLost(t *testing.T) {
	agents := []*synmeshv1.Agent{
		{Name: "fra-1", State: synmeshv1.AgentState_AGENT_STATE_CONNECTED, Version: "v2", Stamping: "tap", Produced: 100, Backlog: 12, Dropped: 7,
			Drops: []*synmeshv1.DropCount{
				{Reason: synmeshv1.DropReason_DROP_REASON_FULL, Results: 5}, {Reason: synmeshv1.DropReason_DROP_REASON_DISK, Results: 2}},
			ClockOffset: durationpb.New(-1500 * time.Microsecond), ClockError: durationpb.New(200 * time.Microsecond),
			Refused: []*synmeshv1.Refusal{{Source: "measurements/fast", Reason: "20 SYNs a second"}}},
		{Name: "nyc-1", State: synmeshv1.AgentState_AGENT_STATE_GOSSIPED},
	}
	for _, tt := range []struct {
		form format
		want []string
	}{
		{asWide, []string{"BACKLOG", "DROPPED", "CLOCK", "REFUSED", "VERSION", "12", "7 (disk 2, full 5)", "-1.5ms +-0.2ms", "v2"}},
		{asJSONL, []string{`"backlog":12,"produced":100,"dropped":7,"dropped_by_reason":{"disk":2,"full":5}`,
			`"clock_offset_seconds":-0.0015,"clock_error_seconds":0.0002,"refused":{"measurements/fast":"20 SYNs a second"}`}},
	} {
		var out bytes.Buffer
		a := &app{out: &out, err: &out, output: tt.form}
		if err := a.printAgents(agents); err != nil {
			t.Fatal(err)
		}
		for _, want := range tt.want {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%v: %q is not in\n%s", tt.form, want, out.String())
			}
		}
	}
}
