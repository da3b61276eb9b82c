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
are counted that the controller has stored within half of the time. A relay is on the way, for over
a virtual wire alone the kernel does the target's work in the time of whoever sends.`, p.options.steady, p.options.seconds))
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

// ingest prints rows of which the first is the usual controller.
func (p *page) ingest(rows []intakeRow) {
	r := rows[0]
	how := "the next as soon as that is acknowledged"
	if p.options.ingestRate > 0 {
		how = fmt.Sprintf("so that it is %.0f results a second in all, evenly spread", p.options.ingestRate)
	}
	p.section("Ingest", fmt.Sprintf(`
%d agents, each of which reports one result of each of its %d series at a time, over its own
session with mTLS, %s, for %v: to probe-controller,
a process of its own on the same cores. The agents' clocks run so that it is once a second for
them. Results count when they are acknowledged; then they are on the disk. "With metrics" is the
controller as it comes, which follows what is stored for its page of metrics; otherwise that is off (--http ""). It is measured for a third of the
time. At the end the controller is killed and started again, and it is looked whether all results of
%d agents are there, by Export; then it archives what it has taken in.`, r.agents, feederSeries, how, p.options.ingestFor, min(r.agents, verified)))
	lines := []struct {
		what string
		cell func(intakeRow) string
	}{
		{"results acknowledged a second", func(r intakeRow) string { return fmt.Sprintf("%.0f", float64(r.results)/r.took.Seconds()) }},
		{"acknowledged after, ms, p50", func(r intakeRow) string { return millis(r.p50) }},
		{"p99", func(r intakeRow) string { return millis(r.p99) }},
		{"processor time of the controller, each", func(r intakeRow) string { return each(r.server, r) }},
		{"of the generator, each", func(r intakeRow) string { return each(r.generator, r) }},
		{"both, of one core", func(r intakeRow) string {
			return fmt.Sprintf("%.0f %%", 100*(r.server+r.generator).Seconds()/r.took.Seconds())
		}},
		{"resident memory of the controller at most", func(r intakeRow) string { return mebibytes(r.peak) }},
		{"bytes on disk for each result at the end", func(r intakeRow) string { return perResult(r.disk[0], r) }},
		{"and archived", func(r intakeRow) string { return perResult(r.disk[1], r) }},
		{"which takes, after a restart", func(r intakeRow) string { return r.archiving.Round(100*time.Millisecond).String() + unfinished(r) }},
		{"processor time of that, each", func(r intakeRow) string { return each(r.archive, r) }},
	}
	head := []string{""}
	for _, r := range rows {
		head = append(head, r.name)
	}
	var cells [][]string
	for _, l := range lines {
		line := []string{l.what}
		for _, r := range rows {
			line = append(line, l.cell(r))
		}
		cells = append(cells, line)
	}
	p.table(head, cells)
}

// stores prints two rows, ours first.
func (p *page) stores(rows []intakeRow) {
	base := rows[0]
	p.section("Ingest beside a store of time series", fmt.Sprintf(`
The same %d results, %d reports of %d agents with %d series each, as fast as they are taken: to
Synmesh as above, and to VictoriaMetrics by its import of Influx lines, over HTTP without TLS, %d requests at a
time of one report each. A line has the tags agent, target and port, and the fields outcome, rtt, lateness
and host_delay, so it makes %d samples of a result; what else Synmesh stores of it (the source port, the SYN-ACK, how it
was timed) is left out, and times are whole milliseconds there. Synmesh acknowledges what is synced to the disk,
VictoriaMetrics what is in its memory. "Archived" is after the restart and the archiving for Synmesh, and after
an orderly end for VictoriaMetrics. Ratios are to Synmesh.`, base.results, p.options.stored, base.agents, feederSeries, senders, victoriaFields))
	var cells [][]string
	for _, r := range rows {
		rate := float64(r.results) / r.took.Seconds()
		all := func(r intakeRow) time.Duration { return r.server + r.archive }
		cells = append(cells, []string{
			r.name, fmt.Sprintf("%.0f", rate), ratio(rate, float64(base.results)/base.took.Seconds()),
			each(r.server, r), ratio(float64(r.server), float64(base.server)),
			each(all(r), r), ratio(float64(all(r)), float64(all(base))),
			mebibytes(r.peak), ratio(float64(r.peak), float64(base.peak)),
			perResult(r.disk[1], r), ratio(float64(r.disk[1]), float64(base.disk[1])), each(r.generator, r),
		})
		for _, c := range []struct {
			what   string
			better bool
		}{
			{"takes in more results a second", rate > float64(base.results)/base.took.Seconds()},
			{"needs less processor time for a result until it is archived", all(r) < all(base)},
			{"needs less memory", r.peak < base.peak},
			{"needs less of the disk for a result", r.disk[1] < base.disk[1]},
		} {
			if c.better {
				p.lose("%s %s than Synmesh, of %d results.", r.name, c.what, r.results)
			}
		}
	}
	p.table([]string{"", "results/s", "ratio", "CPU each, when taken in", "ratio", "when archived", "ratio", "memory at most", "ratio", "bytes on disk each", "ratio", "CPU of the generator"}, cells)
}

func (p *page) latency(rows []latencyRow, taken intakeRow) {
	p.section("Latency", fmt.Sprintf(`
How old a result is when a client has it: from the time that the SYN-ACK came in, by the kernel's stamp, to when this
program has read it off the stream; in milliseconds. probe-agent probes %d targets once a second for %v, on a host of its own, and
writes each result to its disk, and then so does probe-controller. Who watches (Watch) gets what is on both; who has asked
for the results (Run) gets a preview while they are on their way. Meanwhile the controller has nothing else to do, or
it takes in %d results a second of %d other agents ("busy"), as in the section on ingest; it took in %.0f,
acknowledged after %s ms at p99. All is on the same cores and one clock. "The disk alone" is what
a write of 4 KiB and its sync took meanwhile, on the same disk: one that is watched waits for three of these at least, one of the agent's and
two of the controller's, and each for 5 ms in which the agent gathers others.`,
		watchedTargets, p.options.latencyFor, loadedRate, loadedAgents, float64(taken.results)/taken.took.Seconds(), millis(taken.p99)))
	var cells [][]string
	for _, r := range rows {
		if r.p99 > soon && !strings.HasPrefix(r.name, syncRow) {
			p.lose("A client has a result %s ms after the answer at p99 (%s), and is to have it within %v.", millis(r.p99), r.name, soon)
		}
		cells = append(cells, []string{r.name, millis(r.p50), millis(r.p99), millis(r.max), fmt.Sprint(r.compared)})
	}
	p.table([]string{"", "p50", "p99", "max", "results"}, cells)
}

// each is what each result of a row takes.
func each(d time.Duration, r intakeRow) string {
	return fmt.Sprintf("%.0f ns", float64(d)/float64(r.results))
}

func perResult(n int64, r intakeRow) string {
	return fmt.Sprintf("%.1f", float64(n)/float64(r.results))
}

func unfinished(r intakeRow) string {
	if r.behind == 0 {
		return ""
	}
	return fmt.Sprintf(", and %d files left", r.behind)
}

func mebibytes(n int64) string { return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20)) }

func millis(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d)/1e6) }
