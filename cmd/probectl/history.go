package main

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// historyFlags are what the history command was given.
type historyFlags struct {
	filterFlags
	stretch
	step      seconds
	quantiles []float64
	byFlow    bool
}

func (a *app) historyCommand() *cobra.Command {
	f := historyFlags{quantiles: []float64{0.5, 0.99}}
	c := &cobra.Command{
		Use:   "history [MEASUREMENT]",
		Short: "Sum up what was measured, over any time",
		Long: `history sums up what each agent measured to each target: counts, loss, and quantiles of
the round trips that are within 1 % of the exact ones. --step parts the time.

Sums of whole minutes are kept for longer than single results, which --by-flow and
a --step that is not in minutes need. Times are by the agents' clocks.

` + filterHelp,
		Example: `  probectl history mesh --since 7d
  probectl history mesh --from dc=nyc --to dc=fra --since 1h --step 1m
  probectl history --to db.fra:5432 --since 2026-11-20T00:00:00Z --until 2026-11-21T00:00:00Z --step 1h -o csv
  probectl history mesh --by-flow --quantiles 0.5,0.9,0.999`,
		Args: perhapsOne, ValidArgsFunction: a.completeMeasurement,
		RunE: func(c *cobra.Command, args []string) error {
			request, err := f.request(args, time.Now())
			if err != nil {
				return usage(err)
			}
			return a.history(c.Context(), request)
		},
	}
	f.filterFlags.add(c)
	f.stretch.add(c)
	fs := c.Flags()
	fs.Var(&f.step, "step", "part the time into steps this long (one step)")
	fs.Float64SliceVar(&f.quantiles, "quantiles", f.quantiles, "of the round trips, each 0 to 1, with commas between them")
	fs.BoolVar(&f.byFlow, "by-flow", false, "sum up each flow by itself, told by its source port")
	a.outputFlagOf(c, append(slices.Clone(formats), asParquet)...)
	return c
}

// minStep is the shortest step.
const minStep = time.Millisecond

func (f *historyFlags) request(args []string, now time.Time) (*synmeshv1.QueryRequest, error) {
	filter, err := f.filter(args)
	if err != nil {
		return nil, err
	}
	m := &synmeshv1.QueryRequest{Filter: filter, ByFlow: f.byFlow, Quantiles: f.quantiles}
	if m.StartTime, m.EndTime, err = f.times(now); err != nil {
		return nil, err
	}
	if step := time.Duration(f.step); step != 0 {
		if step < minStep {
			return nil, fmt.Errorf("--step %v is too short; it is %v or more", step, minStep)
		}
		m.Step = durationpb.New(step)
		if !f.since.exact { // steps at round times, which are also the quicker to sum up
			m.StartTime = timestamppb.New(f.since.at(now, time.Hour).Truncate(step))
		}
	}
	for i, q := range f.quantiles {
		if math.IsNaN(q) || q < 0 || q > 1 {
			return nil, fmt.Errorf("--quantiles: %v is outside 0 to 1; the median is 0.5", q)
		}
		if slices.Contains(f.quantiles[:i], q) {
			return nil, fmt.Errorf("--quantiles: %v is there twice", q)
		}
	}
	return m, nil
}

// history prints what the controller sums up, page by page where the form allows.
func (a *app) history(ctx context.Context, request *synmeshv1.QueryRequest) error {
	if err := notOnTerminal(a.out, a.output); err != nil {
		return err
	}
	conn, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	columns := historyColumns(request)
	var rows []historyRow
	var out rowWriter[historyRow]
	if a.output == asJSONL || a.output == asCSV || a.output == asParquet {
		out = newRowWriter(a.out, a.output, columns)
	}
	for {
		page, err := synmeshv1.NewResultServiceClient(conn).Query(ctx, request)
		if err != nil {
			return a.failed(ctx, err)
		}
		for _, row := range historyRows(page) {
			if out == nil {
				rows = append(rows, row)
			} else if err := out.write(&row); err != nil {
				return err
			}
		}
		if request.PageToken = page.GetNextPageToken(); request.PageToken != "" {
			continue
		}
		if out != nil {
			return out.close()
		}
		return a.printHistory(request, columns, rows)
	}
}

