// Package client_test is a client of a controller in Go, complete, for other programs to
// begin with. It uses nothing that is internal to Synmesh. The other file tests it.
package client_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// readFolder reads who we are from what probectl user create --pem writes.
func readFolder(dir string) (*tls.Config, error) {
	own, err := tls.LoadX509KeyPair(filepath.Join(dir, "certificate.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(dir, "roots.pem"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s: there are no roots", dir)
	}
	fleet, _, err := nameOf(own.Leaf)
	return tlsOf(own, roots, fleet), err
}

// tlsOf trusts controllers of the fleet, wherever they are.
func tlsOf(own tls.Certificate, roots *x509.CertPool, fleet string) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		Certificates:       []tls.Certificate{own},
		InsecureSkipVerify: true, // of the host's name; VerifyConnection does all the rest
		VerifyConnection: func(s tls.ConnectionState) error {
			between := x509.NewCertPool()
			for _, c := range s.PeerCertificates[1:] {
				between.AddCert(c)
			}
			leaf := s.PeerCertificates[0]
			if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between,
				KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err != nil {
				return err
			}
			theirs, kind, err := nameOf(leaf)
			if err == nil && (leaf.IsCA || theirs != fleet || kind != "controller") {
				err = fmt.Errorf("the server is %v, and a controller of %s is wanted", leaf.URIs, fleet)
			}
			return err
		},
	}
}

// nameOf returns the fleet and the kind of whom a certificate is for: its one URI is
// spiffe://FLEET/agent/NAME, /controller/NAME or /user/ROLE/NAME.
func nameOf(c *x509.Certificate) (fleet, kind string, err error) {
	if len(c.URIs) != 1 || c.URIs[0].Scheme != "spiffe" {
		return "", "", fmt.Errorf("the certificate names nobody of a fleet: %v", c.URIs)
	}
	kind, _, _ = strings.Cut(strings.TrimPrefix(c.URIs[0].Path, "/"), "/")
	return c.URIs[0].Host, kind, nil
}

func connect(address string, config *tls.Config) (*grpc.ClientConn, error) {
	return grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(config)),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: 5 * time.Second,
			Backoff: backoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 2, Jitter: 0.2, MaxDelay: 3 * time.Second}}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}))
}

// watch hands over what is stored from a cursor on, until ctx ends, whatever becomes of the
// controller meanwhile. Store has to keep the results and the cursor together: then
// each result is kept once, though this program is killed as well.
func watch(ctx context.Context, c synmeshv1.ResultServiceClient, filter *synmeshv1.SeriesFilter, cursor string,
	store func(results []*synmeshv1.Result, cursor string) error) error {
	for {
		err := watchOnce(ctx, c, &synmeshv1.WatchRequest{Filter: filter, Cursor: cursor}, func(m *synmeshv1.WatchResponse) error {
			if m.GetGap() {
				log.Print("results may be missing here")
			}
			err := store(m.GetResults(), m.GetCursor())
			if err == nil {
				cursor = m.GetCursor()
			}
			return err
		})
		var mine ours
		switch {
		case errors.As(err, &mine):
			return mine.error
		case ctx.Err() != nil:
			return ctx.Err()
		case !again(status.Code(err)):
			return err
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
}

// again tells whether another try may do better.
func again(code codes.Code) bool {
	switch code {
	case codes.Unavailable, codes.Aborted, codes.ResourceExhausted, codes.DeadlineExceeded, codes.Internal, codes.Unknown:
		return true
	}
	return false
}

// ours marks errors of store.
type ours struct{ error }

// watchOnce reads one stream until it breaks off.
func watchOnce(ctx context.Context, c synmeshv1.ResultServiceClient, req *synmeshv1.WatchRequest, take func(*synmeshv1.WatchResponse) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // frees the stream
	stream, err := c.Watch(ctx, req)
	for err == nil {
		var m *synmeshv1.WatchResponse
		if m, err = stream.Recv(); err == nil {
			if failed := take(m); failed != nil {
				return ours{failed}
			}
		}
	}
	if errors.Is(err, io.EOF) {
		err = status.Error(codes.Unavailable, "the controller has ended the stream")
	}
	return err
}

// It prints all results of a measurement as they come.
func Example() {
	config, err := readFolder("dashboard")
	if err != nil {
		log.Fatal(err)
	}
	conn, err := connect("ctl.example:7400", config)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	filter := &synmeshv1.SeriesFilter{Source: "measurements/mesh"}
	err = watch(context.Background(), synmeshv1.NewResultServiceClient(conn), filter, "", func(results []*synmeshv1.Result, cursor string) error {
		for _, r := range results {
			fmt.Println(r.GetTime().AsTime(), r.GetAgent(), r.GetTarget(), r.GetOutcome(), r.GetRtt().AsDuration())
		}
		return nil // in earnest: keep the results and the cursor in one transaction
	})
	log.Fatal(err)
}
