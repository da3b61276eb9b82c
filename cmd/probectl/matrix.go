package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// statistics are what a matrix may show in its cells.
var statistics = map[string]func(*synmeshv1.MatrixCell) string{
	"min":  func(c *synmeshv1.MatrixCell) string { return shown(kindDuration, timeOf(c, c.GetMin())) },
	"p50":  func(c *synmeshv1.MatrixCell) string { return shown(kindDuration, timeOf(c, c.GetP50())) },
	"p99":  func(c *synmeshv1.MatrixCell) string { return shown(kindDuration, timeOf(c, c.GetP99())) },
	"max":  func(c *synmeshv1.MatrixCell) string { return shown(kindDuration, timeOf(c, c.GetMax())) },
	"loss": func(c *synmeshv1.MatrixCell) string { return shown(kindFraction, fractionCell(c.GetLoss())) },
	"sent": func(c *synmeshv1.MatrixCell) string { return fmt.Sprint(c.GetSent()) },
}

func (a *app) matrixCommand() *cobra.Command {
	var by, columns, statistic string
	window := seconds(5 * time.Minute)
	c := &cobra.Command{
		Use:   "matrix MEASUREMENT",
		Short: "Show a mesh as a matrix, grouped by a label",
		Long: `matrix shows what the agents of one group (a row) measured to those of another
(a column). By default a cell is the median round trip of the last 5 minutes; quantiles are
within 1 % of the exact ones.`,
		Example: `  probectl matrix mesh --by dc
  probectl matrix mesh --by dc --stat loss --window 1h
  probectl matrix mesh --by dc --columns site -o json`,
		ValidArgsFunction: a.completeMeasurement,
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
			source, err := sourceOf(args[0])
			if err != nil {
				return usage(err)
			}
			if err := notOnTerminal(a.out, a.output); err != nil {
				return err
			}
			m, err := a.matrix(c.Context(), &synmeshv1.MatrixRequest{
				Source: source, GroupBy: by, ColumnsBy: columns, Window: durationpb.New(time.Duration(window))})
			if err != nil {
				return err
			}
			return a.printMatrix(m, statistics[statistic])
		},
	}
	f := c.Flags()
	f.StringVar(&by, "by", "dc", "label that agents are grouped by")
	f.StringVar(&columns, "columns", "", "label that the agents which are measured are grouped by (as in --by)")
	f.StringVar(&statistic, "stat", "p50", "what a cell shows: min, p50, p99, max, loss or sent")
	f.Var(&window, "window", "how far to look back, in whole minutes")
	a.outputFlagOf(c, append(slices.Clone(formats), asParquet)...)
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

// matrixColumns are those of cells, for programs.
var matrixColumns = []column[*synmeshv1.MatrixCell]{
	{"row", kindText, true, func(c **synmeshv1.MatrixCell) cell { return textCell((*c).GetRow()) }},
	{"column", kindText, true, func(c **synmeshv1.MatrixCell) cell { return textCell((*c).GetColumn()) }},
	{"sent", kindWhole, true, func(c **synmeshv1.MatrixCell) cell { return numberCell((*c).GetSent()) }},
	{"open", kindWhole, true, func(c **synmeshv1.MatrixCell) cell { return numberCell((*c).GetOpen()) }},
	{"loss", kindFraction, false, func(c **synmeshv1.MatrixCell) cell { return fractionCell((*c).GetLoss()) }},
	{"min_seconds", kindDuration, false, matrixTime((*synmeshv1.MatrixCell).GetMin)},
	{"p50_seconds", kindDuration, false, matrixTime((*synmeshv1.MatrixCell).GetP50)},
	{"p99_seconds", kindDuration, false, matrixTime((*synmeshv1.MatrixCell).GetP99)},
	{"max_seconds", kindDuration, false, matrixTime((*synmeshv1.MatrixCell).GetMax)},
}

func matrixTime(of func(*synmeshv1.MatrixCell) *durationpb.Duration) func(**synmeshv1.MatrixCell) cell {
	return func(c **synmeshv1.MatrixCell) cell { return timeOf(*c, of(*c)) }
}

// timeOf is nothing where no round trip was measured.
func timeOf(c *synmeshv1.MatrixCell, d *durationpb.Duration) cell {
	return durationCell(d.AsDuration()).onlyIf(c.GetMax().AsDuration() > 0)
}

func (a *app) printMatrix(m *synmeshv1.MatrixResponse, show func(*synmeshv1.MatrixCell) string) error {
	switch a.output {
	case asJSON, asYAML, asJSONL, asParquet:
		return printRows(a.out, a.output, matrixColumns, m.GetCells())
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
	columns := m.GetColumns()
	if columns == nil { // of a controller that is older
		columns = m.GetGroups()
	}
	t := &table{left: 1, header: append([]string{"FROM \\ TO"}, columns...), alarm: make(map[int]bool)}
	for i, row := range m.GetGroups() {
		line := []string{row}
		for _, column := range columns {
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
