package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/synmesh/synmesh/probe"
)

// traceFlags are what the trace command was given.
type traceFlags struct {
	timeout  seconds
	v4, v6   bool
	retries  int
	absolute bool
	pcap     string
}

func (a *app) traceCommand() *cobra.Command {
	f := traceFlags{timeout: seconds(probe.DefaultTimeout)}
	c := &cobra.Command{
		Use:   "trace TARGET",
		Short: "Show one handshake, segment by segment",
		Long: `trace opens one TCP connection from this host and closes it at once, shows every
segment that passes, and explains what it meant.

TARGET is HOST:PORT, with an IPv6 address in brackets. Times count from the
first SYN. A SYN shows its sequence number as it is; all other numbers count
from there, unless --absolute is given. A window is followed by what it means
where the two ends have agreed to scale it.`,
		Example: `  probectl trace db.fra:5432
  probectl trace '[2001:db8::1]:443' --pcap handshake.pcapng
  probectl trace 10.0.0.2:443 -o jsonl`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usage(fmt.Errorf("%d targets; trace shows one handshake, as in probectl trace db.fra:5432", len(args)))
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if c.Flags().Changed("controller") && a.controller != "" {
				return usage(errors.New("trace works from this host alone; leave --controller out"))
			}
			return a.trace(c.Context(), args[0], &f)
		},
	}
	fs := c.Flags()
	fs.VarP(&f.timeout, "timeout", "W", "how long an answer is waited for, to the last SYN and to the FIN")
	fs.BoolVarP(&f.v4, "ipv4", "4", false, "use IPv4 only")
	fs.BoolVarP(&f.v6, "ipv6", "6", false, "use IPv6 only")
	fs.IntVar(&f.retries, "retries", 2, "how often a SYN is sent again that is not answered: after 1 s, then 2 s, then 4 s")
	fs.BoolVar(&f.absolute, "absolute", false, "show sequence numbers as they are")
	fs.StringVar(&f.pcap, "pcap", "", "file to write the packets to, as pcapng for Wireshark")
	a.outputFlagOf(c, asTable, asJSON, asJSONL, asYAML)
	return c
}

// spec checks the flags.
func (f *traceFlags) spec(target string) (probe.Spec, error) {
	run := runFlags{
		targets: []string{target}, count: 1, interval: seconds(probe.DefaultInterval), timeout: f.timeout,
		v4: f.v4, v6: f.v6, flows: 1, mode: probe.Full, retries: f.retries,
	}
	s, err := run.spec(false)
	if err == nil && len(s.Targets) != 1 {
		err = fmt.Errorf("target %q has %d ports; trace shows one handshake", target, len(s.Targets))
	}
	return s, err
}

func (a *app) trace(ctx context.Context, target string, f *traceFlags) error {
	spec, err := f.spec(target)
	if err != nil {
		return usage(err)
	}
	t := &trace{app: a, absolute: f.absolute}
	if err := a.resolveTrace(ctx, &spec, t); err != nil {
		return err
	}
	e, err := openEngine()
	if err != nil {
		return err
	}
	rec, err := openRecording(e, &spec, resolveTargets(ctx, &spec), f.pcap, t.add)
	if err != nil {
		return errors.Join(err, e.Close())
	}
	err = measure(ctx, e, spec, rec, func(r *probe.Result) { t.result = *r })
	err = errors.Join(err, rec.close(a))
	if e := t.finish(&spec); err == nil {
		err = e
	}
	switch {
	case ctx.Err() != nil:
		return &exit{code: exitInterrupted}
	case err != nil:
		return err
	case t.result.Outcome == probe.Error:
		return errors.New(t.result.Err)
	case !t.result.Outcome.Answered():
		return &exit{code: exitBroken}
	}
	return nil
}

// resolveTrace looks the target's name up, and says how long that took.
func (a *app) resolveTrace(ctx context.Context, spec *probe.Spec, t *trace) error {
	to := &spec.Targets[0]
	began := time.Now()
	addr, err := lookUp(ctx, to.Host, spec.Family)
	took := time.Since(began)
	switch {
	case ctx.Err() != nil:
		return &exit{code: exitInterrupted}
	case err != nil:
		return fmt.Errorf("target %s has no address: %w", to.Name, err)
	case strings.EqualFold(addr.String(), to.Host):
		return nil // no name
	}
	w := a.out
	if a.output != asTable {
		w = a.err
	}
	_, err = fmt.Fprintf(w, "dns %s: %s after %s\n", to.Host, addr, milliseconds(took))
	to.Host = addr.String()
	return err
}
