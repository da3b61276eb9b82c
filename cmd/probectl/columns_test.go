package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"
	"pgregory.net/rapid"

	"github.com/synmesh/synmesh/probe"
)

// drawResult draws a result of any outcome, as a controller may send it.
func drawResult(t *rapid.T) probe.Result {
	span := rapid.Int64Range(-1<<50, 1<<50) // a double tells these apart
	name := rapid.SampledFrom([]string{"fra-1", "nyc-1", "db.fra:5432", "[2001:db8::1]:443"})
	r := probe.Result{
		Time: time.Unix(0, rapid.Int64().Draw(t, "time")).UTC(), Agent: name.Draw(t, "agent"), Source: "measurements/mesh",
		Target: name.Draw(t, "target"), LocalPort: rapid.Uint16().Draw(t, "port"), Outcome: rapid.SampledFrom(probe.Outcomes()).Draw(t, "outcome"),
		Attempts: rapid.IntRange(0, 5).Draw(t, "attempts"), Stamp: probe.StampKernel, Lateness: time.Duration(span.Draw(t, "lateness")),
		HostDelay: time.Duration(span.Draw(t, "host delay")), Drops: rapid.IntRange(0, 9).Draw(t, "drops"),
	}
	if rapid.Bool().Draw(t, "resolved") {
		r.Remote = netip.MustParseAddrPort("10.0.0.2:5432")
	}
	switch r.Outcome {
	case probe.Open:
		r.SynAck = &probe.SynAck{Window: 1024, MSS: rapid.Uint16().Draw(t, "mss"), WindowScale: rapid.Int8Range(-1, 14).Draw(t, "scale"), ECN: rapid.Bool().Draw(t, "ecn"), TTL: 64}
		if rapid.Bool().Draw(t, "full") {
			r.Close = &probe.Close{Ending: probe.Orderly, Ack: time.Duration(span.Draw(t, "ack"))}
		}
	case probe.Unreachable:
		r.ICMP = &probe.ICMP{Type: 3, Code: rapid.Uint8().Draw(t, "code"), From: netip.MustParseAddr("10.0.9.1")}
	case probe.Error:
		r.Err = rapid.SampledFrom([]string{"no source port is free", "a \"quoted\", word\nand another line"}).Draw(t, "error")
	}
	if r.Outcome.Answered() && r.Attempts > 1 {
		r.Retry = &probe.Retry{Answered: rapid.IntRange(0, 2).Draw(t, "answered"), Lost: probe.LostSYN, Waited: time.Second}
	}
	if r.Timed() {
		r.RTT = time.Duration(span.Draw(t, "rtt"))
	}
	return r
}

// flatJSON is a result's published JSON with the fields of its parts among its own.
func flatJSON(t *rapid.T, r *probe.Result) map[string]string {
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	flat := make(map[string]string)
	var flatten func(prefix string, text json.RawMessage)
	flatten = func(prefix string, text json.RawMessage) {
		var fields map[string]json.RawMessage
		if err := json.Unmarshal(text, &fields); err != nil {
			t.Fatal(err)
		}
		for name, value := range fields {
			var word string
			switch {
			case value[0] == '{':
				flatten(prefix+name+"_", value)
			case json.Unmarshal(value, &word) == nil:
				flat[prefix+name] = word
			default:
				flat[prefix+name] = string(value)
			}
		}
	}
	flatten("", text)
	return flat
}

// A row of CSV says what the published JSON says.
func TestCSVSaysWhatJSONSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := drawResult(t)
		var b bytes.Buffer
		w := newResultWriter(&b, asCSV)
		if err := w.write(&r); err != nil {
			t.Fatal(err)
		}
		lines, err := csv.NewReader(&b).ReadAll()
		if err != nil || len(lines) != 2 {
			t.Fatalf("%d lines: %v", len(lines), err)
		}
		want := flatJSON(t, &r)
		for i, name := range lines[0] {
			expected, there := want[name]
			if !there { // what JSON leaves out is nothing, or nothing to speak of
				switch lines[1][i] {
				case "", "0", "false":
				default:
					t.Errorf("%s is %q, and JSON has none", name, lines[1][i])
				}
			} else if lines[1][i] != expected {
				t.Errorf("%s is %q, and in JSON %q", name, lines[1][i], expected)
			}
			delete(want, name)
		}
		delete(want, "syn_ack_seq") // results of measurements have none
		for name, value := range want {
			t.Errorf("CSV has no column for %s (%s)", name, value)
		}
	})
}

func TestCSVWithoutRowsHasItsHeader(t *testing.T) {
	var b bytes.Buffer
	must(t, newResultWriter(&b, asCSV).close())
	if !strings.HasPrefix(b.String(), "time,agent,source,target,remote,local_port,outcome,rtt_seconds,attempts,stamp,lateness_seconds,host_delay_seconds,drops,error,") {
		t.Errorf("the columns that programs know are not first: %q", b.String())
	}
}

