//go:build linux

package engine

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/synmesh/synmesh/probe"
)

// eatResets has the host lose what its kernel answers from the engine's ports:
// a rule by port finds the kernel's own RSTs, and no segment of a raw socket.
func eatResets(t *testing.T) {
	t.Helper()
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		r := netlink.NewRule()
		r.Family, r.Type, r.Priority = family, unix.FR_ACT_BLACKHOLE, 0
		r.IPProto, r.Sport = unix.IPPROTO_TCP, netlink.NewRulePortRange(DefaultPorts.First, DefaultPorts.Last)
		must(t, netlink.RuleAdd(r))
	}
}

// The target never hears that its SYN-ACK was not wanted. It says it again, and
// takes the next SYN from that port for a stray of the first handshake, which it challenges.
func TestAFirewallThatEatsOurRSTIsNoLoss(t *testing.T) {
	eachWay(t, func(t *testing.T, n network, to netip.Addr, stamping Stamping) {
		listenOn(t, n.to, "tcp", ":443")
		s := spec(t, 3, netip.AddrPortFrom(to, 443).String())
		s.Interval, s.Timeout = 700*time.Millisecond, 300*time.Millisecond
		inside(t, n.from, func() {
			eatResets(t)
			e := start(t, Config{Stamping: stamping})
			rs := do(t, e, s)
			if len(rs) != 3 || rs[0].Outcome != probe.Open || rs[0].RTT <= 0 || rs[0].RTT > s.Timeout {
				t.Fatalf("%d results, the first %+v", len(rs), rs[0])
			}
			for _, r := range rs[1:] {
				if r.Outcome != probe.Error || !strings.Contains(r.Err, "handshake") || !strings.Contains(r.Err, "RST") {
					t.Errorf("%v %q, want an error that tells of a handshake whose RST is missing", r.Outcome, r.Err)
				}
			}
			// The first SYN-ACK again after a second, and a challenge to each further SYN.
			if st := e.Stats(); st.Challenges != 2 || st.Strays+st.Duplicates == 0 {
				t.Errorf("counted %+v", st)
			}
		})
	})
}

// What never leaves is an error of this host, and no loss.
func TestARuleThatRefusesOurSYNIsAnError(t *testing.T) {
	for says, kind := range map[string]uint8{
		"permission denied":      unix.FR_ACT_PROHIBIT,
		"invalid argument":       unix.FR_ACT_BLACKHOLE,
		"network is unreachable": unix.FR_ACT_UNREACHABLE,
	} {
		t.Run(says, func(t *testing.T) {
			eachWay(t, func(t *testing.T, n network, to netip.Addr, stamping Stamping) {
				listenOn(t, n.to, "tcp", ":443")
				r := netlink.NewRule()
				if r.Family = netlink.FAMILY_V4; to.Is6() {
					r.Family = netlink.FAMILY_V6
				}
				r.Type, r.Priority, r.IPProto = kind, 0, unix.IPPROTO_TCP
				inside(t, n.from, func() {
					must(t, netlink.RuleAdd(r))
					rs := do(t, start(t, Config{Stamping: stamping}), spec(t, 2, netip.AddrPortFrom(to, 443).String()))
					for _, r := range rs {
						if r.Outcome != probe.Error || r.Attempts != 0 || !strings.Contains(r.Err, says) {
							t.Errorf("%v %q after %d SYNs", r.Outcome, r.Err, r.Attempts)
						}
					}
					if len(rs) != 2 {
						t.Errorf("%d results, want 2", len(rs))
					}
				})
			})
		})
	}
}
