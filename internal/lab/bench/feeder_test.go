//go:build linux

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

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

func TestLinesSayWhatReportsSay(t *testing.T) {
	start := time.Unix(1e9, 0)
	l, same := newFeeder(300, start), newFeeder(300, start)
	for range 3 {
		l.measure()
		var m synmeshv1.SessionRequest
		if err := proto.Unmarshal(slices.Concat(l.head, l.blocks), &m); err != nil {
			t.Fatal(err)
		}
		var want []string
		for row := range convert.Rows(l.name, m.GetReport()) {
			host, _, _ := strings.Cut(row.Target, ":")
			want = append(want, fmt.Sprintf("ingest,agent=%s,target=%s,port=443 outcome=1i,rtt=%di,lateness=%di,host_delay=%di %d",
				l.name, host, row.RTT, row.Lateness, row.HostDelay, row.Time.UnixNano()))
		}
		got := strings.Split(strings.TrimSpace(string(same.lines(nil, same.tags()))), "\n")
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("second %d: %d lines, such as %s; want %d, such as %s", l.next, len(got), got[0], len(want), want[0])
		}
		l.next, same.next = l.next+1, same.next+1
	}
}

func TestReportsAreDueAtTheirPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		s := supply{rate: 4 * feederSeries, reports: 3} // of 8 agents: each reports every 2 s
		for i, want := range []time.Duration{0, 250 * time.Millisecond} {
			p := s.pace(began, i, 8)
			for n := range 3 {
				due, ok := p.wait(t.Context(), n)
				if want := want + time.Duration(n)*2*time.Second; !ok || due.Sub(began) != want {
					t.Errorf("agent %d: report %d is due after %v, %v; want %v", i, n, due.Sub(began), ok, want)
				}
			}
			if _, ok := p.wait(t.Context(), 3); ok {
				t.Errorf("agent %d reports once more", i)
			}
			if want := began.Add(4*time.Second + want); !time.Now().Equal(want) && i == 0 {
				t.Errorf("agent %d is done at %v; want %v", i, time.Now(), want)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, ok := (pace{}).wait(ctx, 0); ok {
			t.Error("a report is due though it is enough")
		}
	})
}

func TestMetricsAreFoundByTheirWholeNames(t *testing.T) {
	page := "rows_total 1\nvm_rows_total{type=\"influx\"} 42\n"
	if n, err := metric(page, `vm_rows_total{type="influx"}`); n != 42 || err != nil {
		t.Errorf("got %d, %v; want 42", n, err)
	}
	if n, err := metric(page, "vm_rows_total"); err == nil {
		t.Errorf("got %d; want that there is none", n)
	}
}

func TestAgesCountFromTheAnswer(t *testing.T) {
	now := time.Unix(1e9, 0)
	list := []*synmeshv1.Result{
		{Time: timestamppb.New(now.Add(-30 * time.Millisecond)), Rtt: durationpb.New(20 * time.Millisecond), Outcome: synmeshv1.Outcome_OUTCOME_OPEN},
		{Time: timestamppb.New(now.Add(-time.Second)), Outcome: synmeshv1.Outcome_OUTCOME_TIMEOUT},
	}
	ages := appendAges([]time.Duration{time.Millisecond, 2 * time.Millisecond}, now, list)
	row, err := newLatencyRow("a", ages)
	if want := (latencyRow{"a", 3, 2 * time.Millisecond, 2 * time.Millisecond, 10 * time.Millisecond}); err != nil || row != want {
		t.Errorf("got %+v, %v; want %+v", row, err, want)
	}
	if _, err := newLatencyRow("a", nil); err == nil {
		t.Error("a row of no result is no error")
	}
}
