package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// statistics are what a matrix may show in its cells.
var statistics = map[string]func(*synmeshv1.MatrixCell) string{
	"min":  func(c *synmeshv1.MatrixCell) string { return cellTime(c, c.GetMin()) },
	"p50":  func(c *synmeshv1.MatrixCell) string { return cellTime(c, c.GetP50()) },
	"p99":  func(c *synmeshv1.MatrixCell) string { return cellTime(c, c.GetP99()) },
	"max":  func(c *synmeshv1.MatrixCell) string { return cellTime(c, c.GetMax()) },
	"loss": func(c *synmeshv1.MatrixCell) string { return percent(c.GetLoss()) },
	"sent": func(c *synmeshv1.MatrixCell) string { return fmt.Sprint(c.GetSent()) },
}

func cellTime(c *synmeshv1.MatrixCell, d *durationpb.Duration) string {
	if c.GetOpen() == 0 {
		return "-"
	}
	return milliseconds(d.AsDuration())
}

func (a *app) matrixCommand() *cobra.Command {
	var by, statistic string
	window := seconds(5 * time.Minute)
	c := &cobra.Command{
		Use:   "matrix MEASUREMENT",
		Short: "Show a mesh as a matrix, grouped by a label",
		Long: `matrix shows what the agents of one group (a row) measured to those of another
(a column). By default a cell is the median round trip of the last 5 minutes.`,
		Example: `  probectl matrix mesh --by dc
  probectl matrix mesh --by dc --stat loss --window 1h`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usage(fmt.Errorf("one measurement is wanted, as in probectl matrix mesh; %d are given", len(args)))
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if statistics[statistic] == nil {
				return usage(fmt.Errorf("--stat %q is unknown; it is min, p50, p99, max, loss or sent", statistic))
			}
			source := args[0]
			if !strings.Contains(source, "/") {
				source = "measurements/" + source
			}
			m, err := a.matrix(c.Context(), &synmeshv1.MatrixRequest{
				Source: source, GroupBy: by, Window: durationpb.New(time.Duration(window))})
			if err != nil {
				return err
			}
			return a.printMatrix(m, statistics[statistic])
		},
	}
	f := c.Flags()
	f.StringVar(&by, "by", "dc", "label that agents are grouped by")
	f.StringVar(&statistic, "stat", "p50", "what a cell shows: min, p50, p99, max, loss or sent")
	f.Var(&window, "window", "how far to look back")
	a.outputFlag(c)
	return c
}

func (a *app) matrix(ctx context.Context, request *synmeshv1.MatrixRequest) (*synmeshv1.MatrixResponse, error) {
	conn, err := a.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	m, err := synmeshv1.NewResultServiceClient(conn).Matrix(ctx, request)
	if err != nil {
		return nil, a.failed(ctx, err)
	}
	return m, nil
}

// cellView is a cell as programs read it.
type cellView struct {
	Row    string  `json:"row"`
	Column string  `json:"column"`
	Sent   int64   `json:"sent"`
	Open   int64   `json:"open"`
	Loss   float64 `json:"loss"`
	Min    float64 `json:"min_seconds"`
	P50    float64 `json:"p50_seconds"`
	P99    float64 `json:"p99_seconds"`
	Max    float64 `json:"max_seconds"`
}

func cellsOf(m *synmeshv1.MatrixResponse) []cellView {
	views := []cellView{}
	for _, c := range m.GetCells() {
		views = append(views, cellView{
			c.GetRow(), c.GetColumn(), c.GetSent(), c.GetOpen(), c.GetLoss(), c.GetMin().AsDuration().Seconds(),
			c.GetP50().AsDuration().Seconds(), c.GetP99().AsDuration().Seconds(), c.GetMax().AsDuration().Seconds(),
		})
	}
	return views
}

func (a *app) printMatrix(m *synmeshv1.MatrixResponse, show func(*synmeshv1.MatrixCell) string) error {
	switch a.output {
	case asJSON, asYAML:
		return printValue(a.out, a.output, cellsOf(m))
	case asJSONL:
		return printLines(a.out, cellsOf(m))
	case asName:
		for _, g := range m.GetGroups() {
			fmt.Fprintln(a.out, g)
		}
		return nil
	}
	cells := make(map[[2]string]*synmeshv1.MatrixCell)
	for _, c := range m.GetCells() {
		cells[[2]string{c.GetRow(), c.GetColumn()}] = c
	}
	t := &table{left: 1, header: append([]string{"FROM \\ TO"}, m.GetGroups()...), alarm: make(map[int]bool)}
	for i, row := range m.GetGroups() {
		line := []string{row}
		for _, column := range m.GetGroups() {
			text := "-"
			if c := cells[[2]string{row, column}]; c != nil {
				text = show(c)
				t.alarm[i] = t.alarm[i] || c.GetOpen() < c.GetSent()
			}
			line = append(line, text)
		}
		t.rows = append(t.rows, line)
	}
	if a.output == asCSV {
		return printCSV(a.out, t)
	}
	return print(a.out, t)
}