// readParquet returns the rows of a file as CSV would have them, and its number of groups.
func readParquet(content []byte) (rows []map[string]string, groups int, err error) {
	file, err := parquet.OpenFile(bytes.NewReader(content), int64(len(content)))
	if err != nil {
		return nil, 0, err
	}
	names, instants := file.Schema().Columns(), make(map[string]bool)
	for _, f := range file.Schema().Fields() {
		if l := f.Type().LogicalType(); l != nil && strings.HasPrefix(l.String(), "TIMESTAMP") {
			instants[f.Name()] = true
		}
	}
	reader := parquet.NewReader(file)
	defer reader.Close()
	buffer := make([]parquet.Row, 100)
	for {
		n, err := reader.ReadRows(buffer)
		for _, row := range buffer[:n] {
			values := make(map[string]string)
			for _, v := range row {
				name := names[v.Column()][0]
				switch {
				case v.IsNull():
					values[name] = ""
				case instants[name]:
					values[name] = kindInstant.show(instantCell(time.Unix(0, v.Int64())))
				case v.Kind() == parquet.Double:
					values[name] = kindFraction.show(fractionCell(v.Double()))
				default:
					values[name] = v.String()
				}
			}
			rows = append(rows, values)
		}
		if err == io.EOF {
			return rows, len(file.RowGroups()), nil
		}
		if err != nil {
			return nil, 0, err
		}
	}
}

// Parquet holds what CSV holds.
func TestParquetIsReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var file, text bytes.Buffer
		out, lines := newResultWriter(&file, asParquet), newResultWriter(&text, asCSV)
		for range rapid.IntRange(0, 2*parquetBatch).Draw(t, "rows") {
			r := drawResult(t)
			if err := out.write(&r); err != nil {
				t.Fatal(err)
			}
			if err := lines.write(&r); err != nil {
				t.Fatal(err)
			}
		}
		for _, w := range []rowWriter[probe.Result]{out, lines} {
			if err := w.close(); err != nil {
				t.Fatal(err)
			}
		}
		rows, _, err := readParquet(file.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		want, err := csv.NewReader(&text).ReadAll()
		if err != nil || len(rows) != len(want)-1 {
			t.Fatalf("%d rows, and %d of CSV: %v", len(rows), len(want)-1, err)
		}
		for i, row := range rows {
			for k, name := range want[0] {
				if row[name] != want[i+1][k] {
					t.Fatalf("row %d: %s is %q, and %q in CSV", i, name, row[name], want[i+1][k])
				}
			}
		}
	})
}

// Groups of rows have a bound, so that what is held in memory has one.
func TestParquetIsWrittenInGroups(t *testing.T) {
	var file bytes.Buffer
	written := 0
	columns := []column[int]{
		{"n", kindWhole, true, func(n *int) cell { return numberCell(*n) }},
		{"text", kindText, false, func(n *int) cell { return textCell(fmt.Sprint("number ", *n)).onlyIf(*n%3 > 0) }},
		{"late", kindInstant, true, func(*int) cell { return instantCell(time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)) }},
		{"early", kindInstant, true, func(*int) cell { return instantCell(time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)) }},
		{"none", kindFraction, false, func(*int) cell { return fractionCell(math.NaN()) }},
		{"odd", kindBool, true, func(n *int) cell { return boolCell(*n%2 > 0) }},
	}
	w := newParquetWriter(&file, columns)
	for n := range 2 * parquetRows {
		must(t, w.write(&n))
		if n == parquetRows+2*parquetBatch {
			written = file.Len()
		}
	}
	must(t, w.close())
	rows, groups, err := readParquet(file.Bytes())
	must(t, err)
	if len(rows) != 2*parquetRows || groups != 2 || written == 0 {
		t.Fatalf("%d rows in %d groups; %d bytes went out with the first", len(rows), groups, written)
	}
	last := rows[parquetRows+1]
	if last["n"] != "65537" || last["text"] != "number 65537" || last["none"] != "" || last["odd"] != "true" ||
		last["late"] != "2262-04-11T23:47:16.854775807Z" || last["early"] != "1677-09-21T00:12:43.145224192Z" {
		t.Errorf("got %q", last)
	}
}

func TestObjectsLeaveOutWhatIsNotThere(t *testing.T) {
	columns := []column[int]{
		{"text", kindText, true, func(*int) cell { return textCell("a \"b\"\n") }},
		{"loss", kindFraction, false, func(*int) cell { return fractionCell(math.NaN()) }},
		{"p50_seconds", kindDuration, false, func(*int) cell { return durationCell(2925890498) }},
		{"tiny_seconds", kindDuration, false, func(*int) cell { return durationCell(1) }},
		{"yes", kindBool, true, func(*int) cell { return boolCell(true) }},
	}
	text, err := object(columns, new(int))
	must(t, err)
	if want := `{"text":"a \"b\"\n","p50_seconds":2.925890498,"tiny_seconds":0.000000001,"yes":true}`; string(text) != want {
		t.Errorf("got %s, want %s", text, want)
	}
}
