//go:build linux

package main

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// ours is how the names of Synmesh's own rows begin.
const ours = "Synmesh"

type accuracyRow struct {
	name string
	off  [2]errorOf // with idle cores, and with busy ones
}

func (p *page) accuracy(rows []accuracyRow) {
	p.section("Accuracy", fmt.Sprintf(`
How far the reported round trip is from what an independent capture has seen of
the same handshake; in microseconds. The capture is at the far end of the probing
host's wire, where a router is; "on its own host" it is on the probing host's
own interface, as others measure a tap: it and our tap get their stamps from one place
in the kernel. Between the router and the target host is a relay, a program that passes packets
on, for on a virtual wire the kernel stamps late what its own TCP sends, as the target
host does, as a rule by 1 to 3 µs. The relay is in each round trip, and in no error. "Busy" is with two busy loops for each core. %d probes, 2 ms
apart, for Synmesh, %d probes, 10 ms apart, for the others, and for scamper a
third of that, 100 ms apart, since it does not go faster. The ratio is of
the 99th percentiles, to Synmesh in quiet mode. hping3 and nping report in
steps of 100 µs, which no clock can make up for.`, p.options.probes, p.options.peerProbes))
	var table [][]string
	base := rows[0]
	for _, r := range rows {
		cells := []string{r.name}
		for i := range r.off {
			e := r.off[i]
			cells = append(cells, micros(e.p50), micros(e.p99), micros(e.max), ratio(float64(e.p99), float64(base.off[i].p99)))
			state := []string{"idle", "busy"}[i]
			if !strings.HasPrefix(r.name, ours) && e.p99 < base.off[i].p99 {
				p.lose("%s is nearer to the wire on %s cores: p99 %s µs, Synmesh %s µs.", r.name, state, micros(e.p99), micros(base.off[i].p99))
			}
		}
		table = append(table, append(cells, fmt.Sprintf("%d, %d", r.off[0].compared, r.off[1].compared)))
	}
	p.table([]string{"", "idle p50", "p99", "max", "ratio", "busy p50", "p99", "max", "ratio", "compared"}, table)
}

type rateRow struct {
	name string
	sweep
}

func (p *page) rate(rows []rateRow) {
	p.section("Rate", fmt.Sprintf(`
%d addresses of one host, probed once each as fast as the program can, in
front of one kernel listener on the same cores: its work is in every figure.
The rate is counted at the target host, between the first hundredth of the
packets and the last. CPU is for each probe: "own" is what the process is
charged with, from its start to its end, and "machine" is what all cores
together did meanwhile, since the kernel charges work for packets to whoever
happens to run. The kernel counts that one in ticks of 10 ms, by sampling; it
may come out some percent below "own", and includes what else ran. Of %d rounds the best figure counts,
since what else runs on the machine can only make one worse. Synmesh times
each handshake with two kernel stamps; masscan and zmap time none. Ratios
are to Synmesh in quiet mode.`, p.options.targets, p.options.rounds))
	base := rows[0].sweep
	var table [][]string
	for _, r := range rows {
		table = append(table, []string{
			r.name, fmt.Sprintf("%.0f", r.rate), fmt.Sprintf("%.0f", r.usual), ratio(r.rate, base.rate), fmt.Sprintf("%.2f %%", 100*r.found),
			micros(r.process), micros(r.machine), ratio(float64(r.machine), float64(base.machine)), r.told,
		})
		if strings.HasPrefix(r.name, ours) {
			continue
		}
		if r.rate > base.rate {
			p.lose("%s sends %s times as fast as Synmesh in quiet mode.", r.name, ratio(r.rate, base.rate))
		}
		if r.machine < base.machine {
			p.lose("%s costs the machine %s µs of processor time for each probe, Synmesh in quiet mode %s µs.", r.name, micros(r.machine), micros(base.machine))
		}
		if r.found > base.found {
			p.lose("%s found %.2f %% of the targets, Synmesh in quiet mode %.2f %%.", r.name, 100*r.found, 100*base.found)
		}
	}
	p.table([]string{"", "probes/s, best", "median", "ratio", "found", "own CPU, µs", "machine CPU, µs", "ratio", "lost, as it says itself"}, table)
}

type bystanderRow struct {
	to    netip.Addr
	alone float64    // nanoseconds for each datagram
	cost  [2]float64 // share, beside an engine in quiet mode and in tap mode
}

func (p *page) bystander(rows []bystanderRow) {
	p.section("Cost to a bystander", fmt.Sprintf(`
What a program that sends UDP datagrams of 32 bytes, as fast as one thread can,
loses to an engine on its own host that has nothing to do, in processor time:
to a device that swallows them, and to the other host. In the latter the other
host's receiving is counted, too, since it is the same kernel that stamps what
comes in. Median of %d interleaved rounds of %v each.`, p.options.slices, p.options.slice))
	var cells [][]string
	for _, r := range rows {
		where := "the other host"
		if r.to == hole {
			where = "a device that swallows it"
		}
		cost := func(i int) string { return fmt.Sprintf("%+.1f %%, %+.0f ns", 100*r.cost[i], r.alone*r.cost[i]) }
		cells = append(cells, []string{where, fmt.Sprintf("%.0f ns", r.alone), cost(0), cost(1)})
	}
	p.table([]string{"a datagram to", "takes alone", "beside an engine in quiet", "in tap"}, cells)
}

type steadyRow struct {
	what         string
	resident     int64
	cpu          float64 // of one core
	probes, open int
}

func (p *page) steady(rows []steadyRow) {
	p.section("Steady", fmt.Sprintf(`
%d targets, once a second for %d s, in quiet mode. The agent is the program as it
runs anywhere: with mTLS, gossip, its responder and a spool on disk. Of its results those
are counted that the controller has stored within half of the time.`, p.options.steady, p.options.seconds))
	var cells [][]string
	for _, r := range rows {
		cells = append(cells, []string{
			r.what, fmt.Sprintf("%.1f MiB", float64(r.resident)/(1<<20)), fmt.Sprintf("%.2f %%", 100*r.cpu), fmt.Sprintf("%d of %d", r.open, r.probes),
		})
	}
	p.table([]string{"", "resident memory", "CPU, of one core", "probes answered"}, cells)
}

func micros(d time.Duration) string {
	us := float64(d) / 1e3
	if us < 100 {
		return fmt.Sprintf("%.1f", us)
	}
	return fmt.Sprintf("%.0f", us)
}

func ratio(a, b float64) string {
	if b == 0 {
		return "-"
	}
	if a/b >= 100 {
		return fmt.Sprintf("%.0f", a/b)
	}
	return fmt.Sprintf("%.2f", a/b)
}
