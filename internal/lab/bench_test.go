//go:build linux

package lab

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// BenchmarkLateness reports how much longer than told a handshake over one relayed link takes, by the kernel's own
// measurement: the lateness of the relay in both directions and what the two stacks need.
func BenchmarkLateness(b *testing.B) {
	for _, delay := range []time.Duration{0, time.Millisecond, 5 * time.Millisecond} {
		b.Run(fmt.Sprint("told=", 2*delay), func(b *testing.B) {
			l, err := New()
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			client, err := l.Host("client")
			if err != nil {
				b.Fatal(err)
			}
			server, err := l.Host("server")
			if err != nil {
				b.Fatal(err)
			}
			if _, err := l.Link(client, server, Impairment{Delay: delay}); err != nil {
				b.Fatal(err)
			}
			listen(b, server, ":7")
			to := netip.AddrPortFrom(server.Addr4(), 7)
			var late []time.Duration
			for b.Loop() {
				rtt, err := handshake(client, to)
				if err != nil {
					b.Fatal(err)
				}
				late = append(late, rtt-2*delay)
			}
			slices.Sort(late)
			for _, p := range []int{50, 90, 99} {
				b.ReportMetric(float64(late[(len(late)-1)*p/100])/1e3, fmt.Sprintf("p%d-us", p))
			}
		})
	}
}
