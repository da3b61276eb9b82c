package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

func (a *app) gossipCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "gossip rotate", Short: "Change what the fleet gossips with", Args: a.noCommand,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.rotateCommand())
	return c
}

func (a *app) rotateCommand() *cobra.Command {
	return &cobra.Command{
		Use: "rotate", Short: "Change the keys of the gossip, and wait until all have done so",
		Long: `rotate has the controller make a new key for the gossip, hands it to all agents that
are connected, and has them forget the one before; nobody drops out meanwhile.
Agents that are away get it when they come back. It takes some seconds, and up to a
minute longer when the controller was started just now. If you interrupt it, the
controller goes on with it all the same.

A ban does this by itself, for whoever is banned has the keys. Do it yourself when
a host was lost whose agent is locked or has enrolled again elsewhere.`,
		Args: a.noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.call(c.Context(), func(ctx context.Context, client synmeshv1.IdentityServiceClient) error {
				resp, err := client.RotateGossipKeys(ctx, &synmeshv1.RotateGossipKeysRequest{})
				if err == nil {
					fmt.Fprintf(a.out, "gossip keys changed on %d agents\n", resp.GetAgents())
				}
				return err
			})
		},
	}
}
