package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

func (a *app) deleteCommand() *cobra.Command {
	var path string
	c := &cobra.Command{
		Use:   "delete -f FILE",
		Short: "Delete measurements; what they have found stays",
		Long: `delete deletes the measurements that a file names, or those that are named after
delete measurement: all of them or, if one is not there, none. What they have
found stays, and is shown as before.`,
		Example: `  probectl delete -f measurements.yaml
  probectl delete measurement web mesh`,
		Args: a.noCommand,
		RunE: func(c *cobra.Command, _ []string) error {
			if path == "" {
				return usage(errors.New("delete what? write probectl delete measurement NAME, or probectl delete -f FILE"))
			}
			ms, err := a.readMeasurements(c, path)
			if err != nil {
				return err
			}
			var names []string
			for _, m := range ms {
				names = append(names, m.GetName())
			}
			if len(names) == 0 {
				return usage(errors.New("there is no measurement in the file"))
			}
			return a.deleteMeasurements(c.Context(), names)
		},
	}
	fileFlag(c, &path)
	c.AddCommand(&cobra.Command{
		Use: "measurement NAME...", Aliases: []string{"measurements"}, Short: "Delete measurements by their names",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage(errors.New("no name is given; see probectl get measurements"))
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error { return a.deleteMeasurements(c.Context(), args) },
	})
	return c
}

func (a *app) deleteMeasurements(ctx context.Context, names []string) error {
	conn, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = synmeshv1.NewMeasurementServiceClient(conn).DeleteMeasurements(ctx, &synmeshv1.DeleteMeasurementsRequest{Names: names})
	if err != nil {
		return a.failed(ctx, err)
	}
	for _, name := range names {
		fmt.Fprintf(a.out, "measurement/%s deleted\n", name)
	}
	return nil
}
