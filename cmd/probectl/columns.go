package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/synmesh/synmesh/probe"
)

// Rows that programs read have the same columns in each form: as fields of JSON objects,
// as CSV, and as Parquet. Instants are RFC 3339 with nanoseconds (in Parquet a
// timestamp), durations decimal seconds (in Parquet a double).

// kind says what a column holds.
type kind uint8

const (
	kindText kind = iota + 1
	kindWhole
	kindFraction
	kindDuration
	kindInstant
	kindBool
)

// cell is what a row has in a column. The zero value is nothing.
type cell struct {
	there bool
	text  string
	n     int64 // a number, nanoseconds, or 1 for yes
	f     float64
	at    time.Time
}

func textCell(s string) cell                { return cell{there: true, text: s} }
func numberCell[N ~int | ~int64](n N) cell  { return cell{there: true, n: int64(n)} }
func durationCell(d time.Duration) cell     { return cell{there: true, n: int64(d)} }
func instantCell(t time.Time) cell          { return cell{there: true, at: t} }
func (c cell) onlyIf(there bool) cell       { c.there = c.there && there; return c }
func optionalText(s string) cell            { return textCell(s).onlyIf(s != "") }
func optionalDuration(d time.Duration) cell { return durationCell(d).onlyIf(d != 0) }

// fractionCell is nothing for what is no number.
func fractionCell(f float64) cell {
	return cell{there: !math.IsNaN(f) && !math.IsInf(f, 0), f: f}
}

func boolCell(yes bool) cell {
	if yes {
		return numberCell(1)
	}
	return numberCell(0)
}

// column is one of the columns of rows of type T.
type column[T any] struct {
	name string
	kind kind
	// always says that every row has something there.
	always bool
	of     func(*T) cell
}

// instantLayout is RFC 3339 with nine digits always, so that instants sort as text.
const instantLayout = "2006-01-02T15:04:05.000000000Z"

// show writes what a cell holds; nothing for nothing.
func (k kind) show(c cell) string {
	if !c.there {
		return ""
	}
	switch k {
	case kindWhole:
		return strconv.FormatInt(c.n, 10)
	case kindFraction:
		return strconv.FormatFloat(c.f, 'f', -1, 64)
	case kindDuration:
		return decimal(c.n)
	case kindInstant:
		return c.at.UTC().Format(instantLayout)
	case kindBool:
		return strconv.FormatBool(c.n != 0)
	}
	return c.text
}

// inSeconds is the number nearest to so many nanoseconds.
func inSeconds(nanoseconds int64) float64 { return float64(nanoseconds) / 1e9 }

// decimal writes so many nanoseconds as seconds, exactly.
func decimal(nanoseconds int64) string {
	sign, n := "", uint64(nanoseconds)
	if nanoseconds < 0 {
		sign, n = "-", -n
	}
	if n%1e9 == 0 {
		return sign + strconv.FormatUint(n/1e9, 10)
	}
	return strings.TrimRight(fmt.Sprintf("%s%d.%09d", sign, n/1e9, n%1e9), "0")
}

