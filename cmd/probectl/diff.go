package main

import (
	"fmt"

	"github.com/rogpeppe/go-internal/diff"
	"github.com/spf13/cobra"

	"github.com/synmesh/synmesh/internal/measurement"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

func (a *app) diffCommand() *cobra.Command {
	var path string
	request := &synmeshv1.ApplyMeasurementsRequest{ValidateOnly: true}
	c := &cobra.Command{
		Use:   "diff -f FILE",
		Short: "Show what apply would change",
		Long: `diff compares the measurements of a file with those that are stored, and changes
nothing. The exit code is 0 if they are the same and 1 if apply would change any.`,
		Args: a.noArguments,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if request.Measurements, err = a.readMeasurements(c, path); err != nil {
				return err
			}
			changes, err := a.apply(c.Context(), request)
			if err != nil {
				return err
			}
			return a.printChanges(changes)
		},
	}
	fileFlag(c, &path)
	c.Flags().BoolVar(&request.Prune, "prune", false, "count the stored measurements that are not in the file as deleted")
	return c
}

func (a *app) printChanges(changes []*synmeshv1.MeasurementChange) error {
	differ := false
	for _, change := range changes {
		before, err := formatted(change.GetBefore())
		if err != nil {
			return err
		}
		after, err := formatted(change.GetAfter())
		if err != nil {
			return err
		}
		text := diff.Diff("stored/"+change.GetName(), before, "given/"+change.GetName(), after)
		differ = differ || len(text) > 0
		if _, err := a.out.Write(text); err != nil {
			return fmt.Errorf("write: %w", err)
		}
	}
	if differ {
		return &exit{code: exitBroken}
	}
	return nil
}

// formatted writes a measurement as it stands in a file; nothing, if there is none.
func formatted(m *synmeshv1.Measurement) ([]byte, error) {
	if m == nil {
		return nil, nil
	}
	return measurement.Format(m)
}
