package policy

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/probe/resolve"
)

type proberFunc func(context.Context, probe.Spec, func(*probe.Result)) error

func (f proberFunc) Do(ctx context.Context, s probe.Spec, emit func(*probe.Result)) error {
	return f(ctx, s, emit)
}

// untilStopped is a prober that goes on until its context ends.
func untilStopped(ctx context.Context, _ probe.Spec, _ func(*probe.Result)) error {
	<-ctx.Done()
	return ctx.Err()
}

// going is a Spec that is being carried out.
type going struct {
	stop  context.CancelFunc
	ended chan error
}

// begin has l carry out a Spec, in a bubble of synctest.
func begin(t *testing.T, l *Limited, s probe.Spec) *going {
	ctx, stop := context.WithCancel(t.Context())
	g := &going{stop, make(chan error, 1)}
	go func() { g.ended <- l.Do(ctx, s, nil) }()
	synctest.Wait()
	return g
}

// refused checks that the Spec ended with a message of that content.
func (g *going) refused(t *testing.T, want string) {
	t.Helper()
	select {
	case err := <-g.ended:
		if _, is := err.(*Refusal); !is || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("got %v, want it to say %q", err, want)
		}
	default:
		t.Errorf("it goes on; want it to say %q", want)
	}
}

func (g *going) goesOn(t *testing.T) {
	t.Helper()
	select {
	case err := <-g.ended:
		t.Errorf("it has ended with %v", err)
	default:
	}
}

func each(t *testing.T, interval time.Duration, texts ...string) probe.Spec {
	return probe.Spec{Targets: targets(t, texts...), Interval: interval, Flows: 1, Timeout: time.Second}
}

func TestWhatGoesOnAtATimeIsHeldToTheCeilingsTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := Limit(proberFunc(untilStopped), nil)
		first := begin(t, l, each(t, 150*time.Millisecond, "192.0.2.1:22,80")) // 6.667 a second each
		begin(t, l, each(t, 200*time.Millisecond, "192.0.2.1:79,80")).refused(t,
			"5 SYNs a second to 192.0.2.1:80, which gets 6.667 from this agent already; agents allow 10 in all: try again when that is over, or with a longer interval")
		// What was refused has left nothing behind.
		second := begin(t, l, each(t, 100*time.Millisecond, "192.0.2.1:79"))
		second.goesOn(t)
		begin(t, l, each(t, time.Second, "192.0.2.1:1001-1077")).refused(t,
			"77 SYNs a second to 192.0.2.1, whose ports get 23.33 together from this agent already; agents allow 100 in all")
		begin(t, l, each(t, time.Second, "192.0.2.2:1001-1077")).goesOn(t)

		// One that comes after another waits for what that sent last.
		first.stop()
		<-first.ended
		third := begin(t, l, each(t, 100*time.Millisecond, "192.0.2.1:80"))
		third.goesOn(t)
		if n := l.room.targets[endpoint{"192.0.2.1", 80}].perSecond(); n < 6.6 || n > 6.7 {
			t.Errorf("at once: %v a second", n)
		}
		time.Sleep(time.Second)
		third.goesOn(t)
		if n := l.room.targets[endpoint{"192.0.2.1", 80}].perSecond(); n != 10 {
			t.Errorf("afterwards: %v a second", n)
		}
	})
}

func TestAllThatAnAgentDoesHasACeiling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := Limit(proberFunc(untilStopped), nil)
		var hosts []string
		for i := range 200 {
			hosts = append(hosts, netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}).String()+":1-50")
		}
		begin(t, l, each(t, time.Second, hosts[1:]...)).goesOn(t)
		begin(t, l, each(t, time.Second, "198.51.100.1:1-51")).refused(t,
			"51 SYNs a second, beside 9950 that this agent sends already; agents allow 10000 in all")
		begin(t, l, each(t, time.Second, "198.51.100.1:1-50")).goesOn(t)
	})
}

// The name stands in the hosts file of every machine: no DNS server is asked.
func TestAnAddressUnderTwoNamesIsOneTarget(t *testing.T) {
	began := make(chan probe.Spec, 1)
	l := Limit(proberFunc(func(ctx context.Context, s probe.Spec, emit func(*probe.Result)) error {
		began <- s
		return untilStopped(ctx, s, emit)
	}), nil)
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	defer group.Wait()
	defer stop()
	s := each(t, 150*time.Millisecond, "localhost:80")
	s.Family = probe.IPv4
	group.Go(func() { _ = l.Do(ctx, s, nil) })
	if s := <-began; s.Targets[0] != (probe.Target{Name: "localhost:80", Host: "127.0.0.1", Port: 80}) {
		t.Errorf("the engine would probe %+v", s.Targets[0])
	}
	for _, other := range []string{"127.0.0.1:80", "[::ffff:127.0.0.1]:80"} {
		err := l.Do(ctx, each(t, 150*time.Millisecond, other), nil)
		if err == nil || !strings.Contains(err.Error(), "which gets 6.667 from this agent already") {
			t.Errorf("%s: got %v", other, err)
		}
	}
	both := each(t, 150*time.Millisecond, "localhost:81", "127.0.0.1:81")
	both.Family = probe.IPv4
	if err := l.Do(ctx, both, nil); err == nil || !strings.Contains(err.Error(), "13.33 SYNs a second to one target") {
		t.Errorf("in one Spec: got %v", err)
	}
}

