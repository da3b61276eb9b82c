package gossip

import (
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"
)

// crowd is a fleet with every interval as in production.
type crowd struct {
	nodes []*node
	left  atomic.Int64 // how often one lost sight of another
	cable cable
}

// witness counts those that leave.
type witness struct {
	memberlist.EventDelegate
	left *atomic.Int64
}

func (w witness) NotifyLeave(n *memberlist.Node) {
	w.left.Add(1)
	w.EventDelegate.NotifyLeave(n)
}

// gather starts n members, the first few of them controllers, that join by a
// gateway, and takes the gateway away: from then on nobody has a living seed.
// set says where they are, if it is not nil.
func gather(t *testing.T, n int, set func(*Config, int)) *crowd {
	t.Helper()
	c := &crowd{cable: cable{silence: dialTimeout}}
	config := func(name string, i int, seeds ...string) Config {
		conf := agentConfig(name, seeds...)
		conf.firstRetry, conf.rejoin, conf.leave = 0, 0, 0
		conf.tune = func(m *memberlist.Config) {
			c.cable.plug(m)
			m.Events = witness{m.Events, &c.left}
		}
		if set != nil {
			set(&conf, i)
		}
		return conf
	}
	gateway := run(t, config("gateway", n))
	for i := range n {
		conf := config(fmt.Sprintf("agent-%02d", i), i, gateway.addr)
		if i%20 < 2 {
			conf.Self = Peer{Name: fmt.Sprintf("controller-%02d", i), Role: Controller, GRPC: "controller.example:7443"}
		}
		c.nodes = append(c.nodes, run(t, conf))
	}
	c.await(t, n, 5*time.Minute) // the gateway and all the others
	gateway.stop()
	c.await(t, n-1, 5*time.Minute)
	c.left.Store(0)
	return c
}

// await returns how long it takes until everybody sees so many others, all at
// the same time.
func (c *crowd) await(t *testing.T, want int, patience time.Duration) time.Duration {
	t.Helper()
	began := time.Now()
	for i := 0; i < len(c.nodes); i++ {
		n := c.nodes[i]
		changed := n.Changed()
		seen := len(n.Peers())
		if seen == want {
			continue
		}
		left := patience - time.Since(began)
		if left <= 0 {
			t.Fatalf("after %v %s sees %d others, want %d", patience, n.config.Self.Name, seen, want)
		}
		select {
		case <-changed:
		case <-time.After(left):
		}
		i = -1 // those who were asked before may see others now
	}
	return time.Since(began)
}

// part keeps two halves from each other, and returns how long it takes until
// all see all again after that.
func (c *crowd) part(t *testing.T, during time.Duration) time.Duration {
	t.Helper()
	half := len(c.nodes) / 2
	var side []string
	for _, n := range c.nodes[:half] {
		side = append(side, n.addr)
	}
	began := time.Now()
	c.cable.cut(side...)
	c.await(t, half-1, during)
	t.Logf("after %v of partition each half sees itself alone", time.Since(began).Round(time.Millisecond))
	time.Sleep(during - time.Since(began))
	c.await(t, half-1, 0)
	c.cable.cut()
	return c.await(t, 2*half-1, time.Minute)
}

func (c *crowd) stop() {
	for _, n := range c.nodes {
		n.stop()
	}
}

// inTheEther runs a test in a bubble where time costs nothing.
func inTheEther(t *testing.T, n int, test func(*testing.T, *crowd, *ether)) {
	synctest.Test(t, func(t *testing.T) {
		var e ether
		c := gather(t, n, func(conf *Config, i int) {
			conf.bind = e.bind
			conf.Listen = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(1 + i)}), DefaultPort)
		})
		test(t, c, &e)
		c.stop()
		time.Sleep(time.Minute) // what memberlist leaves behind ends meanwhile
	})
}

func TestFortyMembersPartedForFiveMinutesAreOneWithinAMinute(t *testing.T) {
	inTheEther(t, 40, func(t *testing.T, c *crowd, _ *ether) {
		t.Logf("healed in %v", c.part(t, 5*time.Minute))
	})
}

func TestKeysOfFortyMembersAreChangedAndNobodyIsLost(t *testing.T) {
	inTheEther(t, 40, func(t *testing.T, c *crowd, _ *ether) {
		steps, err := Keys{Primary: key}.Rotate(otherKey)
		if err != nil {
			t.Fatal(err)
		}
		for _, keys := range steps {
			for _, n := range c.nodes { // for 80 s some have the new keys and some the old
				if err := n.SetKeys(keys); err != nil {
					t.Fatal(err)
				}
				time.Sleep(2 * time.Second)
			}
		}
		time.Sleep(2 * time.Minute)
		c.await(t, 39, 0)
		if left := c.left.Load(); left > 0 {
			t.Errorf("%d times one lost sight of another", left)
		}
		for _, n := range c.nodes {
			if held := n.keyring.GetKeys(); len(held) != 1 || string(held[0]) != string(otherKey) {
				t.Fatalf("%s holds %d keys, the first %.4q", n.addr, len(held), held[0])
			}
		}
	})
}
