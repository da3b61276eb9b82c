package resolve

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/synmesh/synmesh/probe"
)

// zone is what names lead to, by lookup: the first, the second and so on; the last for ever.
type zone struct {
	answers map[string][]string // addresses with blanks between; none is an error

	mu    sync.Mutex
	asked map[string]int
}

var errNoServer = errors.New("no server answers")

func (z *zone) lookup(_ context.Context, network, host string) ([]netip.Addr, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.asked == nil {
		z.asked = make(map[string]int)
	}
	answers := z.answers[host]
	answer := answers[min(z.asked[host], len(answers)-1)]
	z.asked[host]++
	var addrs []netip.Addr
	for a := range strings.FieldsSeq(answer) {
		if addr := netip.MustParseAddr(a); network == "ip" || (network == "ip6") == addr.Is6() {
			addrs = append(addrs, addr)
		}
	}
	if len(addrs) == 0 {
		return nil, errNoServer
	}
	return addrs, nil
}

// follow looks the targets up and follows them for some lookups, on average. It
// returns where they were at first, all moves, and what was logged.
func follow(t *testing.T, z *zone, turns int, targets ...probe.Target) (at []Address, moves []string, logged string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		r := Resolver{Lookup: z.lookup, Logger: slog.New(slog.NewTextHandler(&log, nil))}
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(turns)*DefaultEvery)
		defer cancel()
		at = r.Targets(ctx, targets, probe.AnyFamily)
		r.Follow(ctx, targets, probe.AnyFamily, at, func(i int, to netip.AddrPort) {
			moves = append(moves, fmt.Sprint(targets[i].Name, " ", to))
		})
		logged = log.String()
	})
	return at, moves, logged
}

func TestATargetMovesWhereItsNameLeads(t *testing.T) {
	z := &zone{answers: map[string][]string{
		"moves": {"192.0.2.1", "192.0.2.1", "::ffff:192.0.2.2", "2001:db8::1"},
		"stays": {"192.0.2.9"},
	}}
	_, moves, _ := follow(t, z, 10,
		probe.Target{Name: "a", Host: "moves", Port: 1}, probe.Target{Name: "b", Host: "stays", Port: 2},
		probe.Target{Name: "c", Host: "moves", Port: 3}, probe.Target{Name: "d", Host: "192.0.2.7", Port: 4})
	want := []string{"a 192.0.2.2:1", "c 192.0.2.2:3", "a [2001:db8::1]:1", "c [2001:db8::1]:3"}
	if !slices.Equal(moves, want) {
		t.Errorf("moves %q, want %q", moves, want)
	}
	if len(z.asked) != 2 || z.asked["moves"] != z.asked["stays"] {
		t.Errorf("looked up %v, want each name equally often and no address", z.asked)
	}
}

// Servers tell the addresses of a name in ever another order, so that clients
// take turns. A measurement is of one of them.
func TestAnAddressThatTheNameStillHasIsKept(t *testing.T) {
	z := &zone{answers: map[string][]string{"many": {
		"192.0.2.1 192.0.2.2 192.0.2.3", "192.0.2.2 192.0.2.3 192.0.2.1", "192.0.2.3 ::ffff:192.0.2.1", "192.0.2.3 192.0.2.2", "192.0.2.2 192.0.2.3",
	}}}
	_, moves, _ := follow(t, z, 10, probe.Target{Name: "a", Host: "many", Port: 1})
	if want := []string{"a 192.0.2.3:1"}; !slices.Equal(moves, want) {
		t.Errorf("moves %q, want %q", moves, want)
	}
}

func TestANameThatCannotBeLookedUpLeadsWhereItLedLast(t *testing.T) {
	z := &zone{answers: map[string][]string{
		"fails": {"192.0.2.1", "", "", "", "192.0.2.1", "", "", "192.0.2.2"},
		"later": {"", "", "", "192.0.2.3"},
	}}
	at, moves, logged := follow(t, z, 20, probe.Target{Name: "a", Host: "fails", Port: 1}, probe.Target{Name: "b", Host: "later", Port: 2})
	if at[0].Err != nil || !errors.Is(at[1].Err, errNoServer) {
		t.Errorf("at first %+v", at)
	}
	if want := []string{"b 192.0.2.3:2", "a 192.0.2.2:1"}; !slices.Equal(moves, want) {
		t.Errorf("moves %q, want %q", moves, want)
	}
	if n := strings.Count(logged, "cannot be looked up any more"); n != 2 || strings.Count(logged, "name=fails") != 3 {
		t.Errorf("told %d times, want once for each time that it began to fail:\n%s", n, logged)
	}
}

func TestNamesAreLookedUpAboutOnceAMinuteAndNotInStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Duration
		began := time.Now()
		r := Resolver{Lookup: func(context.Context, string, string) ([]netip.Addr, error) {
			at = append(at, time.Since(began))
			return nil, errNoServer
		}}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Minute)
		defer cancel()
		r.Follow(ctx, []probe.Target{{Host: "name", Port: 1}}, probe.AnyFamily, make([]Address, 1), nil)
		different := make(map[time.Duration]bool)
		for i, before := 0, time.Duration(0); i < len(at); i++ {
			pause := at[i] - before
			if pause < 30*time.Second || pause >= 90*time.Second {
				t.Errorf("a pause of %v", pause)
			}
			different[pause], before = true, at[i]
		}
		if len(at) < 67 || len(different) < len(at)/2 {
			t.Errorf("%d lookups in 100 minutes after %d different pauses", len(at), len(different))
		}
	})
}

func TestManyNamesAreLookedUpAFewAtATimeAndNoneAfterTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		now, most, all := 0, 0, 0
		add := func(n int) {
			mu.Lock()
			defer mu.Unlock()
			now += n
			most = max(most, now)
			all += max(0, n)
		}
		r := Resolver{Every: time.Second, Lookup: func(ctx context.Context, _, _ string) ([]netip.Addr, error) {
			add(1)
			defer add(-1)
			<-ctx.Done() // as long as it takes
			return nil, ctx.Err()
		}}
		var targets []probe.Target
		for i := range 100 {
			targets = append(targets, probe.Target{Host: fmt.Sprint("name", i), Port: 1})
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		r.Follow(ctx, targets, probe.AnyFamily, make([]Address, len(targets)), func(int, netip.AddrPort) { t.Error("moved") })
		if took := time.Since(began); took != time.Minute {
			t.Errorf("ended after %v, want one minute", took)
		}
		if most != lookups || now != 0 || all < lookups {
			t.Errorf("%d at a time of %d, %d left; want %d at a time and none left", most, all, now, lookups)
		}
	})
}

func TestWithoutANameThereIsNothingToFollow(t *testing.T) {
	targets := []probe.Target{{Host: "192.0.2.1", Port: 1}, {Host: "fe80::1%lo", Port: 2}}
	at := Targets(t.Context(), targets, probe.AnyFamily)
	new(Resolver).Follow(t.Context(), targets, probe.AnyFamily, at, nil) // returns
}
