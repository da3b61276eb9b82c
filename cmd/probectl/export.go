package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// exportPatience is how often in a row an export may break before anything has come: half a minute or so.
const exportPatience = 12

// exportFlags are what the export command was given.
type exportFlags struct {
	filterFlags
	stretch
	file string
}

func (a *app) exportCommand() *cobra.Command {
	var f exportFlags
	c := &cobra.Command{
		Use:   "export [MEASUREMENT]",
		Short: "Write single results, as JSON lines, CSV or Parquet",
		Long: `export writes the single results that were stored in some time, in the order in which they
were. If the connection breaks it goes on where it was, and writes nothing twice. A
--file is there when all is in it, and not before.

` + filterHelp + `

Times are those at which the controller stored a result; the time in a result is that at
which its agent measured.`,
		Example: `  probectl export mesh --since 24h -o parquet --file mesh.parquet
  probectl export --from dc=nyc --to db.fra:5432 --since 2026-11-20T00:00:00Z --until 2026-11-21T00:00:00Z -o csv
  probectl export mesh --since 10m | jq 'select(.outcome == "timeout")'`,
		Args: perhapsOne, ValidArgsFunction: a.completeMeasurement,
		RunE: func(c *cobra.Command, args []string) error {
			request, err := f.request(args, time.Now())
			if err != nil {
				return usage(err)
			}
			return a.export(c.Context(), request, f.file)
		},
	}
	f.filterFlags.add(c)
	f.stretch.add(c)
	c.Flags().StringVar(&f.file, "file", "", "file to write to (standard output)")
	a.outputFlagOf(c, asJSONL, asCSV, asParquet)
	return c
}

func (f *exportFlags) request(args []string, now time.Time) (*synmeshv1.ExportRequest, error) {
	filter, err := f.filter(args)
	if err != nil {
		return nil, err
	}
	m := &synmeshv1.ExportRequest{Filter: filter}
	m.StartTime, m.EndTime, err = f.times(now)
	return m, err
}

// export writes to the file of that name, or to standard output.
func (a *app) export(ctx context.Context, request *synmeshv1.ExportRequest, name string) error {
	if name == "" {
		if err := notOnTerminal(a.out, a.output); err != nil {
			return err
		}
		_, err := a.exportTo(ctx, request, a.out)
		return err
	}
	file, err := newAside(name)
	if err != nil {
		return usage(fmt.Errorf("--file: %w", err))
	}
	n, err := a.exportTo(ctx, request, file)
	if err != nil {
		return errors.Join(err, file.drop())
	}
	if err := file.keep(); err != nil {
		return fmt.Errorf("--file: %w", err)
	}
	fmt.Fprintf(a.err, "%d results are in %s\n", n, name)
	return nil
}

func (a *app) exportTo(ctx context.Context, request *synmeshv1.ExportRequest, w io.Writer) (written int, err error) {
	conn, err := a.connect(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	buffered := bufio.NewWriterSize(w, 64<<10)
	out := newResultWriter(buffered, a.output)
	client := synmeshv1.NewResultServiceClient(conn)
	f := follower{app: a, ends: true, patience: exportPatience,
		open: func(ctx context.Context, cursor string) (func() (part, error), error) {
			request.Cursor = cursor
			stream, err := client.Export(ctx, request)
			return func() (part, error) {
				m, err := stream.Recv()
				return part{results: m.GetResults(), cursor: m.GetCursor()}, err
			}, err
		},
		take: func(p part) error {
			results, err := resultsOf(p.results)
			if err != nil {
				return err
			}
			for i := range results {
				if err := out.write(&results[i]); err != nil {
					return err
				}
			}
			written += len(results)
			return nil
		}}
	err = f.run(ctx)
	if err == nil || a.output != asParquet { // half a Parquet file is none
		err = errors.Join(err, out.close())
	}
	return written, errors.Join(err, buffered.Flush())
}

// aside is a file that gets its name when it is whole.
type aside struct {
	*os.File
	name string
}

func newAside(name string) (*aside, error) {
	if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no file that could be replaced; leave --file out and redirect the output to it", name)
	}
	f, err := os.OpenFile(name+".part-"+rand.Text()[:8], os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	return &aside{f, name}, err
}

// keep gives the file its name.
func (f *aside) keep() error {
	err := errors.Join(f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), f.name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// drop removes it.
func (f *aside) drop() error { return errors.Join(f.Close(), os.Remove(f.Name())) }
