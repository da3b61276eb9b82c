package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/charmbracelet/x/term"
	"github.com/spf13/cobra"

	"github.com/synmesh/synmesh/internal/identity/contexts"
)

// app is what all commands share.
type app struct {
	out, err io.Writer
	env      func(string) string

	contextName string
	controller  string
	saved       contexts.Context
	output      format
}

func (a *app) command() *cobra.Command {
	c := &cobra.Command{
		Use:   "probectl",
		Short: "Measure TCP handshake latency, here or from a fleet of agents",
		Long: `probectl measures how long TCP handshakes take, from agents in many places or
from this host, and shows what was measured before.

A context says which controller to ask, and who you are. It is a file: the one
at a path such as ./alice.yaml, or of a NAME in synmesh/contexts of your
configuration folder; "default" if none is named. The first is the operator.yaml
in the controller's data folder; others are made by probectl user create. For
certificates of your own PKI write one with "controller", "certificate", "key" and
"roots", the last three names of files.

Where a flag is not given, the variable PROBECTL_CONTROLLER or PROBECTL_CONTEXT counts.`,
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
	f.StringVar(&a.contextName, "context", "", "context: a path, or a name (default)")
	f.StringVar(&a.controller, "controller", "", "controller as HOST:PORT")
	c.AddCommand(a.runCommand(), a.traceCommand(), a.listenCommand(), a.getCommand(), a.matrixCommand(),
		a.historyCommand(), a.exportCommand(), a.watchCommand(),
		a.applyCommand(), a.diffCommand(), a.deleteCommand(), a.describeCommand(),
		a.tokenCommand(), a.userCommand(), a.banCommand(), a.unbanCommand(), a.unlockCommand(), a.gossipCommand(), a.backupCommand(), a.whoamiCommand())
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
	if f := c.Flags().Lookup("output"); f != nil {
		a.output = format(f.Value.String())
	}
	var err error
	if a.saved, err = readContext(chosen); err != nil {
		return usage(err)
	}
	if !c.Flags().Changed("controller") {
		if a.controller = a.env("PROBECTL_CONTROLLER"); a.controller == "" {
			a.controller = a.saved.Controller
		}
	}
	return nil
}

// readContext reads the context of that name, or at that path. If none was named
// and there is none called default, that is as well.
func readContext(name string) (contexts.Context, error) {
	path, err := contextPath(name)
	if err != nil || path == "" {
		return contexts.Context{}, err
	}
	c, err := contexts.Read(path)
	if errors.Is(err, os.ErrNotExist) && name == "" {
		return contexts.Context{}, nil
	}
	if err != nil {
		return contexts.Context{}, fmt.Errorf("context %q: %w", name, err)
	}
	return c, nil
}

// contextPath returns where the context of that name is. What has a slash or
// ends in .yaml is a path itself.
func contextPath(name string) (string, error) {
	if strings.ContainsAny(name, `/\`) || strings.HasSuffix(name, ".yaml") {
		return name, nil
	}
	base, err := os.UserConfigDir()
	switch {
	case err != nil && name != "":
		return "", fmt.Errorf("context %q: %w", name, err)
	case err != nil:
		return "", nil // no home, no contexts
	case name == "":
		name = "default"
	}
	return filepath.Join(base, "synmesh", "contexts", name+".yaml"), nil
}

// terminal tells whether somebody is watching what is written there.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(f.Fd())
}