// object writes a row as a JSON object; what is not there is left out.
func object[T any](columns []column[T], row *T) (json.RawMessage, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for _, col := range columns {
		c := col.of(row)
		if !c.there {
			continue
		}
		if b.Len() > 1 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%q:", col.name)
		value := col.kind.show(c)
		if col.kind == kindText || col.kind == kindInstant {
			quoted, err := json.Marshal(value)
			if err != nil {
				return nil, err
			}
			value = string(quoted)
		}
		b.WriteString(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// rowWriter writes rows one by one. Close has to be called for a whole document.
type rowWriter[T any] interface {
	write(*T) error
	close() error
}

// newRowWriter returns one for CSV, Parquet or, as all others are not written row by row, JSON lines.
func newRowWriter[T any](w io.Writer, f format, columns []column[T]) rowWriter[T] {
	switch f {
	case asCSV:
		return &csvWriter[T]{csv: csv.NewWriter(w), columns: columns}
	case asParquet:
		return newParquetWriter(w, columns)
	}
	return &objectWriter[T]{w, columns}
}

// objectWriter writes one JSON object a line.
type objectWriter[T any] struct {
	w       io.Writer
	columns []column[T]
}

func (o *objectWriter[T]) write(row *T) error {
	text, err := object(o.columns, row)
	if err == nil {
		_, err = o.w.Write(append(text, '\n'))
	}
	return err
}

func (o *objectWriter[T]) close() error { return nil }

// csvWriter writes a line for the names of columns, and one for each row.
type csvWriter[T any] struct {
	csv     *csv.Writer
	columns []column[T]
	begun   bool
	line    []string
}

func (c *csvWriter[T]) begin() error {
	if c.begun {
		return nil
	}
	c.begun, c.line = true, make([]string, len(c.columns))
	for i, col := range c.columns {
		c.line[i] = col.name
	}
	return c.csv.Write(c.line)
}

func (c *csvWriter[T]) write(row *T) error {
	if err := c.begin(); err != nil {
		return err
	}
	for i, col := range c.columns {
		c.line[i] = col.kind.show(col.of(row))
	}
	if err := c.csv.Write(c.line); err != nil {
		return err
	}
	c.csv.Flush() // whoever reads sees each row when it is there
	return c.csv.Error()
}

func (c *csvWriter[T]) close() error {
	if err := c.begin(); err != nil {
		return err
	}
	c.csv.Flush()
	return c.csv.Error()
}

// printRows writes rows that are all there.
func printRows[T any](w io.Writer, f format, columns []column[T], rows []T) error {
	if f == asJSON || f == asYAML {
		objects := make([]json.RawMessage, len(rows))
		for i := range rows {
			var err error
			if objects[i], err = object(columns, &rows[i]); err != nil {
				return err
			}
		}
		return printValue(w, f, objects)
	}
	out := newRowWriter(w, f, columns)
	for i := range rows {
		if err := out.write(&rows[i]); err != nil {
			return err
		}
	}
	return out.close()
}

// resultColumns are a result's, flat. Programs read them: more may come at the end, and none goes.
var resultColumns = []column[probe.Result]{
	{"time", kindInstant, true, func(r *probe.Result) cell { return instantCell(r.Time) }},
	{"agent", kindText, true, func(r *probe.Result) cell { return textCell(r.Agent) }},
	{"source", kindText, true, func(r *probe.Result) cell { return textCell(r.Source) }},
	{"target", kindText, true, func(r *probe.Result) cell { return textCell(r.Target) }},
	{"remote", kindText, false, func(r *probe.Result) cell { return textCell(r.Remote.String()).onlyIf(r.Remote.IsValid()) }},
	{"local_port", kindWhole, true, func(r *probe.Result) cell { return numberCell(int(r.LocalPort)) }},
	{"outcome", kindText, true, func(r *probe.Result) cell { return textCell(r.Outcome.String()) }},
	{"rtt_seconds", kindDuration, false, func(r *probe.Result) cell { return durationCell(r.RTT).onlyIf(r.Timed()) }},
	{"attempts", kindWhole, true, func(r *probe.Result) cell { return numberCell(r.Attempts) }},
	{"stamp", kindText, true, func(r *probe.Result) cell { return textCell(r.Stamp.String()) }},
	{"lateness_seconds", kindDuration, true, func(r *probe.Result) cell { return durationCell(r.Lateness) }},
	{"host_delay_seconds", kindDuration, true, func(r *probe.Result) cell { return durationCell(r.HostDelay) }},
	{"drops", kindWhole, true, func(r *probe.Result) cell { return numberCell(r.Drops) }},
	{"error", kindText, false, func(r *probe.Result) cell { return optionalText(r.Err) }},
	{"retry_answered", kindWhole, false, ofRetry(func(t *probe.Retry) cell { return numberCell(t.Answered) })},
	{"retry_lost", kindText, false, ofRetry(func(t *probe.Retry) cell { return textCell(t.Lost.String()) })},
	{"retry_waited_seconds", kindDuration, false, ofRetry(func(t *probe.Retry) cell { return durationCell(t.Waited) })},
	{"icmp_type", kindWhole, false, ofICMP(func(i *probe.ICMP) cell { return numberCell(int(i.Type)) })},
	{"icmp_code", kindWhole, false, ofICMP(func(i *probe.ICMP) cell { return numberCell(int(i.Code)) })},
	{"icmp_from", kindText, false, ofICMP(func(i *probe.ICMP) cell { return textCell(i.From.String()) })},
	{"syn_ack_window", kindWhole, false, ofSynAck(func(s *probe.SynAck) cell { return numberCell(int(s.Window)) })},
	{"syn_ack_mss", kindWhole, false, ofSynAck(func(s *probe.SynAck) cell { return numberCell(int(s.MSS)).onlyIf(s.MSS > 0) })},
	{"syn_ack_window_scale", kindWhole, false, ofSynAck(func(s *probe.SynAck) cell { return numberCell(int(s.WindowScale)).onlyIf(s.WindowScale >= 0) })},
	{"syn_ack_sack_permitted", kindBool, false, ofSynAck(func(s *probe.SynAck) cell { return boolCell(s.SACKPermitted) })},
	{"syn_ack_timestamps", kindBool, false, ofSynAck(func(s *probe.SynAck) cell { return boolCell(s.Timestamps) })},
	{"syn_ack_ecn", kindBool, false, ofSynAck(func(s *probe.SynAck) cell { return boolCell(s.ECN) })},
	{"syn_ack_ttl", kindWhole, false, ofSynAck(func(s *probe.SynAck) cell { return numberCell(int(s.TTL)) })},
	{"close_ending", kindText, false, ofClose(func(c *probe.Close) cell { return textCell(c.Ending.String()) })},
	{"close_ack_seconds", kindDuration, false, ofClose(func(c *probe.Close) cell { return optionalDuration(c.Ack) })},
	{"close_fin_seconds", kindDuration, false, ofClose(func(c *probe.Close) cell { return optionalDuration(c.Fin) })},
}

func ofRetry(of func(*probe.Retry) cell) func(*probe.Result) cell {
	return func(r *probe.Result) cell { return ofPart(r.Retry, of) }
}

func ofICMP(of func(*probe.ICMP) cell) func(*probe.Result) cell {
	return func(r *probe.Result) cell { return ofPart(r.ICMP, of) }
}

func ofSynAck(of func(*probe.SynAck) cell) func(*probe.Result) cell {
	return func(r *probe.Result) cell { return ofPart(r.SynAck, of) }
}

func ofClose(of func(*probe.Close) cell) func(*probe.Result) cell {
	return func(r *probe.Result) cell { return ofPart(r.Close, of) }
}

func ofPart[P any](part *P, of func(*P) cell) cell {
	if part == nil {
		return cell{}
	}
	return of(part)
}