func TestANameThatLeadsElsewhereIsFollowedAndJudgedThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var moved atomic.Bool
		var probed []string
		l := Limit(proberFunc(func(ctx context.Context, s probe.Spec, emit func(*probe.Result)) error {
			probed = append(probed, s.Targets[0].Host)
			return untilStopped(ctx, s, emit)
		}), nil)
		l.names.Lookup = func(context.Context, string, string) ([]netip.Addr, error) {
			if moved.Load() {
				return []netip.Addr{netip.MustParseAddr("192.0.2.2")}, nil
			}
			return []netip.Addr{netip.MustParseAddr("192.0.2.1")}, nil
		}
		named := begin(t, l, each(t, 100*time.Millisecond, "db.example:80"))
		time.Sleep(10 * time.Minute)
		named.goesOn(t)
		moved.Store(true)
		time.Sleep(2 * time.Minute)
		named.goesOn(t)
		if want := []string{"192.0.2.1", "192.0.2.2"}; !slices.Equal(probed, want) {
			t.Errorf("probed at %v, want %v", probed, want)
		}
		// The address that it has left has room again, and the other has none.
		begin(t, l, each(t, 100*time.Millisecond, "192.0.2.1:80")).goesOn(t)
		begin(t, l, each(t, 100*time.Millisecond, "192.0.2.2:80")).refused(t, "which gets 10 from this agent already")
	})
}

// The Spec's family excludes the address: that needs no DNS server, either.
func TestWhatHasNoAddressIsNotLookedUpAgain(t *testing.T) {
	s := each(t, time.Millisecond, "192.0.2.1:80")
	s.Family = probe.IPv6
	s.Count = 1
	var found []probe.Result
	l := Limit(proberFunc(func(ctx context.Context, s probe.Spec, emit func(*probe.Result)) error {
		for i, at := range resolve.Targets(ctx, s.Targets, s.Family) { // as engines do
			if at.Err == nil {
				t.Errorf("%s was found at %v", s.Targets[i].Host, at.Remote)
			}
			emit(&probe.Result{Target: s.Targets[i].Name, Outcome: probe.Error, Err: at.Err.Error()})
		}
		return nil
	}), nil)
	if err := l.Do(t.Context(), s, func(r *probe.Result) { found = append(found, *r) }); err != nil {
		t.Fatal(err)
	}
	if len(found) != 1 || found[0].Target != "192.0.2.1:80" || found[0].Err != "192.0.2.1 is not an IPv6 address" {
		t.Errorf("found %+v", found)
	}
}

func TestRespondersOfTheFleetAreProbedFasterWhileTheyAreAnnounced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		announced := map[netip.AddrPort]bool{netip.MustParseAddrPort("192.0.2.1:7401"): true}
		var mu sync.Mutex
		l := Limit(proberFunc(untilStopped), func() map[netip.AddrPort]bool {
			mu.Lock()
			defer mu.Unlock()
			return announced
		})
		slow, fast := begin(t, l, each(t, time.Second, "192.0.2.1:7401")), begin(t, l, each(t, 2*time.Millisecond, "192.0.2.1:7401"))
		alike := each(t, 100*time.Millisecond, "192.0.2.1:7401") // alone it would be nothing special
		third := begin(t, l, alike)
		begin(t, l, each(t, time.Second, "192.0.2.1:1-100")).goesOn(t) // the host's ceiling is for its other ports
		begin(t, l, each(t, time.Millisecond, "192.0.2.1:7401")).refused(t,
			"1000 SYNs a second to 192.0.2.1:7401, which gets 511 from this agent already; agents allow 1000 in all")
		begin(t, l, each(t, 2*time.Millisecond, "192.0.2.2:7401")).refused(t,
			"500 SYNs a second to one target; agents allow 10: an interval of at least 0.1s with 1 flows, or fewer flows; only the fleet's own responders may get more, which signed gossip tells of")

		tell := func(now map[netip.AddrPort]bool) {
			mu.Lock()
			defer mu.Unlock()
			announced = now
		}
		before := announced
		time.Sleep(10*time.Minute + time.Second)
		tell(nil)
		time.Sleep(grace * 3 / 4)
		fast.goesOn(t) // it may be restarting
		tell(before)
		time.Sleep(grace)
		tell(nil)
		time.Sleep(grace * 3 / 4)
		fast.goesOn(t) // each time it is missing counts by itself
		time.Sleep(2 * grace)
		fast.refused(t, "192.0.2.1:7401 is not announced as a responder any more, and others get 10 SYNs a second at the most")
		third.refused(t, "192.0.2.1:7401 is not announced as a responder any more")
		slow.goesOn(t)
	})
}

func TestASpecThatIsNotValidIsNotCarriedOut(t *testing.T) {
	l := Limit(proberFunc(untilStopped), nil)
	if err := l.Do(t.Context(), probe.Spec{Targets: targets(t, "192.0.2.1:1")}, nil); err == nil || !strings.Contains(err.Error(), "interval 0s is outside") {
		t.Errorf("got %v", err)
	}
}
