package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/synmesh/synmesh/agent"
	"github.com/synmesh/synmesh/internal/identity"
)

func stateFlag(c *cobra.Command, dir *string) {
	c.Flags().StringVar(dir, "state", "/var/lib/synmesh-agent", "folder for the agent's certificate, and for results that are not stored yet")
}

func enrollCommand() *cobra.Command {
	var cfg agent.EnrolConfig
	var token, file string
	c := &cobra.Command{
		Use:   "enroll --controller ADDRESS --token-file FILE",
		Short: "Get this agent's certificate, with a token",
		Long: `enroll uses up a token, which probectl token create has made, for a certificate.
The key is made on this host and stays there. The token lets in one agent, once,
and tells which controller is the right one: no other is believed.

From then on the agent renews its certificate by itself.`,
		Example: `  probectl token create --agent fra-1 --token-file fra-1.token
  probe-agent enroll --controller ctl.example:7400 --token-file fra-1.token`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if cfg.Token, err = readToken(token, file, c.InOrStdin()); err != nil {
				return err
			}
			if cfg.Controller == "" {
				return errors.New("no controller is given; name one with --controller HOST:PORT")
			}
			id, err := agent.Enrol(c.Context(), cfg)
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "enrolled as %s; its state is in %s\n", id.URI(), cfg.StateDir)
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&cfg.Controller, "controller", "", "controller as HOST:PORT")
	f.StringVar(&file, "token-file", "", "file with the token; - is standard input")
	f.StringVar(&token, "token", "", "the token itself; others on this host can read it while this runs, so --token-file is better; - is standard input")
	f.StringVar(&cfg.Name, "name", "", "name to insist on (the one that the token is for)")
	stateFlag(c, &cfg.StateDir)
	c.MarkFlagsMutuallyExclusive("token", "token-file")
	return c
}

// maxToken is how much is read of a token's file, in bytes.
const maxToken = 1 << 10

// readToken reads the token from where it was said to be.
func readToken(token, file string, stdin io.Reader) (identity.Token, error) {
	from := stdin
	switch {
	case token == "" && file == "":
		return identity.Token{}, errors.New("no token is given; make one with probectl token create, and name its file with --token-file")
	case token != "" && token != "-":
		return identity.ParseToken(token)
	case file != "" && file != "-":
		f, err := os.Open(file)
		if err != nil {
			return identity.Token{}, fmt.Errorf("token: %w", err)
		}
		defer f.Close()
		from = f
	}
	text, err := io.ReadAll(io.LimitReader(from, maxToken))
	if err != nil {
		return identity.Token{}, fmt.Errorf("token: %w", err)
	}
	return identity.ParseToken(strings.TrimSpace(string(text)))
}
