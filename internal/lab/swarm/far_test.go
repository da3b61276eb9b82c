//go:build linux

package swarm_test

import (
	"net"
	"testing"
	"time"

	"github.com/synmesh/synmesh/internal/lab"
)

// Agents that are up to 150 ms away, and whose clocks are wrong by up to half a minute,
// begin a run together. How busy the machine is decides how late processes are; so it
// has to be so once in some tries.
func TestFarAgentsWithWrongClocksBeginTogether(t *testing.T) {
	const within, tries = 50 * time.Millisecond, 5
	delays := []time.Duration{0, time.Millisecond, 30 * time.Millisecond, 70 * time.Millisecond, 110 * time.Millisecond, 150 * time.Millisecond}
	l, err := lab.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	b := newBench(t, size{agents: len(delays), spread: time.Second})
	b.home, err = l.Router("controller")
	b.must(err)
	var hosts []*lab.Node
	for i, d := range delays {
		host, err := l.Host(nameOf(i))
		b.must(err)
		_, err = l.Link(host, b.home, lab.Impairment{Delay: d})
		b.must(err)
		hosts = append(hosts, host)
	}
	b.must(l.Route())
	b.address = net.JoinHostPort(b.home.Addr4().String(), "7400")
	b.startController()
	for i, host := range hosts {
		token, err := b.token(t.Context(), i)
		b.must(err)
		c := b.program("enrol", b.state(i), b.address, token)
		b.must(host.Start(c))
		b.must(c.Wait())
		b.startAgents(host, i, i+1)
	}
	b.gathered()
	b.clocks()
	var apart time.Duration
	for range tries {
		if apart = b.runAll(); apart < within {
			return
		}
	}
	t.Errorf("they began %v apart, want less than %v", apart, within)
}
