package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/synmesh/synmesh/controller"
	"github.com/synmesh/synmesh/controller/backup"
)

func checkCommand() *cobra.Command {
	var data, file string
	c := &cobra.Command{
		Use:   "check --data FOLDER | --backup FILE",
		Short: "Read all that a controller has stored, and tell what is damaged",
		Long: `check reads every record of the registry and the history in the data folder, says of each
file what is in it, and of what is damaged what to do about it. It changes nothing. Stop the
controller before, for the registry can be read only then. With --backup it reads a
backup to its end instead, and tells whether that is what was written.

The exit code is 0 if all is well, and 1 otherwise.`,
		Example: `  probe-controller check --data /var/lib/synmesh
  probe-controller check --backup synmesh-20261120.tar`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if file != "" {
				return checkBackup(c.Context(), c.OutOrStdout(), file)
			}
			if data == "" {
				return errors.New("there is nothing to check; name a data folder with --data, or a backup with --backup")
			}
			return checkFolder(c.Context(), c.OutOrStdout(), data)
		},
	}
	c.Flags().StringVar(&data, "data", "", "data folder of the controller")
	c.Flags().StringVar(&file, "backup", "", "a backup, to be checked instead")
	c.MarkFlagsMutuallyExclusive("data", "backup")
	return c
}

func checkFolder(ctx context.Context, out io.Writer, data string) error {
	files, bad := 0, 0
	err := controller.Check(ctx, data, func(f controller.Finding) {
		files++
		if f.OK() {
			fmt.Fprintf(out, "ok       %s: %d records\n", f.File, f.Records)
			return
		}
		bad++
		fmt.Fprintf(out, "DAMAGED  %s: %d records are well, %d are not", f.File, f.Records, f.Corrupt)
		if f.Err != nil {
			fmt.Fprintf(out, "; %v", f.Err)
		}
		fmt.Fprintf(out, "\n         %s\n", f.Advice)
	})
	if err != nil {
		return err
	}
	if bad > 0 {
		return fmt.Errorf("%d of %d files are not well", bad, files)
	}
	fmt.Fprintf(out, "all %d files are well\n", files)
	return nil
}

func checkBackup(ctx context.Context, out io.Writer, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	about, err := backup.Verify(ctx, f)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	fmt.Fprintf(out, "ok       %s: %s\n", file, aboutText(about))
	return nil
}
