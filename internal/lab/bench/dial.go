//go:build linux

package main

import (
	"net"
	"net/netip"
	"time"
)

// probeByDial times net.Dial, as most programs that measure handshakes do.
func probeByDial(j job, f *found) error {
	to := netip.AddrPortFrom(j.First, port).String()
	tick := time.NewTicker(j.Interval)
	defer tick.Stop()
	for range j.Count {
		<-tick.C
		before := time.Now()
		c, err := net.Dial("tcp4", to)
		rtt := time.Since(before)
		if err != nil {
			f.Outcomes["error: "+err.Error()]++
			continue
		}
		local := c.LocalAddr().(*net.TCPAddr).AddrPort().Port()
		f.Outcomes["open"]++
		f.Probes = append(f.Probes, timed{RTT: rtt, Port: local})
		if err := c.Close(); err != nil {
			return err
		}
	}
	return nil
}
