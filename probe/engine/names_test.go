//go:build linux

package engine

import (
	"context"
	"errors"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/probe/resolve"
)

// directory is where one name leads; nil is nowhere.
type directory struct{ at atomic.Pointer[netip.Addr] }

func (d *directory) set(addr string) { a := netip.MustParseAddr(addr); d.at.Store(&a) }

func (d *directory) names() resolve.Resolver {
	return resolve.Resolver{Every: 10 * time.Millisecond, Lookup: func(context.Context, string, string) ([]netip.Addr, error) {
		if a := d.at.Load(); a != nil {
			return []netip.Addr{*a}, nil
		}
		return nil, errors.New("no server answers")
	}}
}

func TestALongMeasurementFollowsItsTargetsName(t *testing.T) {
	for _, mode := range []probe.Mode{probe.HalfOpen, probe.Full} {
		t.Run(mode.String(), func(t *testing.T) {
			inside(t, oneHost(t), func() {
				listen(t, "127.0.0.1:443")
				listen(t, "127.0.0.2:443")
				listen(t, "127.0.0.3:443")
				listen(t, "[::1]:443")
				var d directory
				e := start(t, Config{Names: d.names()})
				s := spec(t, 0, "db.invalid:443", "127.0.0.3:443")
				s.Mode, s.Interval = mode, 100*time.Millisecond
				var seen []netip.AddrPort
				ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
				defer cancel()
				err := e.Do(ctx, s, func(r *probe.Result) {
					if r.Target != "db.invalid:443" {
						if r.Outcome != probe.Open || r.Remote.String() != r.Target {
							t.Errorf("%s at %v: %v %s", r.Target, r.Remote, r.Outcome, r.Err)
						}
						return
					}
					if known := r.Remote.IsValid(); known != (r.Outcome == probe.Open) || known == (r.Err != "") {
						t.Errorf("at %v: %v %q", r.Remote, r.Outcome, r.Err)
					}
					if len(seen) > 0 && seen[len(seen)-1] == r.Remote {
						return
					}
					switch seen = append(seen, r.Remote); len(seen) {
					case 1:
						d.set("127.0.0.1")
					case 2:
						d.set("127.0.0.2")
					case 3:
						d.set("::1")
					case 4:
						d.at.Store(nil) // what is known is kept
						time.AfterFunc(500*time.Millisecond, cancel)
					}
				})
				if !errors.Is(err, context.Canceled) {
					t.Fatalf("Do: %v after %v", err, seen)
				}
				want := []string{"invalid AddrPort", "127.0.0.1:443", "127.0.0.2:443", "[::1]:443"}
				for i := range max(len(seen), len(want)) {
					if i >= len(seen) || i >= len(want) || seen[i].String() != want[i] {
						t.Fatalf("the name led to %v, want %v", seen, want)
					}
				}
			})
		})
	}
}

// The answer of one address must not count for the other, and a probe is of the
// address that it was sent to, wherever the name leads when the answer comes.
func TestAProbeUnderWayStaysWhereItWasSent(t *testing.T) {
	n := farHosts(t, 100*time.Millisecond)
	far := n.to.Addr4()
	listenOn(t, n.to, "tcp4", ":443")
	inside(t, n.from, func() {
		listen(t, "127.0.0.1:443")
		var d directory
		d.set(far.String())
		names := d.names()
		first, lookup := make(chan struct{}), names.Lookup
		names.Lookup = func(ctx context.Context, network, host string) ([]netip.Addr, error) {
			select {
			case <-first: // the SYN may have left
				d.set("127.0.0.1")
			default:
				close(first)
			}
			return lookup(ctx, network, host)
		}
		s := spec(t, 2, "db.invalid:443")
		s.Interval = 150 * time.Millisecond // shorter than the round trip
		rs := do(t, start(t, Config{Names: names}), s)
		if len(rs) != 2 {
			t.Fatalf("%d results, want 2", len(rs))
		}
		for _, r := range rs {
			local := r.Remote.Addr().IsLoopback()
			if r.Outcome != probe.Open || local == (r.RTT > 200*time.Millisecond) || !local && r.Remote.Addr() != far {
				t.Errorf("%v after %v from %v: %s", r.Outcome, r.RTT, r.Remote, r.Err)
			}
		}
		if rs[0].Remote == rs[1].Remote {
			t.Errorf("both probes went to %v", rs[0].Remote)
		}
	})
}
