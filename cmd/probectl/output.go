package main

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"charm.land/lipgloss/v2"
	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/synmesh/synmesh/probe"
)

// format is a form of output.
type format string

const (
	asTable   format = "table"
	asWide    format = "wide"
	asJSON    format = "json"
	asJSONL   format = "jsonl"
	asYAML    format = "yaml"
	asCSV     format = "csv"
	asName    format = "name"
	asParquet format = "parquet"
)

// formats are those that most commands have.
var formats = []format{asTable, asWide, asJSON, asJSONL, asYAML, asCSV, asName}

// formatFlag chooses one of some forms of output.
type formatFlag struct {
	chosen *format
	of     []format
}

// String implements pflag.Value.
func (f formatFlag) String() string {
	if f.chosen == nil { // as pflag makes one to compare with
		return ""
	}
	return string(*f.chosen)
}

// Set implements pflag.Value.
func (f formatFlag) Set(s string) error {
	if !slices.Contains(f.of, format(s)) {
		return fmt.Errorf("it is one of %s", f.list())
	}
	*f.chosen = format(s)
	return nil
}

// Type implements pflag.Value.
func (f formatFlag) Type() string { return "format" }

func (f formatFlag) list() string {
	words := make([]string, len(f.of))
	for i, word := range f.of {
		words[i] = string(word)
	}
	return strings.Join(words, ", ")
}

// outputFlag is that of most commands.
func (a *app) outputFlag(c *cobra.Command) { a.outputFlagOf(c, formats...) }

// outputFlagOf has the command print in one of these forms, the first if none is chosen.
func (a *app) outputFlagOf(c *cobra.Command, of ...format) {
	chosen := of[0]
	flag := formatFlag{&chosen, of}
	c.Flags().VarP(flag, "output", "o", "form of the output: "+flag.list())
	complete(c, "output", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return strings.Split(flag.list(), ", "), cobra.ShellCompDirectiveNoFileComp
	})
}

// seconds is a duration flag that also takes a plain number of seconds.
type seconds time.Duration

// String implements pflag.Value.
func (s *seconds) String() string { return time.Duration(*s).String() }

// Set implements pflag.Value.
func (s *seconds) Set(text string) error {
	if n, err := strconv.ParseFloat(text, 64); err == nil && n >= 0 && n < 1e9 {
		*s = seconds(n * float64(time.Second))
		return nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return fmt.Errorf("write a number of seconds, or a duration such as 200ms or 1m")
	}
	*s = seconds(d)
	return nil
}

// Type implements pflag.Value.
func (s *seconds) Type() string { return "duration" }

// table is rows of cells below a header; rows in red are asked for by alarm.
type table struct {
	header []string
	rows   [][]string
	alarm  map[int]bool
	left   int // columns that are flush left, from the first

	widths   []int // of columns, at least
	headless bool  // without the header
}

// String lays the table out, in colour: what prints it takes that away where
// there is no terminal.
func (t *table) String() string {
	if t.widths == nil {
		t.widths = make([]int, len(t.header))
	}
	for _, row := range append([][]string{t.header}, t.rows...) {
		for i, cell := range row {
			t.widths[i] = max(t.widths[i], lipgloss.Width(cell))
		}
	}
	var b strings.Builder
	line := func(cells []string, style lipgloss.Style) {
		var l strings.Builder
		for i, cell := range cells {
			pad := strings.Repeat(" ", t.widths[i]-lipgloss.Width(cell))
			if i > 0 {
				l.WriteString("   ")
			}
			if i < t.left {
				l.WriteString(cell + pad)
			} else {
				l.WriteString(pad + cell)
			}
		}
		b.WriteString(style.Render(strings.TrimRight(l.String(), " ")) + "\n")
	}
	if !t.headless {
		line(t.header, lipgloss.NewStyle().Bold(true))
	}
	for i, row := range t.rows {
		style := lipgloss.NewStyle()
		if t.alarm[i] {
			style = style.Foreground(lipgloss.Red)
		}
		line(row, style)
	}
	return b.String()
}

// print writes text with colours where w is a terminal and NO_COLOR is not set.
func print(w io.Writer, text fmt.Stringer) error {
	_, err := lipgloss.Fprint(w, text.String())
	return err
}

// printValue writes any value as JSON or YAML; they have the same shape.
func printValue(w io.Writer, f format, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err == nil && f == asYAML {
		text, err = yaml.JSONToYAML(text)
	} else {
		text = append(text, '\n')
	}
	if err != nil {
		return err
	}
	_, err = w.Write(text)
	return err
}

// milliseconds shows a duration as tables do.
func milliseconds(d time.Duration) string {
	return strconv.FormatFloat(float64(d)/1e6, 'f', 3, 64) + "ms"
}

func percent(fraction float64) string {
	return strconv.FormatFloat(fraction*100, 'f', 1, 64) + "%"
}

// resultWriter writes results as JSON objects in their published shape.
type resultWriter struct{ w io.Writer }

// newResultWriter returns what writes results one by one, in formats where that can be.
func newResultWriter(w io.Writer, f format) rowWriter[probe.Result] {
	if f == asCSV || f == asParquet {
		return newRowWriter(w, f, resultColumns)
	}
	return resultWriter{w}
}

func (w resultWriter) write(r *probe.Result) error {
	text, err := json.Marshal(r)
	if err == nil {
		_, err = w.w.Write(append(text, '\n'))
	}
	return err
}

func (w resultWriter) close() error { return nil }

// printLines writes one JSON object a line.
func printLines[T any](w io.Writer, values []T) error {
	enc := json.NewEncoder(w)
	for _, v := range values {
		if err := enc.Encode(v); err != nil {
			return err
		}
	}
	return nil
}

// printCSV writes a table as CSV, with the header in the form of field names.
func printCSV(w io.Writer, t *table) error {
	c := csv.NewWriter(w)
	names := make([]string, len(t.header))
	for i, h := range t.header {
		names[i] = strings.ReplaceAll(strings.ToLower(h), " ", "_")
	}
	if err := c.Write(names); err != nil {
		return err
	}
	return c.WriteAll(t.rows)
}
