package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/synmesh/synmesh/internal/measurement"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

func (a *app) applyCommand() *cobra.Command {
	var path string
	request := &synmeshv1.ApplyMeasurementsRequest{}
	c := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Store the measurements of a file",
		Long: `apply stores the measurements of a file, each in the place of the one of its
name: all of them or, if anything is wrong with one, none. The fleet follows
within a second or so. deploy/measurements.yaml shows what a file looks like.`,
		Example: `  probectl apply -f measurements.yaml
  probectl get measurements -o yaml | sed s/10s/5s/ | probectl apply -f -`,
		Args: a.noArguments,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if request.Measurements, err = a.readMeasurements(c, path); err != nil {
				return err
			}
			changes, err := a.apply(c.Context(), request)
			for _, change := range changes {
				fmt.Fprintf(a.out, "measurement/%s %s\n", change.GetName(), actionWords[change.GetAction()])
			}
			return err
		},
	}
	fileFlag(c, &path)
	c.Flags().BoolVar(&request.Prune, "prune", false, "delete the stored measurements that are not in the file")
	return c
}

var actionWords = map[synmeshv1.MeasurementAction]string{
	synmeshv1.MeasurementAction_MEASUREMENT_ACTION_CREATED:   "created",
	synmeshv1.MeasurementAction_MEASUREMENT_ACTION_CHANGED:   "configured",
	synmeshv1.MeasurementAction_MEASUREMENT_ACTION_UNCHANGED: "unchanged",
	synmeshv1.MeasurementAction_MEASUREMENT_ACTION_REMOVED:   "deleted",
}

func fileFlag(c *cobra.Command, path *string) {
	c.Flags().StringVarP(path, "file", "f", "", "YAML file of measurements; - is standard input")
}

// readMeasurements reads the file that -f names.
func (a *app) readMeasurements(c *cobra.Command, path string) ([]*synmeshv1.Measurement, error) {
	switch path {
	case "":
		return nil, usage(fmt.Errorf("no file is given; name one with -f, as in %s -f measurements.yaml", c.CommandPath()))
	case "-":
		text, err := io.ReadAll(c.InOrStdin())
		if err != nil {
			return nil, fmt.Errorf("standard input: %w", err)
		}
		ms, err := measurement.Read(text)
		if err != nil {
			return nil, usage(fmt.Errorf("standard input: %w", err))
		}
		return ms, nil
	}
	ms, err := measurement.ReadFile(path)
	if err != nil {
		return nil, usage(err)
	}
	return ms, nil
}

func (a *app) apply(ctx context.Context, request *synmeshv1.ApplyMeasurementsRequest) ([]*synmeshv1.MeasurementChange, error) {
	if len(request.GetMeasurements()) == 0 && !request.GetPrune() {
		return nil, usage(errors.New("there is no measurement in the file"))
	}
	conn, err := a.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	response, err := synmeshv1.NewMeasurementServiceClient(conn).ApplyMeasurements(ctx, request)
	if err != nil {
		return nil, a.failed(ctx, err)
	}
	return response.GetChanges(), nil
}
