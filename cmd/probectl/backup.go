package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/synmesh/synmesh/internal/identity"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

func (a *app) backupCommand() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use: "backup --file FILE", Short: "Copy all that the controller keeps to a file here",
		Long: `backup has the controller copy its history, its registry, and the keys that its agents
know it by, and writes that to a file, while the controller goes on. What was
stored before is in it. The file gets its name when it is complete.

It is a secret: who has it can be the controller. So it can be read by you alone.
The key of the CA's root is not in it; keep a copy of ca/root.key yourself.

probe-controller check --backup FILE reads it again, and probe-controller restore
makes a data folder of it.`,
		Example: `  probectl backup --file synmesh-$(date +%F).tar`,
		Args:    a.noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			if file == "" {
				return usage(errors.New("no file is given; name the one to write with --file"))
			}
			if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
				return usage(fmt.Errorf("%s is there already; remove it, or name another with --file", file))
			}
			size, err := a.backup(c.Context(), file)
			if err == nil {
				fmt.Fprintf(a.out, "%s written: %d bytes\n", file, size)
				fmt.Fprintln(a.err, "keep it secret: it holds the controller's keys, but for ca/root.key, which you keep yourself")
			}
			return err
		},
	}
	c.Flags().StringVar(&file, "file", "", "file to write, for its owner alone")
	return c
}

// backup writes a backup aside, and gives it its name when it is complete and durable.
func (a *app) backup(ctx context.Context, file string) (size int64, err error) {
	conn, err := a.connect(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	aside := file + ".tmp"
	f, err := os.OpenFile(aside, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return 0, usage(fmt.Errorf("%s is there, of a backup that was cut off or is under way; remove it", aside))
	}
	if err != nil {
		return 0, usage(err)
	}
	size, err = a.receiveBackup(ctx, synmeshv1.NewBackupServiceClient(conn), f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(aside, file)
	}
	if err != nil {
		return 0, errors.Join(err, os.Remove(aside))
	}
	return size, identity.SyncFolder(filepath.Dir(file))
}

func (a *app) receiveBackup(ctx context.Context, client synmeshv1.BackupServiceClient, w io.Writer) (size int64, err error) {
	ctx, cancel := context.WithCancel(ctx) // and with it the stream
	defer cancel()
	stream, err := client.Backup(ctx, &synmeshv1.BackupRequest{})
	if err != nil {
		return 0, a.failed(ctx, err)
	}
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return size, nil
		}
		if err != nil {
			return size, a.failed(ctx, err)
		}
		n, err := w.Write(part.GetData())
		if size += int64(n); err != nil {
			return size, err
		}
	}
}
