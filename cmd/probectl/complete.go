package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"
)

// completeWithin is how long somebody who has pressed the tabulator waits.
const completeWithin = 2 * time.Second

// complete has the shell complete a flag.
func complete(c *cobra.Command, flag string, with cobra.CompletionFunc) {
	if err := c.RegisterFlagCompletionFunc(flag, with); err != nil {
		panic(err) // there is no such flag
	}
}

// completeMeasurement completes the first argument by the measurements that there are.
func (a *app) completeMeasurement(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 || a.settle(c) != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(c.Context(), completeWithin)
	defer cancel()
	ms, err := a.measurements(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp // the command itself will say why
	}
	var names []string
	for _, m := range ms {
		names = append(names, m.GetMeasurement().GetName())
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
