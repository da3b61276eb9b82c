package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/synmesh/synmesh/internal/measurement"
	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

func (a *app) getMeasurementsCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "measurements", Aliases: []string{"measurement"}, Short: "List what the fleet measures by itself",
		Long: `measurements lists what the fleet measures by itself. As json and yaml it writes a
file that probectl apply takes; all other forms also say how it is carried out.`,
		Args: a.noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			ms, err := a.measurements(c.Context())
			if err != nil {
				return err
			}
			return a.printMeasurements(ms)
		},
	}
	a.outputFlag(c)
	return c
}

func (a *app) measurements(ctx context.Context) ([]*synmeshv1.StoredMeasurement, error) {
	conn, err := a.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	var ms []*synmeshv1.StoredMeasurement
	request := &synmeshv1.ListMeasurementsRequest{}
	for {
		page, err := synmeshv1.NewMeasurementServiceClient(conn).ListMeasurements(ctx, request)
		if err != nil {
			return nil, a.failed(ctx, err)
		}
		ms = append(ms, page.GetMeasurements()...)
		if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
			return ms, nil
		}
	}
}

// measurementView is a measurement as programs read it.
type measurementView struct {
	Name          string     `json:"name"`
	Sources       string     `json:"sources"`
	Destination   string     `json:"destination"`
	Interval      float64    `json:"interval_seconds"`
	Flows         int        `json:"flows"`
	Mode          string     `json:"mode"`
	Budget        float64    `json:"budget"`
	Expire        *time.Time `json:"expire_time,omitempty"`
	Origin        string     `json:"origin"` // "stored" or "file"
	State         string     `json:"state"`  // "active", "idle" or "expired"
	Agents        int32      `json:"agents"`
	Pairs         int64      `json:"pairs"`
	PossiblePairs int64      `json:"possible_pairs"`
	Rate          float64    `json:"probes_per_second"`
	MaxAgentRate  float64    `json:"max_agent_probes_per_second"`
	MaxTargetRate float64    `json:"max_target_probes_per_second"`
}

// view returns the view of a measurement and how it is probed. A controller
// that is newer may have taken what this probectl does not know.
func viewOfMeasurement(m *synmeshv1.StoredMeasurement) (measurementView, *probe.Spec, error) {
	checked, err := measurement.Check(m.GetMeasurement())
	if err != nil {
		return measurementView{}, nil, fmt.Errorf("%w; this probectl may be older than the controller", err)
	}
	s := m.GetStatus()
	v := measurementView{
		Name: checked.Name, Sources: checked.Sources.String(), Destination: destination(checked, m.GetMeasurement()),
		Interval: checked.Spec.Interval.Seconds(), Flows: checked.Spec.Flows, Mode: checked.Spec.Mode.String(), Budget: checked.Budget,
		Origin: "stored", State: "active", Agents: s.GetAgents(), Pairs: s.GetPairs(), PossiblePairs: s.GetPossiblePairs(),
		Rate: s.GetRate(), MaxAgentRate: s.GetMaxAgentRate(), MaxTargetRate: s.GetMaxTargetRate(),
	}
	if !checked.Expire.IsZero() {
		v.Expire = &checked.Expire
	}
	if s.GetReadOnly() {
		v.Origin = "file"
	}
	switch {
	case s.GetExpired():
		v.State = "expired"
	case s.GetAgents() == 0:
		v.State = "idle"
	}
	return v, &checked.Spec, nil
}

// destination says what is probed, as short as it can be.
func destination(c *measurement.Checked, m *synmeshv1.Measurement) string {
	texts := m.GetTargets().GetTargets()
	switch {
	case !c.Mesh && len(texts) == 1:
		return texts[0]
	case !c.Mesh:
		return fmt.Sprintf("%s and %d more", texts[0], len(texts)-1)
	}
	text := "mesh"
	if c.Between != "" {
		text += " between " + c.Between
	}
	if c.Within != "" {
		text += " within " + c.Within
	}
	if of := c.Probed.String(); of != "" {
		text += " of " + of
	}
	return text
}

