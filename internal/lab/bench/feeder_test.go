//go:build linux

package main

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/synmesh/synmesh/internal/convert"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

func TestAFeederReportsOneResultOfEachOfItsSeries(t *testing.T) {
	start := time.Unix(1e9, 0)
	l := newFeeder(3, start)
	for n := uint64(1); n <= 200; n += 199 { // with sequences of one byte and of two
		l.next = n
		l.measure()
		var m synmeshv1.SessionRequest
		if err := proto.Unmarshal(slices.Concat(l.head, l.blocks), &m); err != nil {
			t.Fatal(err)
		}
		r := m.GetReport()
		if err := convert.CheckReport(r); err != nil || r.GetSequence() != n || r.GetEpoch() != 4 || r.GetProduced() != n*feederSeries {
			t.Fatalf("sequence %d, epoch %d, produced %d, %v", r.GetSequence(), r.GetEpoch(), r.GetProduced(), err)
		}
		targets, sum := make(map[string]bool), time.Duration(0)
		for row := range convert.Rows("a", r) {
			targets[row.Target] = true
			sum += row.RTT
			due := row.Time.Add(-row.Lateness).Sub(start.Add(time.Duration(n) * time.Second))
			if due < 0 || due >= time.Second || row.RTT < time.Millisecond || row.HostDelay <= 0 || row.LocalPort < 61000 || row.LocalPort > 61004 {
				t.Fatalf("second %d: %+v", n, row)
			}
		}
		if len(targets) != feederSeries || int64(sum) != l.sent {
			t.Errorf("%d targets and %v of round trips, want %d and %v", len(targets), sum, feederSeries, time.Duration(l.sent))
		}
	}
}