// historyRow is a step of a series.
type historyRow struct {
	series *synmeshv1.SeriesSummary
	step   *synmeshv1.StepSummary
}

func historyRows(page *synmeshv1.QueryResponse) (rows []historyRow) {
	for _, s := range page.GetSeries() {
		for _, step := range s.GetSteps() {
			rows = append(rows, historyRow{s, step})
		}
	}
	return rows
}

// timed is nothing where no round trip was measured.
func (r *historyRow) timed(d *durationpb.Duration) cell {
	return durationCell(d.AsDuration()).onlyIf(r.step.GetTimed() > 0)
}

// quantile is one of the step's, in the order in which they were asked for.
func (r *historyRow) quantile(i int) cell {
	if i >= len(r.step.GetQuantiles()) {
		return cell{}
	}
	return r.timed(r.step.GetQuantiles()[i])
}

func (r *historyRow) loss() cell {
	return fractionCell(r.step.GetLoss()).onlyIf(r.step != nil && r.step.Loss != nil)
}

// historyColumns are those of what programs read.
func historyColumns(request *synmeshv1.QueryRequest) []column[historyRow] {
	count := func(name string, of func(*synmeshv1.StepSummary) int64) column[historyRow] {
		return column[historyRow]{name, kindWhole, true, func(r *historyRow) cell { return numberCell(of(r.step)) }}
	}
	duration := func(name string, of func(*synmeshv1.StepSummary) *durationpb.Duration) column[historyRow] {
		return column[historyRow]{name, kindDuration, false, func(r *historyRow) cell { return r.timed(of(r.step)) }}
	}
	columns := []column[historyRow]{
		{"time", kindInstant, true, func(r *historyRow) cell { return instantCell(r.step.GetStartTime().AsTime()) }},
		{"source", kindText, true, func(r *historyRow) cell { return textCell(r.series.GetSource()) }},
		{"agent", kindText, true, func(r *historyRow) cell { return textCell(r.series.GetAgent()) }},
		{"target", kindText, true, func(r *historyRow) cell { return textCell(r.series.GetTarget()) }},
	}
	if request.GetByFlow() {
		columns = append(columns, column[historyRow]{"local_port", kindWhole, true, func(r *historyRow) cell { return numberCell(int64(r.series.GetLocalPort())) }})
	}
	columns = append(columns,
		count("sent", (*synmeshv1.StepSummary).GetSent), count("open", (*synmeshv1.StepSummary).GetOpen),
		count("closed", (*synmeshv1.StepSummary).GetClosed), count("unreachable", (*synmeshv1.StepSummary).GetUnreachable),
		count("timeout", (*synmeshv1.StepSummary).GetTimeout), count("error", (*synmeshv1.StepSummary).GetError),
		column[historyRow]{"loss", kindFraction, false, (*historyRow).loss},
		count("timed", (*synmeshv1.StepSummary).GetTimed),
		duration("min_seconds", (*synmeshv1.StepSummary).GetMin), duration("mean_seconds", (*synmeshv1.StepSummary).GetMean),
		duration("max_seconds", (*synmeshv1.StepSummary).GetMax), duration("delay_variation_seconds", (*synmeshv1.StepSummary).GetDelayVariation))
	for i, q := range request.GetQuantiles() {
		name := strings.ReplaceAll(quantileName(q), ".", "_") + "_seconds"
		columns = append(columns, column[historyRow]{name, kindDuration, false, func(r *historyRow) cell { return r.quantile(i) }})
	}
	return columns
}

// quantileName is p50 for 0.5, p99.9 for 0.999.
func quantileName(q float64) string {
	digits := strconv.FormatFloat(q, 'f', -1, 64)
	whole, part, _ := strings.Cut(digits, ".")
	for len(part) < 2 {
		part += "0"
	}
	name := strings.TrimLeft(whole+part[:2], "0")
	if name == "" {
		name = "0"
	}
	if part = part[2:]; part != "" {
		name += "." + part
	}
	return "p" + name
}