func (a *app) printMeasurements(ms []*synmeshv1.StoredMeasurement) error {
	switch a.output {
	case asJSON, asYAML:
		return a.printMeasurementFile(ms)
	case asName:
		for _, m := range ms {
			fmt.Fprintln(a.out, m.GetMeasurement().GetName())
		}
		return nil
	}
	views := make([]measurementView, len(ms))
	for i, m := range ms {
		var err error
		if views[i], _, err = viewOfMeasurement(m); err != nil {
			return err
		}
	}
	if a.output == asJSONL {
		return printLines(a.out, views)
	}
	if a.output == asCSV {
		return printCSV(a.out, measurementColumns(views))
	}
	if len(views) == 0 {
		fmt.Fprintln(a.err, "no measurements")
		return nil
	}
	return print(a.out, measurementTable(views, a.output == asWide))
}

// measurementColumns are the columns of measurements as CSV; instants and
// durations are as in JSON.
func measurementColumns(views []measurementView) *table {
	t := &table{header: []string{"name", "state", "sources", "destination", "interval_seconds", "flows", "mode", "budget", "expire_time", "origin",
		"agents", "pairs", "possible_pairs", "probes_per_second"}}
	for _, v := range views {
		t.rows = append(t.rows, []string{v.Name, v.State, v.Sources, v.Destination, strconv.FormatFloat(v.Interval, 'f', -1, 64), fmt.Sprint(v.Flows), v.Mode, number(v.Budget),
			v.expires(), v.Origin, fmt.Sprint(v.Agents), fmt.Sprint(v.Pairs), fmt.Sprint(v.PossiblePairs), number(v.Rate)})
	}
	return t
}

func (v *measurementView) expires() string {
	if v.Expire == nil {
		return ""
	}
	return v.Expire.UTC().Format(time.RFC3339)
}

func measurementTable(views []measurementView, wide bool) *table {
	t := &table{left: 4, header: []string{"NAME", "STATE", "SOURCES", "TARGETS", "INTERVAL", "AGENTS", "PAIRS", "PROBES/S"}, alarm: make(map[int]bool)}
	if wide {
		t.header = append(t.header, "FLOWS", "MODE", "BUDGET", "EXPIRES", "ORIGIN")
	}
	for i, v := range views {
		row := []string{v.Name, v.State, cmp.Or(v.Sources, "all"), v.Destination, time.Duration(v.Interval * 1e9).String(), fmt.Sprint(v.Agents), pairsOf(v), number(v.Rate)}
		if wide {
			row = append(row, fmt.Sprint(v.Flows), v.Mode, number(v.Budget), cmp.Or(v.expires(), "-"), v.Origin)
		}
		t.rows = append(t.rows, row)
		t.alarm[i] = v.State == "idle"
	}
	return t
}

func pairsOf(v measurementView) string {
	if v.Pairs == v.PossiblePairs {
		return fmt.Sprint(v.Pairs)
	}
	return fmt.Sprintf("%d of %d", v.Pairs, v.PossiblePairs)
}

// number shows a rate with four digits that count, and without an exponent.
func number(f float64) string {
	if f == 0 {
		return "0"
	}
	unit := math.Pow(10, 3-math.Floor(math.Log10(math.Abs(f))))
	return strconv.FormatFloat(math.Round(f*unit)/unit, 'f', -1, 64)
}

// printMeasurementFile writes measurements as apply reads them.
func (a *app) printMeasurementFile(ms []*synmeshv1.StoredMeasurement) error {
	var plain []*synmeshv1.Measurement
	for _, m := range ms {
		plain = append(plain, m.GetMeasurement())
	}
	if a.output == asYAML {
		text, err := measurement.Format(plain...)
		if err != nil {
			return err
		}
		_, err = a.out.Write(text)
		return err
	}
	text, err := protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: len(plain) == 0}.Marshal(&synmeshv1.MeasurementFile{Measurements: plain})
	if err != nil {
		return err
	}
	return printValue(a.out, asJSON, json.RawMessage(text))
}
