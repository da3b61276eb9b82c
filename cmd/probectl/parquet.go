package main

import (
	"cmp"
	"errors"
	"io"
	"math"
	"slices"
	"time"

	"github.com/parquet-go/parquet-go"
)

// Rows of a group are held back until it is full, and so are its dictionaries: these are the bounds of both.
const (
	parquetRows       = 64 << 10
	parquetDictionary = 4 << 20 // bytes, of each column
	parquetBatch      = 256     // rows that are handed over together
)

// errTerminal refuses to show bytes to people.
var errTerminal = errors.New("parquet is for programs, and this is a terminal; redirect the output to a file, or choose another form")

// notOnTerminal refuses Parquet where somebody is watching.
func notOnTerminal(w io.Writer, f format) error {
	if f == asParquet && terminal(w) {
		return usage(errTerminal)
	}
	return nil
}

// parquetWriter writes a Parquet file as a stream: nothing is sought in it, and no more than one
// group of rows is in memory.
type parquetWriter[T any] struct {
	out     *parquet.GenericWriter[any]
	columns []column[T]
	rows    []parquet.Row // to be handed over
}

// orderedGroup is a group of columns in the order in which they were named.
type orderedGroup struct {
	parquet.Group
	names map[string]int
}

// Fields implements parquet.Node.
func (g orderedGroup) Fields() []parquet.Field {
	fields := g.Group.Fields()
	slices.SortFunc(fields, func(a, b parquet.Field) int { return cmp.Compare(g.names[a.Name()], g.names[b.Name()]) })
	return fields
}

func newParquetWriter[T any](w io.Writer, columns []column[T]) *parquetWriter[T] {
	root := orderedGroup{parquet.Group{}, make(map[string]int)}
	for i, col := range columns {
		root.Group[col.name], root.names[col.name] = col.kind.node(col.always), i
	}
	return &parquetWriter[T]{columns: columns, out: parquet.NewGenericWriter[any](w, parquet.NewSchema("synmesh", root),
		parquet.CreatedBy("probectl", version, ""), parquet.Compression(&parquet.Zstd),
		parquet.MaxRowsPerRowGroup(parquetRows), parquet.DictionaryMaxBytes(parquetDictionary))}
}

// node is the column's type in the file.
func (k kind) node(always bool) parquet.Node {
	var n parquet.Node
	switch k {
	case kindWhole:
		n = parquet.Encoded(parquet.Int(64), &parquet.DeltaBinaryPacked)
	case kindInstant:
		n = parquet.Encoded(parquet.Timestamp(parquet.Nanosecond), &parquet.DeltaBinaryPacked)
	case kindFraction, kindDuration:
		n = parquet.Leaf(parquet.DoubleType)
	case kindBool:
		n = parquet.Leaf(parquet.BooleanType)
	default:
		n = parquet.Encoded(parquet.String(), &parquet.RLEDictionary)
	}
	if always {
		return n
	}
	return parquet.Optional(n)
}

func (p *parquetWriter[T]) write(row *T) error {
	values := make(parquet.Row, len(p.columns))
	for i, col := range p.columns {
		c := col.of(row)
		switch {
		case col.always:
			values[i] = col.kind.value(c).Level(0, 0, i)
		case c.there:
			values[i] = col.kind.value(c).Level(0, 1, i)
		default:
			values[i] = parquet.NullValue().Level(0, 0, i)
		}
	}
	p.rows = append(p.rows, values)
	if len(p.rows) < parquetBatch {
		return nil
	}
	return p.hand()
}

// hand gives over the rows that have gathered.
func (p *parquetWriter[T]) hand() error {
	_, err := p.out.WriteRows(p.rows)
	p.rows = p.rows[:0]
	return err
}

func (p *parquetWriter[T]) close() error {
	if err := p.hand(); err != nil {
		return err
	}
	return p.out.Close()
}

func (k kind) value(c cell) parquet.Value {
	switch k {
	case kindWhole:
		return parquet.Int64Value(c.n)
	case kindInstant:
		return parquet.Int64Value(nanosecondsOf(c.at))
	case kindFraction:
		return parquet.DoubleValue(c.f)
	case kindDuration:
		return parquet.DoubleValue(inSeconds(c.n))
	case kindBool:
		return parquet.BooleanValue(c.n != 0)
	}
	return parquet.ByteArrayValue([]byte(c.text))
}

// The instants that 64 bits of nanoseconds can tell; what is beyond becomes the nearest.
var firstInstant, lastInstant = time.Unix(0, math.MinInt64), time.Unix(0, math.MaxInt64)

func nanosecondsOf(t time.Time) int64 {
	switch {
	case t.Before(firstInstant):
		return math.MinInt64
	case t.After(lastInstant):
		return math.MaxInt64
	}
	return t.UnixNano()
}
