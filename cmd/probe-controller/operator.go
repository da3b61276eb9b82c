package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/synmesh/synmesh/controller"
)

func operatorCommand() *cobra.Command {
	var cfg controller.Config
	var name, file, address string
	c := &cobra.Command{
		Use:   "operator --data FOLDER --file FILE",
		Short: "Make an admin, when there is none left",
		Long: `operator makes an admin and writes their context file, for probectl --context. It
is for when the file of the first admin is lost, or its certificate has expired and
there is no other admin. It needs the data folder, and the controller must be
stopped meanwhile; agents go on and come back. An admin of the same name is let in no
more. The audit log tells of it.`,
		Example: `  systemctl stop probe-controller
  probe-controller operator --data /var/lib/synmesh --file operator2.yaml
  systemctl start probe-controller`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if file == "" {
				return errors.New("no file is given; name the one to write with --file")
			}
			if cfg.Name, err = os.Hostname(); err != nil {
				return err
			}
			cfg.Logger = slog.New(slog.NewTextHandler(c.ErrOrStderr(), nil))
			if err := controller.MakeOperator(cfg, name, file, address); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "user/%s created: %s\n", name, file)
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&cfg.DataDir, "data", "", "data folder of the controller")
	f.StringVar(&name, "name", "operator", "name of the admin")
	f.StringVar(&file, "file", "", "context file to write, for its owner alone")
	f.StringVar(&address, "controller", "", "the controller's address, for that file (the one that the first admin's has)")
	return c
}
