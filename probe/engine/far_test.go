//go:build linux

package engine

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/synmesh/synmesh/internal/lab"
	"github.com/synmesh/synmesh/probe"
)

// farHosts are joined by a link with that delay each way.
func farHosts(t *testing.T, delay time.Duration) network {
	t.Helper()
	l, err := lab.New()
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	var n network
	n.from, err = l.Host("from")
	must(t, err)
	n.to, err = l.Host("to")
	must(t, err)
	_, err = l.Link(n.from, n.to, lab.Impairment{Delay: delay})
	must(t, err)
	must(t, l.Route())
	return n
}

// A target that is in the middle of a handshake challenges the next SYN from
// the same port. That is our doing, and no loss.
func TestAnIntervalShorterThanTheRoundTripIsNoLoss(t *testing.T) {
	n := farHosts(t, 60*time.Millisecond)
	listenOn(t, n.to, "tcp4", ":443")
	s := spec(t, 10, n.to.Addr4().String()+":443")
	s.Interval = 80 * time.Millisecond
	inside(t, n.from, func() {
		rs := do(t, start(t, Config{}), s)
		open := 0
		for _, r := range rs {
			switch {
			case r.Outcome == probe.Open:
				open++
			case r.Outcome != probe.Error || !strings.Contains(r.Err, "a longer interval or more flows would help"):
				t.Errorf("%v %s", r.Outcome, r.Err)
			}
		}
		if len(rs) != 10 || open == 0 {
			t.Errorf("%d results, %d of them open", len(rs), open)
		}
	})
}

func TestAnAnswerThatDoesNotTellItsSYNGivesNoRoundTrip(t *testing.T) {
	n := farHosts(t, 525*time.Millisecond) // the RST to the first SYN comes after the second has left
	s := spec(t, 1, n.to.Addr4().String()+":9")
	s.Retries = 1
	inside(t, n.from, func() {
		rs := do(t, start(t, Config{}), s)
		r := rs[0]
		if len(rs) != 1 || r.Outcome != probe.Closed || r.Attempts != 2 || r.Timed() || r.RTT != 0 {
			t.Fatalf("%+v", rs)
		}
		if w := r.Retry.Waited; w < 1050*time.Millisecond || w > 1300*time.Millisecond {
			t.Errorf("waited %v, want about 1.05s", w)
		}
	})
}

// The source address goes while answers come and SYNs are sent again.
func TestEveryProbeHasOneResultWhateverHappensAtATime(t *testing.T) {
	n := farHosts(t, 535*time.Millisecond)
	var hosts []string
	for port := 1; port <= 100; port++ {
		listenOn(t, n.to, "tcp4", fmt.Sprint(":", port))
		hosts = append(hosts, fmt.Sprintf("%s:%d", n.to.Addr4(), port))
	}
	s := spec(t, 1, hosts...)
	s.Retries, s.Timeout, s.Interval = 1, 2*time.Second, time.Millisecond
	inside(t, n.from, func() {
		gone := make(chan error, 1)
		time.AfterFunc(900*time.Millisecond, func() { gone <- n.from.Do(dropAddresses(n)) })
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		count := make(map[string]int)
		err := start(t, Config{}).Do(ctx, s, func(r *probe.Result) {
			count[r.Target]++
			time.Sleep(2 * time.Millisecond)
		})
		must(t, err)
		must(t, <-gone)
		for _, host := range hosts {
			if count[host] != 1 {
				t.Errorf("%s has %d results", host, count[host])
			}
		}
	})
}

func dropAddresses(n network) func() error {
	return func() error {
		link, err := netlink.LinkByName(n.from.Interface())
		if err != nil {
			return err
		}
		addrs, err := netlink.AddrList(link, netlink.FAMILY_ALL)
		for i := range addrs {
			if err == nil {
				err = netlink.AddrDel(link, &addrs[i])
			}
		}
		return err
	}
}

func TestANeighbourThatIsNotThereIsUnreachable(t *testing.T) {
	n := twoHosts(t)
	inside(t, n.from, func() {
		link, err := netlink.LinkByName(n.from.Interface())
		must(t, err)
		must(t, netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 88, 0, 1), Mask: net.CIDRMask(24, 32)}}))
		s := spec(t, 1, "10.88.0.9:443")
		s.Timeout = 10 * time.Second
		for _, r := range do(t, start(t, Config{}), s) {
			if r.Outcome != probe.Unreachable || r.ICMP.Code != 1 { // host unreachable, says our own kernel
				t.Errorf("%v %s", r.Outcome, r.Err)
			}
		}
	})
}

func TestASourceMayHaveAZone(t *testing.T) {
	n := twoHosts(t)
	listenOn(t, n.to, "tcp", ":443")
	s := spec(t, 1, "["+n.to.Addr6().String()+"]:443")
	s.Sending.Source = netip.MustParseAddr(n.from.Addr6().String() + "%" + n.from.Interface())
	inside(t, n.from, func() {
		rs := do(t, start(t, Config{}), s)
		if !slices.ContainsFunc(rs, func(r probe.Result) bool { return r.Outcome == probe.Open }) {
			t.Errorf("%+v", rs)
		}
	})
}