func (a *app) printHistory(request *synmeshv1.QueryRequest, columns []column[historyRow], rows []historyRow) error {
	switch a.output {
	case asJSON, asYAML:
		return printRows(a.out, a.output, columns, rows)
	case asName:
		return a.printSeries(rows)
	}
	if len(rows) == 0 {
		fmt.Fprintln(a.err, "no results in that time")
		return nil
	}
	return print(a.out, historyTable(request, rows, a.output == asWide))
}

// printSeries prints the name of each series once: source, agent and target.
func (a *app) printSeries(rows []historyRow) error {
	last := ""
	for _, r := range rows {
		name := strings.Join([]string{r.series.GetSource(), r.series.GetAgent(), r.series.GetTarget()}, " ")
		if name == last {
			continue
		}
		last = name
		if _, err := fmt.Fprintln(a.out, name); err != nil {
			return err
		}
	}
	return nil
}

// shown is a cell as tables have it.
func shown(k kind, c cell) string {
	switch {
	case !c.there:
		return "-"
	case k == kindDuration:
		return milliseconds(time.Duration(c.n))
	case k == kindFraction:
		return percent(c.f)
	}
	return k.show(c)
}

func historyTable(request *synmeshv1.QueryRequest, rows []historyRow, wide bool) *table {
	t := &table{header: []string{"TIME"}, alarm: make(map[int]bool)}
	everything := request.GetFilter().GetSource() == ""
	if everything {
		t.header = append(t.header, "SOURCE")
	}
	t.header = append(t.header, "FROM", "TO")
	t.left = len(t.header)
	if request.GetByFlow() {
		t.header = append(t.header, "FLOW")
	}
	t.header = append(t.header, "SENT")
	if wide {
		t.header = append(t.header, "OPEN", "CLOSED", "UNREACHABLE", "TIMEOUT", "ERROR")
	}
	t.header = append(t.header, "LOSS", "MIN")
	for _, q := range request.GetQuantiles() {
		t.header = append(t.header, strings.ToUpper(quantileName(q)))
	}
	t.header = append(t.header, "MAX")
	if wide {
		t.header = append(t.header, "MEAN", "P99-MIN")
	}
	for i := range rows {
		t.rows = append(t.rows, rows[i].line(request, everything, wide))
		s := rows[i].step
		t.alarm[i] = s.GetOpen()+s.GetClosed() < s.GetSent()
	}
	return t
}

// line is the row's in the table.
func (r *historyRow) line(request *synmeshv1.QueryRequest, everything, wide bool) []string {
	s := r.step
	line := []string{s.GetStartTime().AsTime().Format(stepLayout(request.GetStep().AsDuration()))}
	if everything {
		line = append(line, r.series.GetSource())
	}
	line = append(line, r.series.GetAgent(), r.series.GetTarget())
	if request.GetByFlow() {
		line = append(line, fmt.Sprint(r.series.GetLocalPort()))
	}
	line = append(line, fmt.Sprint(s.GetSent()))
	if wide {
		for _, n := range []int64{s.GetOpen(), s.GetClosed(), s.GetUnreachable(), s.GetTimeout(), s.GetError()} {
			line = append(line, fmt.Sprint(n))
		}
	}
	line = append(line, shown(kindFraction, r.loss()), shown(kindDuration, r.timed(s.GetMin())))
	for i := range request.GetQuantiles() {
		line = append(line, shown(kindDuration, r.quantile(i)))
	}
	line = append(line, shown(kindDuration, r.timed(s.GetMax())))
	if wide {
		line = append(line, shown(kindDuration, r.timed(s.GetMean())), shown(kindDuration, r.timed(s.GetDelayVariation())))
	}
	return line
}

// stepLayout shows as much of an instant as tells steps apart.
func stepLayout(step time.Duration) string {
	if step%time.Second != 0 {
		return "2006-01-02T15:04:05.000Z"
	}
	return "2006-01-02T15:04:05Z"
}
