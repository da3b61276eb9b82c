package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/synmesh/synmesh/internal/identity"
	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// watchFlags are what the watch command was given.
type watchFlags struct {
	filterFlags
	cursor, cursorFile string
}

func (a *app) watchCommand() *cobra.Command {
	var f watchFlags
	c := &cobra.Command{
		Use:   "watch [MEASUREMENT]",
		Short: "Show results as they are stored, until interrupted",
		Long: `watch shows each result as it is stored, from now on or from a cursor. If the
controller goes away it waits, and goes on with what was stored meanwhile; each result is
shown once. When it is interrupted it says with which cursor it would go on; a
--cursor-file keeps that, and begins with it.

A controller that cannot be reached at the start is an error, as for all commands: exit
code 3. What is to run for ever is started again by whoever looks after services, with
the same --cursor-file.

` + filterHelp,
		Example: `  probectl watch mesh --from dc=nyc
  probectl watch -o jsonl --cursor-file mesh.cursor >> mesh.jsonl`,
		Args: perhapsOne, ValidArgsFunction: a.completeMeasurement,
		RunE: func(c *cobra.Command, args []string) error {
			filter, err := f.filter(args)
			if err == nil && f.cursor != "" && f.cursorFile != "" {
				err = errors.New("--cursor and --cursor-file exclude each other; the file holds the cursor")
			}
			if err == nil && f.cursorFile != "" {
				f.cursor, err = readCursor(f.cursorFile)
			}
			if err != nil {
				return usage(err)
			}
			return a.watch(c.Context(), &synmeshv1.WatchRequest{Filter: filter, Cursor: f.cursor}, f.cursorFile)
		},
	}
	f.filterFlags.add(c)
	c.Flags().StringVar(&f.cursor, "cursor", "", "go on from here, as an earlier watch has said (from now on)")
	c.Flags().StringVar(&f.cursorFile, "cursor-file", "", "file that keeps the cursor")
	c.MarkFlagFilename("cursor-file")
	a.outputFlagOf(c, asTable, asWide, asJSONL, asCSV)
	return c
}

// maxCursor is how long a cursor may be.
const maxCursor = 200

// readCursor returns what a file holds; nothing if it is not there yet.
func readCursor(name string) (string, error) {
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("--cursor-file: %w", err)
	}
	cursor := strings.TrimSpace(string(text))
	if cursor == "" || len(cursor) > maxCursor || strings.ContainsAny(cursor, " \t\r\n") {
		return "", fmt.Errorf("--cursor-file: %s holds no cursor; name another, or remove it to begin now", name)
	}
	return cursor, nil
}

func (a *app) watch(ctx context.Context, request *synmeshv1.WatchRequest, cursorFile string) error {
	conn, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	client := synmeshv1.NewResultServiceClient(conn)
	out := newWatchWriter(a.out, a.output)
	f := follower{app: a, cursor: request.GetCursor(),
		open: func(ctx context.Context, cursor string) (func() (part, error), error) {
			request.Cursor = cursor
			stream, err := client.Watch(ctx, request)
			return func() (part, error) {
				m, err := stream.Recv()
				return part{m.GetResults(), m.GetCursor(), m.GetGap()}, err
			}, err
		},
		take: func(p part) error {
			if p.gap {
				fmt.Fprintln(a.err, "results may be missing here: they were older than the controller keeps them, or in a damaged file")
			}
			results, err := resultsOf(p.results)
			if err == nil {
				err = out.write(results)
			}
			if err == nil && cursorFile != "" {
				err = identity.WriteFile(cursorFile, []byte(p.cursor+"\n"))
			}
			return err
		}}
	err = f.run(ctx)
	if f.cursor != "" && cursorFile == "" {
		fmt.Fprintf(a.err, "to go on from here: --cursor %s\n", f.cursor)
	}
	return err
}

// watchWriter writes results as they come.
type watchWriter struct {
	out   *bufio.Writer
	rows  rowWriter[probe.Result] // nil for tables
	wide  bool
	table *growingTable
}

func newWatchWriter(w io.Writer, f format) *watchWriter {
	if f == asTable || f == asWide {
		return &watchWriter{table: &growingTable{w: w}, wide: f == asWide}
	}
	out := bufio.NewWriter(w)
	return &watchWriter{out: out, rows: newResultWriter(out, f)}
}

func (w *watchWriter) write(results []probe.Result) error {
	if w.table != nil {
		return w.table.add(resultTable(results, w.wide))
	}
	for i := range results {
		if err := w.rows.write(&results[i]); err != nil {
			return err
		}
	}
	return w.out.Flush()
}

// growingTable prints a table bit by bit. Columns only ever become wider.
type growingTable struct {
	w      io.Writer
	widths []int
	begun  bool
}

func (g *growingTable) add(t *table) error {
	if len(t.rows) == 0 {
		return nil
	}
	t.widths, t.headless = g.widths, g.begun
	text := t.String()
	g.widths, g.begun = t.widths, true
	return print(g.w, rendered(text))
}
