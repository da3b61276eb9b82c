package policy

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/probe/schedule"
)

// someSpec draws a Spec of few hosts and ports, so that they meet.
func someSpec(t *rapid.T) probe.Spec {
	s := probe.Spec{
		Interval: time.Duration(rapid.Int64Range(int64(probe.MinInterval), int64(time.Minute)).Draw(t, "interval")),
		Flows:    rapid.IntRange(1, 4).Draw(t, "flows"), Retries: rapid.IntRange(0, 2).Draw(t, "retries"), Timeout: time.Second,
	}
	for range rapid.IntRange(1, 30).Draw(t, "targets") {
		host := fmt.Sprintf("192.0.2.%d", rapid.IntRange(1, 3).Draw(t, "host"))
		s.Targets = append(s.Targets, probe.Target{Name: "x", Host: host, Port: uint16(rapid.IntRange(1, 5).Draw(t, "port"))})
	}
	return s
}

// firstPort are the responders of these tests.
func firstPort(t probe.Target) bool { return t.Port == 1 }

var interval = regexp.MustCompile(`at least ([0-9.]+)s`)

// What a refusal tells to do is allowed.
func TestAnIntervalThatARefusalNamesIsAllowed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := someSpec(t)
		err := count(&s, firstPort).alone()
		if err == nil {
			t.Skip("nothing was refused")
		}
		named := interval.FindStringSubmatch(err.Error())
		if named == nil {
			t.Fatalf("no interval is named: %v", err)
		}
		seconds, _ := strconv.ParseFloat(named[1], 64)
		s.Interval = time.Duration(seconds * float64(time.Second))
		if again := count(&s, firstPort).alone(); again != nil {
			t.Errorf("first %v, then %v", err, again)
		}
	})
}

func TestWhatIsAdmittedNeverExceedsACeiling(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := Limit(nil, nil)
		var now time.Time
		var going []*claim
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(time.Second)).Draw(t, "pause")))
			if len(going) > 0 && rapid.Bool().Draw(t, "release") {
				i := rapid.IntRange(0, len(going)-1).Draw(t, "which")
				l.release(going[i], now)
				going = slices.Delete(going, i, i+1)
			} else {
				s := someSpec(t)
				c := count(&s, firstPort)
				if c.alone() != nil {
					continue
				}
				if wait, _, err := l.try(c, now); err == nil && wait == 0 {
					going = append(going, c)
				} else if len(going) == 0 && err != nil {
					t.Fatalf("refused with nothing going on: %v", err)
				}
			}
			exceeded(t, going)
		}
		for _, c := range going {
			l.release(c, now)
		}
		s := someSpec(t)
		s.Interval = 24 * time.Hour
		last := count(&s, firstPort)
		if _, _, err := l.try(last, now.Add(burst)); err != nil {
			t.Fatal(err)
		}
		l.room.remove(last)
		if r := l.room; len(r.targets)+len(r.hosts)+len(l.ended)+r.listed != 0 || r.total != 0 {
			t.Errorf("all is over, and this is left: %+v, %d ended", r, len(l.ended))
		}
	})
}

// exceeded sums up once more, from the Specs.
func exceeded(t *rapid.T, going []*claim) {
	total, ports, hosts := 0.0, make(map[string]float64), make(map[string]float64)
	for _, c := range going {
		for _, to := range c.spec.Targets {
			rate := float64(c.spec.Flows*(1+c.spec.Retries)) / c.spec.Interval.Seconds()
			total += rate
			ports[to.Address()] += rate
			ceiling := MaxRate
			if firstPort(to) {
				ceiling = MaxResponderRate
			} else if hosts[to.Host] += rate; hosts[to.Host] > MaxHostRate+1e-6 {
				t.Fatalf("%s gets %v SYNs a second", to.Host, hosts[to.Host])
			}
			if ports[to.Address()] > float64(ceiling)+1e-6 {
				t.Fatalf("%s gets %v SYNs a second, of %d", to.Address(), ports[to.Address()], ceiling)
			}
		}
	}
	if total > MaxTotal+1e-6 {
		t.Fatalf("%v SYNs a second in all", total)
	}
}

