//go:build linux

package swarm_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/synmesh/synmesh/agent"
	"github.com/synmesh/synmesh/internal/identity"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// runEnrol enrols an agent. Arguments: the folder of its state, the controller, and the token.
func runEnrol(ctx context.Context, args []string) error {
	token, err := identity.ParseToken(args[2])
	if err != nil {
		return err
	}
	_, err = agent.Enrol(ctx, agent.EnrolConfig{StateDir: args[0], Controller: args[1], Token: token})
	return err
}

// enrolFrom is agent.Enrol from an address of this host.
func enrolFrom(ctx context.Context, from net.Addr, dir, controller, text string) (err error) {
	token, err := identity.ParseToken(text)
	if err != nil {
		return err
	}
	folder, err := identity.OpenFolder(filepath.Join(dir, "identity"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, folder.Close()) }()
	key, err := folder.Pending()
	if err != nil {
		return err
	}
	request, err := identity.NewRequest(key)
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient("passthrough:///"+controller, grpc.WithTransportCredentials(credentials.NewTLS(identity.PinnedTLS(token, nil))),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return (&net.Dialer{LocalAddr: from}).DialContext(ctx, "tcp", address)
		}))
	if err != nil {
		return err
	}
	defer conn.Close()
	resp, err := synmeshv1.NewEnrolmentServiceClient(conn).Enroll(ctx, &synmeshv1.EnrollRequest{Token: text, CertificateRequest: request})
	if err != nil {
		return err
	}
	got := resp.GetCredentials()
	issued := identity.Issued{Generation: got.GetGeneration(), Files: got.GetFiles()}
	if issued.Chain, err = identity.ParseChain(got.GetChain()); err != nil {
		return err
	}
	if issued.Roots, err = identity.ParseChain(got.GetRoots()); err != nil {
		return err
	}
	return folder.Accept(issued)
}
