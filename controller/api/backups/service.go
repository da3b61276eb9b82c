// Package backups serves BackupService: copies of what the controller keeps.
package backups

import (
	"bufio"
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"

	"github.com/synmesh/synmesh/controller/api/fault"
	"github.com/synmesh/synmesh/internal/identity"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// ErrElsewhere is the error of a Taker that has not all that the controller keeps.
var ErrElsewhere = errors.New("the history is not kept in the data folder; back it up where it is kept")

// Taker writes a backup in somebody's name.
type Taker func(ctx context.Context, actor identity.Identity, w io.Writer) error

// partSize is how much of a backup a message has, in bytes.
const partSize = 256 << 10

type service struct {
	synmeshv1.UnimplementedBackupServiceServer
	take Taker
	free chan struct{} // has a token while no backup is taken
}

// Register adds the service to a server.
func Register(r grpc.ServiceRegistrar, take Taker) {
	s := &service{take: take, free: make(chan struct{}, 1)}
	s.free <- struct{}{}
	synmeshv1.RegisterBackupServiceServer(r, s)
}

// Backup implements synmeshv1.BackupServiceServer.
func (s *service) Backup(_ *synmeshv1.BackupRequest, st grpc.ServerStreamingServer[synmeshv1.BackupResponse]) error {
	p, err := identity.FromContext(st.Context())
	if err != nil {
		return fault.Stranger(err)
	}
	select {
	case <-s.free:
		defer func() { s.free <- struct{}{} }()
	default:
		return fault.Exhausted("another backup is being taken; try again when it is done")
	}
	w := bufio.NewWriterSize(parts{st}, partSize)
	err = s.take(st.Context(), p.Identity, w)
	if err == nil {
		err = w.Flush()
	}
	switch {
	case err == nil || st.Context().Err() != nil:
		return err
	case errors.Is(err, ErrElsewhere):
		return fault.Precondition("there is no backup: %w", err)
	}
	return fault.Unavailable("the backup is not complete, and of no use: %w", err)
}

// parts sends what is written to it, a message each time.
type parts struct {
	stream grpc.ServerStreamingServer[synmeshv1.BackupResponse]
}

func (p parts) Write(b []byte) (int, error) {
	n := 0
	for len(b) > 0 {
		part := b[:min(len(b), partSize)]
		if err := p.stream.Send(&synmeshv1.BackupResponse{Data: part}); err != nil {
			return n, err
		}
		b, n = b[len(part):], n+len(part)
	}
	return n, nil
}
