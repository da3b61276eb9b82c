// Probe-controller plans, collects and serves what agents measure. See
// probe-controller --help.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/synmesh/synmesh/controller"
	"github.com/synmesh/synmesh/controller/metrics"
	"github.com/synmesh/synmesh/internal/measurement"
)

var version = "unknown" // set by the linker

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "probe-controller:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	var o options
	c := &cobra.Command{
		Use:   "probe-controller --data FOLDER",
		Short: "Plan, collect and serve what agents measure",
		Long: `probe-controller is where agents connect to and operators ask: it hands out
timetables and runs, keeps the results, and serves them over gRPC. JSON and metrics
are served over HTTP, which like gRPC takes certificates of the fleet only.

On its first start it makes a CA for the fleet in FOLDER/ca, an admin, and the
admin's context file FOLDER/operator.yaml, for probectl --context. With --tls-cert,
--tls-key and --tls-roots certificates come from your own PKI instead; each has one
URI: spiffe://FLEET/controller/NAME, spiffe://FLEET/agent/NAME, or
spiffe://FLEET/user/ROLE/NAME with viewer, operator or admin for a role.`,
		Version: version, Args: cobra.NoArgs, SilenceUsage: true, SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := o.config()
			if err != nil {
				return err
			}
			cfg.Version, cfg.Logger = version, slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			ctl, err := controller.New(cfg)
			if err != nil {
				return err
			}
			return ctl.Run(cmd.Context())
		},
	}
	o.flags(c.Flags())
	c.MarkFlagsRequiredTogether("tls-cert", "tls-key", "tls-roots")
	c.AddCommand(operatorCommand(), checkCommand(), restoreCommand())
	return c
}

// options are what the flags say.
type options struct {
	cfg                                   controller.Config
	advertise, gossipListen, measurements string
	otlp                                  metrics.OTLP
}

func (o *options) flags(f *pflag.FlagSet) {
	f.StringVar(&o.cfg.Name, "name", "", "name in the gossip, unique in the fleet (the host's name)")
	f.StringVar(&o.cfg.DataDir, "data", "", "folder for the history, the registry and the CA")
	historyFlags(f, &o.cfg.History)
	f.StringVar(&o.cfg.Listen, "listen", controller.DefaultListen, "gRPC address, for agents and operators")
	f.StringVar(&o.cfg.HTTP, "http", controller.DefaultHTTP, "address for JSON and metrics; an empty one serves none")
	f.StringVar(&o.cfg.MetricsBy, "metrics-by", metrics.DefaultBy, "label of agents that metrics of probes are grouped by")
	f.StringVar(&o.otlp.Endpoint, "otlp-endpoint", "", "collector that metrics are pushed to, as HOST:PORT; OTLP over gRPC and TLS")
	f.StringVar(&o.otlp.CA, "otlp-ca", "", "PEM file with the roots of its certificate (those of the host)")
	f.StringVar(&o.otlp.Headers, "otlp-headers-file", "", "file with a line NAME: VALUE for each header to send to it")
	f.DurationVar(&o.otlp.Interval, "otlp-interval", metrics.DefaultInterval, "time between two pushes")
	f.StringVar(&o.measurements, "measurements", "", "YAML file of measurements to plan")
	f.StringArrayVar(&o.cfg.Gossip.Seeds, "join", nil, "any member of the fleet as HOST:PORT, to gossip with; may be repeated")
	f.StringVar(&o.gossipListen, "gossip-listen", "0.0.0.0:7946", "address to gossip on")
	f.StringVar(&o.advertise, "advertise", "", "IP address that others reach this host at")
	f.StringVar(&o.cfg.TLS.Certificate, "tls-cert", "", "PEM file with the controller's certificate, of an own PKI; it is watched for changes")
	f.StringVar(&o.cfg.TLS.Key, "tls-key", "", "PEM file with its key")
	f.StringVar(&o.cfg.TLS.Roots, "tls-roots", "", "PEM file with the roots that all certificates of the fleet lead to")
}

// config checks what the flags say.
func (o *options) config() (cfg controller.Config, err error) {
	cfg = o.cfg
	if o.advertise != "" {
		if cfg.Advertise, err = netip.ParseAddr(o.advertise); err != nil {
			return cfg, fmt.Errorf("--advertise %q is not an IP address", o.advertise)
		}
	}
	if cfg.Gossip.Listen, err = netip.ParseAddrPort(o.gossipListen); err != nil {
		return cfg, fmt.Errorf("--gossip-listen %q is not ADDRESS:PORT, as in 0.0.0.0:7946", o.gossipListen)
	}
	if o.measurements != "" {
		if cfg.Measurements, err = measurement.ReadFile(o.measurements); err != nil {
			return cfg, err
		}
	}
	if cfg.Name == "" {
		if cfg.Name, err = os.Hostname(); err != nil {
			return cfg, fmt.Errorf("no --name is given, and the host has none: %w", err)
		}
	}
	if o.otlp.Endpoint != "" {
		cfg.OTLP = &o.otlp
	} else if o.otlp != (metrics.OTLP{Interval: metrics.DefaultInterval}) {
		return cfg, errors.New("--otlp-... says how to push metrics, and not where to; name a collector with --otlp-endpoint")
	}
	return cfg, nil
}
