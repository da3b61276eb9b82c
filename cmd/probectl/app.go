package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/charmbracelet/x/term"
	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"
)

// app is what all commands share.
type app struct {
	out, err io.Writer
	env      func(string) string

	contextName string
	controller  string
	insecure    bool
	output      format
}

func (a *app) command() *cobra.Command {
	c := &cobra.Command{
		Use:   "probectl",
		Short: "Measure TCP handshake latency, here or from a fleet of agents",
		Long: `probectl measures how long TCP handshakes take, from agents in many places or
from this host, and shows what was measured before.

Where a flag is not given, the variable PROBECTL_CONTROLLER, PROBECTL_INSECURE
or PROBECTL_CONTEXT counts, and then the context: a file named NAME.yaml among
the contexts in synmesh/contexts of your configuration folder, with
"controller" and "insecure". The context is "default" if none is named.`,
		Version: version, SilenceUsage: true, SilenceErrors: true, Args: a.noCommand,
		RunE:              func(c *cobra.Command, _ []string) error { return c.Help() },
		PersistentPreRunE: func(c *cobra.Command, _ []string) error { return a.settle(c) },
	}
	c.SetOut(a.out)
	c.SetErr(a.err)
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usage(fmt.Errorf("%w; see %s --help", err, c.CommandPath()))
	})
	f := c.PersistentFlags()
	f.StringVar(&a.contextName, "context", "", "context to take what is not given from (default)")
	f.StringVar(&a.controller, "controller", "", "controller as HOST:PORT")
	f.BoolVar(&a.insecure, "insecure", false, "allow a plaintext connection to the controller")
	c.AddCommand(a.runCommand(), a.traceCommand(), a.listenCommand(), a.getCommand(), a.matrixCommand())
	return c
}

func (a *app) noCommand(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage(fmt.Errorf("unknown command %q; see %s --help", args[0], c.CommandPath()))
	}
	return nil
}

// settle fills in what the flags left open.
func (a *app) settle(c *cobra.Command) error {
	chosen := a.contextName
	if chosen == "" {
		chosen = a.env("PROBECTL_CONTEXT")
	}
	saved, err := readContext(chosen)
	if err != nil {
		return usage(err)
	}
	if !c.Flags().Changed("controller") {
		if a.controller = a.env("PROBECTL_CONTROLLER"); a.controller == "" {
			a.controller = saved.Controller
		}
	}
	if !c.Flags().Changed("insecure") {
		switch v := a.env("PROBECTL_INSECURE"); v {
		case "":
			a.insecure = saved.Insecure
		case "1", "true":
			a.insecure = true
		case "0", "false":
		default:
			return usage(fmt.Errorf("PROBECTL_INSECURE is %q; it is 1 or 0", v))
		}
	}
	return nil
}

// savedContext is a context file.
type savedContext struct {
	Controller string `yaml:"controller"`
	Insecure   bool   `yaml:"insecure"`
}

// readContext reads the context of that name. If none was named and there is
// none called default, that is as well.
func readContext(name string) (savedContext, error) {
	var c savedContext
	named := name != ""
	if !named {
		name = "default"
	}
	if strings.ContainsAny(name, `/\`) {
		return c, fmt.Errorf("context %q: a name is wanted, not a path", name)
	}
	base, err := os.UserConfigDir()
	if err != nil {
		if named {
			return c, fmt.Errorf("context %q: %w", name, err)
		}
		return c, nil // no home, no contexts
	}
	path := filepath.Join(base, "synmesh", "contexts", name+".yaml")
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) && !named {
		return c, nil
	}
	if err != nil {
		return c, fmt.Errorf("context %q: %w", name, err)
	}
	if err := yaml.UnmarshalWithOptions(text, &c, yaml.Strict()); err != nil {
		return c, fmt.Errorf("context %q: %s: %w", name, path, err)
	}
	return c, nil
}

// terminal tells whether somebody is watching what is written there.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(f.Fd())
}
