// Probe-agent measures on behalf of a controller. See probe-agent --help.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/synmesh/synmesh/agent"
	"github.com/synmesh/synmesh/internal/selector"
)

var version = "unknown" // set by the linker

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "probe-agent:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	cfg := agent.Config{Version: version}
	var labels []string
	var advertise, gossipListen string
	c := &cobra.Command{
		Use:   "probe-agent (--controller ADDRESS | --join ADDRESS)... --insecure",
		Short: "Measure TCP handshakes on behalf of a controller",
		Long: `probe-agent holds a session with a controller, sends the probes that it asks
for, and reports what they found. It finds the controller by its address
(--controller) or by gossip with any member of the fleet (--join).

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
			if cfg.Name == "" {
				if cfg.Name, err = os.Hostname(); err != nil {
					return fmt.Errorf("no --name is given, and the host has none: %w", err)
				}
			}
			cfg.Logger = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			if cfg.Insecure {
				cfg.Logger.Warn("--insecure: everything is said in plaintext, and anybody may command this agent")
			}
			a, err := agent.New(cfg)
			if err != nil {
				return err
			}
			return a.Run(cmd.Context())
		},
	}
	f := c.Flags()
	f.StringVar(&cfg.Name, "name", "", "name of the agent, unique in the fleet (the host's name)")
	f.StringArrayVarP(&labels, "label", "l", nil, "label as KEY=VALUE, such as dc=fra; may be repeated")
	f.StringArrayVar(&cfg.Controllers, "controller", nil, "controller as HOST:PORT; may be repeated")
	f.StringArrayVar(&cfg.Gossip.Seeds, "join", nil, "any member of the fleet as HOST:PORT, to gossip with; may be repeated")
	f.StringVar(&gossipListen, "gossip-listen", "0.0.0.0:7946", "address to gossip on")
	f.StringVar(&cfg.Responder, "responder", agent.DefaultResponder, "address to be probed on by other agents")
	f.StringVar(&advertise, "advertise", "", "IP address that others reach this host at (the one used towards the controller)")
	f.TextVar(&cfg.Engine.Stamping, "stamping", cfg.Engine.Stamping, "quiet, or tap: for devices without transmit stamps, at a cost to all that this host sends")
	f.BoolVar(&cfg.Insecure, "insecure", false, "allow plaintext connections")
	return c
}