// The engines probe targets in turn. However they are listed, a second sees no
// more of a host than its rate, but for some where the turns of hosts do not fit.
func TestNoHostGetsItsShareInOneGo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := someSpec(t)
		s.Retries = 0
		c := count(&s, func(probe.Target) bool { return false })
		if c.alone() != nil {
			s.Interval *= 1000
		}
		if c.alone() != nil {
			t.Skip("too much")
		}
		before := slices.Clone(s.Targets)
		spread(s.Targets)
		byAddress := func(a, b probe.Target) int {
			return netip.MustParseAddrPort(a.Address()).Compare(netip.MustParseAddrPort(b.Address()))
		}
		after := slices.Clone(s.Targets)
		slices.SortStableFunc(before, byAddress)
		slices.SortStableFunc(after, byAddress)
		if !slices.Equal(before, after) {
			t.Fatalf("other targets: %v, %v", before, after)
		}
		for host, n := range c.hosts {
			if most := inASecond(&s, func(t probe.Target) bool { return t.Host == host }); float64(most) > max(1, c.rate(n))+float64(2*len(c.hosts)) {
				t.Fatalf("%d SYNs to %s in one second; its rate is %v", most, host, c.rate(n))
			}
		}
	})
}

func TestALimitedSpecIsSpreadOverItsHostsAndTargets(t *testing.T) {
	others := targets(t, "192.0.2.2:1-1000")
	for _, tt := range []struct {
		name     string
		targets  []probe.Target
		of       func(probe.Target) bool
		inSecond int
	}{
		{"the ports of a host", append(targets(t, "192.0.2.1:1-1000"), others...), func(t probe.Target) bool { return t.Host == "192.0.2.1" }, 101},
		{"a target listed many times", append(slices.Repeat(targets(t, "192.0.2.1:1"), 50), targets(t, "192.0.2.1:2-51")...), firstPort, 6},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := probe.Spec{Targets: tt.targets, Interval: 10 * time.Second, Flows: 1, Timeout: time.Second}
			if most := inASecond(&s, tt.of); most <= tt.inSecond {
				t.Fatalf("as listed there are only %d in a second", most)
			}
			var passed probe.Spec
			l := Limit(proberFunc(func(_ context.Context, s probe.Spec, _ func(*probe.Result)) error { passed = s; return nil }), nil)
			if err := l.Do(t.Context(), s, nil); err != nil {
				t.Fatal(err)
			}
			if most := inASecond(&passed, tt.of); most > tt.inSecond {
				t.Errorf("%d in a second, want %d at the most", most, tt.inSecond)
			}
		})
	}
}

// inASecond counts the probes of some targets in the second that has the most.
func inASecond(s *probe.Spec, of func(probe.Target) bool) int {
	var at []time.Duration
	most, first := 0, 0
	for plan := schedule.New(s, len(s.Targets)*s.Flows); len(at) < 500; {
		slot, due, _ := plan.Next()
		plan.Begin(due)
		if !of(s.Targets[slot%len(s.Targets)]) {
			continue
		}
		at = append(at, due)
		for due-at[first] >= time.Second {
			first++
		}
		most = max(most, len(at)-first)
	}
	return most
}

// A run that ends at once could otherwise be begun again and again.
func TestShortSpecsOneAfterAnotherSendNoMoreThanALongOne(t *testing.T) {
	for _, s := range []probe.Spec{
		{Interval: 100 * time.Millisecond, Flows: 1}, {Interval: time.Second, Flows: 10}, {Interval: 24 * time.Hour, Flows: 1}, {Interval: 150 * time.Millisecond, Flows: 1},
	} {
		t.Run(fmt.Sprintf("%v, %d flows", s.Interval, s.Flows), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s.Targets, s.Count, s.Timeout = targets(t, "192.0.2.1:1"), 1, time.Second
				syns := 0
				l := Limit(proberFunc(func(_ context.Context, s probe.Spec, _ func(*probe.Result)) error {
					syns += s.Flows
					time.Sleep(s.Interval / time.Duration(s.Flows) * time.Duration(s.Flows-1)) // the first is sent at once
					return nil
				}), nil)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				for ctx.Err() == nil {
					if err := l.Do(ctx, s, nil); err != nil && ctx.Err() == nil {
						t.Fatalf("it did not wait: %v", err)
					}
					if syns > 10_000 {
						break
					}
				}
				if allowed := 60*MaxRate + int(burst.Seconds()*MaxRate); syns > allowed || syns < 60 {
					t.Errorf("%d SYNs in a minute, of %d", syns, allowed)
				}
			})
		})
	}
}
