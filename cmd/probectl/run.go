package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/spf13/cobra"

	"github.com/synmesh/synmesh/internal/selector"
	"github.com/synmesh/synmesh/probe"
)

// runFlags are what the run command was given.
type runFlags struct {
	targets  []string
	from     string
	count    int
	interval seconds
	timeout  seconds
	v4, v6   bool
	flows    int
	mode     probe.Mode
	retries  int
	poisson  bool
	jitter   float64
	sending  probe.Sending
	source   string
	failIf   string
	pcap     string
}

func (a *app) runCommand() *cobra.Command {
	f := runFlags{interval: seconds(probe.DefaultInterval), timeout: seconds(probe.DefaultTimeout)}
	c := &cobra.Command{
		Use:   "run TARGET...",
		Short: "Measure TCP handshakes now",
		Long: `run times TCP handshakes with each target and sums up what every agent found.

A target is HOST:PORT; PORT may be a list with ranges, as in db.fra:22,80,8000-8010.
An IPv6 address stands in brackets. With a controller, the name of an agent is a target, too.

The agents that --from selects do the measuring, as in --from dc=nyc or
--from '!canary,dc in (fra,sin)'. Without a controller, this host does.`,
		Example: `  probectl run db.fra:5432 --from dc=nyc
  probectl run 10.0.0.2:443 -c 100 -i 200ms --fail-if 'p99>5ms,loss>1%'
  probectl run '[2001:db8::1]:443' -c 5 -o jsonl
  probectl run db.fra:5432 --mode full --pcap db.pcapng`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage(errors.New("no target; name at least one, as in probectl run db.fra:5432"))
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			f.targets = args
			return a.run(c.Context(), &f)
		},
	}
	fs := c.Flags()
	fs.StringVar(&f.from, "from", "", "agents that measure, as KEY=VALUE or NAME, with commas for 'and' (all)")
	fs.IntVarP(&f.count, "count", "c", 5, "probes of each target and flow; 0 goes on until interrupted")
	fs.VarP(&f.interval, "interval", "i", "time between two probes of one target and flow")
	fs.VarP(&f.timeout, "timeout", "W", "how long an answer is waited for; at most 0.95 s in mode connect")
	fs.BoolVarP(&f.v4, "ipv4", "4", false, "use IPv4 only")
	fs.BoolVarP(&f.v6, "ipv6", "6", false, "use IPv6 only")
	fs.IntVar(&f.flows, "flows", 1, "source ports to probe each target from")
	fs.TextVar(&f.mode, "mode", probe.HalfOpen, "half-open; full: open the connection and close it in order; or connect: have the kernel do it, which needs no privilege")
	fs.IntVar(&f.retries, "retries", 0, "how often a SYN is sent again that is not answered: after 1 s, then 2 s, then 4 s")
	fs.BoolVar(&f.poisson, "poisson", false, "draw the times between probes from an exponential distribution with the mean of --interval")
	fs.Float64Var(&f.jitter, "jitter", 0, fmt.Sprintf("send each probe late at random, by up to this fraction of --interval; 0 to %v", probe.MaxJitter))
	fs.StringVar(&f.source, "source", "", "address to send from, one of the probing host's (as its routes say)")
	fs.StringVar(&f.sending.Interface, "interface", "", "device to leave by (as the routes say)")
	fs.Uint8Var(&f.sending.DSCP, "dscp", 0, "differentiated services code point, 0 to 63")
	fs.Uint8Var(&f.sending.TTL, "ttl", 0, "time to live or hop limit (the host's default)")
	fs.BoolVar(&f.sending.ECN, "ecn", false, "offer explicit congestion notification")
	fs.StringVar(&f.failIf, "fail-if", "", "exit with 1 if a condition holds of any line of the summary, as in 'p99>5ms,loss>1%'")
	fs.StringVar(&f.pcap, "pcap", "", "file to write the packets to, as pcapng for Wireshark; from this host only")
	a.outputFlag(c)
	return c
}

// ports tells whether a target has several ports.
func (f *runFlags) ports() bool {
	for _, text := range f.targets {
		if ts, err := probe.ParseTargets(text); err == nil && len(ts) > 1 {
			return true
		}
	}
	return false
}

// spec checks the flags.
func (f *runFlags) spec(fleet bool) (probe.Spec, error) {
	s := probe.Spec{Count: f.count, Interval: time.Duration(f.interval), Timeout: time.Duration(f.timeout), Flows: f.flows, Mode: f.mode, Retries: f.retries,
		Poisson: f.poisson, Jitter: f.jitter, Sending: f.sending}
	if f.source != "" {
		var err error
		if s.Sending.Source, err = netip.ParseAddr(f.source); err != nil {
			return s, fmt.Errorf("--source %q is not an IP address", f.source)
		}
	}
	switch {
	case f.v4 && f.v6:
		return s, errors.New("-4 and -6 exclude each other")
	case f.v4:
		s.Family = probe.IPv4
	case f.v6:
		s.Family = probe.IPv6
	}
	check := s
	for _, text := range f.targets {
		ts, err := probe.ParseTargets(text)
		if fleet && errors.Is(err, probe.ErrNoPort) && selector.CheckName(text) == nil {
			// It may be an agent, which the controller knows; the rest can be checked here.
			ts, err = []probe.Target{{Name: text}}, nil
			check.Targets = append(check.Targets, probe.Target{Name: text, Host: "agent", Port: 1})
		} else {
			check.Targets = append(check.Targets, ts...)
		}
		if err != nil {
			return s, err
		}
		s.Targets = append(s.Targets, ts...)
	}
	return s, check.Validate()
}

func (a *app) run(ctx context.Context, f *runFlags) error {
	fleet := a.controller != ""
	spec, err := f.spec(fleet)
	if err != nil {
		return usage(err)
	}
	if _, err := selector.Parse(f.from); err != nil {
		return usage(err)
	}
	if f.from != "" && !fleet {
		return usage(fmt.Errorf("--from selects agents, and no controller is known; name one with --controller, or leave --from out to probe from this host"))
	}
	switch {
	case f.pcap != "" && fleet:
		return usage(fmt.Errorf("--pcap records what this host sends, and the agents of %s would probe; leave --pcap out, or probe from this host with --controller ''", a.controller))
	case f.pcap != "" && f.mode == probe.Connect:
		return usage(errors.New("--pcap records segments from ports of ours, and in mode connect the kernel chooses them; use --mode full"))
	}
	limits, err := parseThresholds(f.failIf)
	if err != nil {
		return usage(err)
	}
	r := newRunReport(a, f, limits)
	if fleet {
		err = a.runFleet(ctx, spec, f.from, r)
	} else {
		err = a.runHere(ctx, spec, f.pcap, r)
	}
	return r.finish(ctx, err)
}
