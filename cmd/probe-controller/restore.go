package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/synmesh/synmesh/controller/backup"
)

func restoreCommand() *cobra.Command {
	var data, from string
	c := &cobra.Command{
		Use:   "restore --data FOLDER --from FILE",
		Short: "Make a data folder of a backup",
		Long: `restore makes a data folder of what probectl backup has written. The folder must not be
there, or be empty. It comes to be when all of the backup has been read and is right; a
backup that is damaged or cut off leaves nothing.

The key of the CA's root is in no backup. Put it back to FOLDER/ca/root.key from where you keep it,
within the year for which the CA can do without it.`,
		Example: `  systemctl stop probe-controller
  mv /var/lib/synmesh /var/lib/synmesh.old
  probe-controller restore --data /var/lib/synmesh --from synmesh-20261120.tar
  chown -R synmesh: /var/lib/synmesh
  systemctl start probe-controller`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if data == "" {
				return errors.New("no folder for the data is given; name one with --data")
			}
			if from == "" {
				return errors.New("no backup is given; name one with --from")
			}
			f, err := os.Open(from)
			if err != nil {
				return err
			}
			defer f.Close()
			about, err := backup.Restore(c.Context(), f, data)
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "%s restored: %s\n", data, aboutText(about))
			if _, err := os.Stat(filepath.Join(data, "ca")); err == nil {
				fmt.Fprintln(c.ErrOrStderr(), "put the key of the CA's root back to "+filepath.Join(data, "ca", "root.key")+"; it is in no backup")
			}
			return nil
		},
	}
	c.Flags().StringVar(&data, "data", "", "data folder to make")
	c.Flags().StringVar(&from, "from", "", "backup to make it of")
	return c
}

func aboutText(a backup.About) string {
	return fmt.Sprintf("the backup of controller %s of %s", a.Controller, a.Time.Format(time.RFC3339))
}
