// Probe-agent measures on behalf of a controller. See probe-agent --help.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/synmesh/synmesh/agent"
	"github.com/synmesh/synmesh/internal/selector"
)

var version = "unknown" // set by the linker

func main() {
	oneCore()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "probe-agent:", err)
		os.Exit(1)
	}
}

// oneCore keeps to one core, unless GOMAXPROCS says otherwise. An agent has little to do at a time, and with
// more the runtime of Go wakes up threads to look for work, which costs a quarter of what the agent takes.
func oneCore() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(1)
	}
}

func command() *cobra.Command {
	cfg := agent.Config{Version: version}
	var labels []string
	var advertise, gossipListen string
	var spoolMiB int64
	c := &cobra.Command{
		Use:   "probe-agent (--controller ADDRESS | --join ADDRESS)...",
		Short: "Measure TCP handshakes on behalf of a controller",
		Long: `probe-agent holds a session with a controller, sends the probes that it asks
for, and reports what they found. It finds the controller by its address
(--controller) or by gossip with any member of the fleet (--join). It has to be
enrolled before, which gives it its name: see probe-agent enroll. With --tls-cert,
--tls-key and --tls-roots its certificate comes from your own PKI instead, and has
one URI, spiffe://FLEET/agent/NAME.

It needs the capability CAP_NET_RAW.`,
		Version: version, Args: cobra.NoArgs, SilenceUsage: true, SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if cfg.Labels, err = selector.ParseLabels(labels); err != nil {
				return err
			}
			if advertise != "" {
				if cfg.Advertise, err = netip.ParseAddr(advertise); err != nil {
					return fmt.Errorf("--advertise %q is not an IP address", advertise)
				}
			}
			if cfg.Gossip.Listen, err = netip.ParseAddrPort(gossipListen); err != nil {
				return fmt.Errorf("--gossip-listen %q is not ADDRESS:PORT, as in 0.0.0.0:7946", gossipListen)
			}
			if spoolMiB < 1 || spoolMiB > 1<<20 {
				return fmt.Errorf("--spool-limit %d is outside 1 to %d MiB", spoolMiB, 1<<20)
			}
			cfg.SpoolLimit = spoolMiB << 20
			cfg.Logger = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			a, err := agent.New(cfg)
			if err != nil {
				return err
			}
			return a.Run(cmd.Context())
		},
	}
	f := c.Flags()
	f.StringArrayVarP(&labels, "label", "l", nil, "label as KEY=VALUE, such as dc=fra; may be repeated")
	f.StringArrayVar(&cfg.Controllers, "controller", nil, "controller as HOST:PORT; may be repeated")
	f.StringArrayVar(&cfg.Gossip.Seeds, "join", nil, "any member of the fleet as HOST:PORT, to gossip with; may be repeated")
	f.StringVar(&gossipListen, "gossip-listen", "0.0.0.0:7946", "address to gossip on")
	f.StringVar(&cfg.Responder, "responder", agent.DefaultResponder, "address to be probed on by other agents")
	f.StringVar(&advertise, "advertise", "", "IP address that others reach this host at (the one used towards the controller)")
	f.TextVar(&cfg.Engine.Stamping, "stamping", cfg.Engine.Stamping, "quiet, or tap: for devices without transmit stamps, at a cost to all that this host sends")
	stateFlag(c, &cfg.StateDir)
	f.Int64Var(&spoolMiB, "spool-limit", 1024, "MiB that these results may take; then the oldest are dropped")
	f.StringVar(&cfg.TLS.Certificate, "tls-cert", "", "PEM file with the agent's certificate, of an own PKI; it is watched for changes")
	f.StringVar(&cfg.TLS.Key, "tls-key", "", "PEM file with its key")
	f.StringVar(&cfg.TLS.Roots, "tls-roots", "", "PEM file with the roots that all certificates of the fleet lead to")
	c.MarkFlagsRequiredTogether("tls-cert", "tls-key", "tls-roots")
	c.AddCommand(enrollCommand())
	return c
}
