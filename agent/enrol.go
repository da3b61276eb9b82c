package agent

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/synmesh/synmesh/internal/identity"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// enrolWithin is how long a controller may take to answer, and to have time for us.
const enrolWithin = time.Minute

// EnrolConfig says where to enrol. StateDir, Controller and Token must be given.
type EnrolConfig struct {
	// StateDir is the folder that Config.StateDir is going to name.
	StateDir   string
	Controller string // as host:port
	Token      identity.Token
	// Name is whom the agent takes itself for; empty: whom the token is for.
	Name string
}

// Enrol uses a token up for a certificate. The key is made here and does not
// leave the host. The controller is believed by the token, which pins the
// fleet's root. If it fails, the same can be tried again.
func Enrol(ctx context.Context, c EnrolConfig) (identity.Identity, error) {
	folder, err := identity.OpenFolder(identityFolder(c.StateDir))
	if err != nil {
		return identity.Identity{}, err
	}
	id, err := c.enrol(ctx, folder)
	return id, errors.Join(err, folder.Close())
}

func (c EnrolConfig) enrol(ctx context.Context, folder *identity.Folder) (id identity.Identity, err error) {
	key, err := folder.Pending()
	if err != nil {
		return id, err
	}
	request, err := identity.NewRequest(key)
	if err != nil {
		return id, err
	}
	conn, err := grpc.NewClient(c.Controller, grpc.WithTransportCredentials(credentials.NewTLS(identity.PinnedTLS(c.Token, nil))))
	if err != nil {
		return id, fmt.Errorf("controller %s: %w", c.Controller, err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, enrolWithin)
	defer cancel()
	client := synmeshv1.NewEnrolmentServiceClient(conn)
	resp, err := patiently(ctx, func() (*synmeshv1.EnrollResponse, error) {
		return client.Enroll(ctx, &synmeshv1.EnrollRequest{Token: c.Token.Text(), CertificateRequest: request, Agent: c.Name})
	})
	if err != nil {
		return id, fmt.Errorf("controller %s: %w", c.Controller, plain(err))
	}
	if err := accept(folder, resp.GetCredentials()); err != nil {
		return id, fmt.Errorf("controller %s: %w", c.Controller, err)
	}
	// What is kept of a fleet that the host was in before is of no use.
	if err := os.Remove(filepath.Join(c.StateDir, toldFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return id, err
	}
	current, err := folder.Current()
	if err != nil {
		return id, err
	}
	return current.Identity, nil
}

// patiently calls again as long as the controller says that it has too much to do, and when to come.
func patiently[R any](ctx context.Context, call func() (R, error)) (R, error) {
	for {
		resp, err := call()
		if s := status.Convert(err); s.Code() == codes.ResourceExhausted {
			for _, d := range s.Details() {
				info, ok := d.(*errdetails.RetryInfo)
				if !ok {
					continue
				}
				timer := time.NewTimer(info.GetRetryDelay().AsDuration())
				select {
				case <-timer.C:
					err = nil
				case <-ctx.Done():
				}
				timer.Stop()
			}
			if err == nil {
				continue
			}
		}
		return resp, err
	}
}

// accept stores what a controller has issued.
func accept(folder *identity.Folder, c *synmeshv1.Credentials) (err error) {
	issued := identity.Issued{Generation: c.GetGeneration(), Files: c.GetFiles()}
	if issued.Chain, err = identity.ParseChain(c.GetChain()); err != nil {
		return err
	}
	if issued.Roots, err = parseRoots(c.GetRoots()); err != nil {
		return err
	}
	return folder.Accept(issued)
}

func parseRoots(ders [][]byte) ([]*x509.Certificate, error) {
	roots, err := identity.ParseChain(ders)
	if err != nil {
		return nil, fmt.Errorf("roots: %w", err)
	}
	return roots, nil
}

// plain takes gRPC's words off an error.
func plain(err error) error {
	if s := status.Convert(err); s.Code() != codes.Unknown {
		return errors.New(s.Message())
	}
	return err
}

// identityFolder is where in the agent's state its identity is.
func identityFolder(stateDir string) string { return filepath.Join(stateDir, "identity") }
