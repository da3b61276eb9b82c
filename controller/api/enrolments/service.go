// Package enrolments serves EnrolmentService: how agents get their
// certificates, and what they need to gossip.
package enrolments

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"net/netip"

	"golang.org/x/time/rate"
	"google.golang.org/grpc"

	"github.com/synmesh/synmesh/controller/api/fault"
	"github.com/synmesh/synmesh/controller/registry"
	"github.com/synmesh/synmesh/internal/gossip"
	"github.com/synmesh/synmesh/internal/identity"
	"github.com/synmesh/synmesh/internal/selector"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// Registry knows who may enrol; see registry.Registry.
type Registry interface {
	Enrol(token identity.TokenHash, name string, key *ecdsa.PublicKey) (registry.Enrolment, error)
	Renew(name string, shown identity.KeyHash, key *ecdsa.PublicKey) (registry.Enrolment, error)
}

// Config has no optional fields.
type Config struct {
	Registry Registry
	// Roots are what everybody checks certificates against.
	Roots []*x509.Certificate
	// Files are what every agent keeps beside its certificate.
	Files func() (map[string][]byte, error)
	// Sign signs what a peer tells of itself in the gossip.
	Sign func(gossip.Peer) (gossip.Announcement, error)
	// Follow notes that an agent uses the files of a version, and waits until there are
	// others; without any it returns when the agent should ask again.
	Follow func(ctx context.Context, agent, version string) (next string, files map[string][]byte, err error)
}

type service struct {
	synmeshv1.UnimplementedEnrolmentServiceServer
	Config
	enrolments, renewals *limit
}

// Register adds the service to a server.
func Register(r grpc.ServiceRegistrar, c Config) {
	synmeshv1.RegisterEnrolmentServiceServer(r, &service{
		Config:     c,
		enrolments: newLimit(enrolmentsOfOne, enrolmentsOfOneBurst, rate.NewLimiter(enrolmentsOfAll, enrolmentsOfAllBurst)),
		renewals:   newLimit(renewalsOfOne, renewalsOfOneBurst, rate.NewLimiter(rate.Inf, 1)), // a whole fleet may come back at once
	})
}

// Enroll implements synmeshv1.EnrolmentServiceServer.
func (s *service) Enroll(ctx context.Context, req *synmeshv1.EnrollRequest) (*synmeshv1.EnrollResponse, error) {
	if err := s.enrolments.pass(from(ctx), "enrolments"); err != nil {
		return nil, err
	}
	token, err := identity.ParseToken(req.GetToken())
	if err != nil {
		return nil, fault.Invalid("%w", err)
	}
	key, err := identity.ParseRequest(req.GetCertificateRequest())
	if err != nil {
		return nil, fault.Invalid("%w", err)
	}
	e, err := s.Registry.Enrol(token.Hash(), req.GetAgent(), key)
	if err != nil {
		return nil, fault.Registry(err)
	}
	c, err := s.credentials(e)
	if err != nil {
		return nil, err
	}
	return &synmeshv1.EnrollResponse{Credentials: c}, nil
}

// Renew implements synmeshv1.EnrolmentServiceServer. The certificate shown may
// have expired.
func (s *service) Renew(ctx context.Context, req *synmeshv1.RenewRequest) (*synmeshv1.RenewResponse, error) {
	p, _ := identity.FromContext(ctx) // access has looked at its error
	if err := s.renewals.pass(p.Identity.Name, "renewals"); err != nil {
		return nil, err
	}
	key, err := identity.ParseRequest(req.GetCertificateRequest())
	if err != nil {
		return nil, fault.Invalid("%w", err)
	}
	e, err := s.Registry.Renew(p.Identity.Name, p.Key, key)
	if err != nil {
		return nil, fault.Registry(err)
	}
	c, err := s.credentials(e)
	if err != nil {
		return nil, err
	}
	return &synmeshv1.RenewResponse{Credentials: c}, nil
}

func (s *service) credentials(e registry.Enrolment) (*synmeshv1.Credentials, error) {
	files, err := s.Files()
	if err != nil {
		return nil, fault.Unavailable("%w", err)
	}
	c := &synmeshv1.Credentials{Generation: e.Generation, Files: files}
	for _, cert := range e.Chain {
		c.Chain = append(c.Chain, cert.Raw)
	}
	for _, root := range s.Roots {
		c.Roots = append(c.Roots, root.Raw)
	}
	return c, nil
}

// Announce implements synmeshv1.EnrolmentServiceServer. The name is that of the
// certificate. That the agent is where it says is for the others to see: they
// believe an announcement only from the address in it.
func (s *service) Announce(ctx context.Context, req *synmeshv1.AnnounceRequest) (*synmeshv1.AnnounceResponse, error) {
	p, err := identity.FromContext(ctx)
	if err != nil {
		return nil, fault.Stranger(err)
	}
	files, err := s.Files()
	if err != nil {
		return nil, fault.Unavailable("%w", err)
	}
	if req.GetGossip() == "" {
		return &synmeshv1.AnnounceResponse{Files: files}, nil
	}
	peer := gossip.Peer{Name: p.Identity.Name, Role: gossip.Agent, Labels: req.GetLabels(), Responder: req.GetResponder()}
	if peer.Addr, err = netip.ParseAddrPort(req.GetGossip()); err != nil {
		return nil, fault.Invalid("gossip %q is not address:port", req.GetGossip())
	}
	if _, err := netip.ParseAddrPort(peer.Responder); peer.Responder != "" && err != nil {
		return nil, fault.Invalid("responder %q is not address:port", peer.Responder)
	}
	if err := selector.CheckLabels(peer.Labels); err != nil {
		return nil, fault.Invalid("%w", err)
	}
	a, err := s.Sign(peer)
	if err != nil {
		return nil, fault.Invalid("%w", err)
	}
	return &synmeshv1.AnnounceResponse{Announcement: a, Files: files}, nil
}

// Follow implements synmeshv1.EnrolmentServiceServer.
func (s *service) Follow(ctx context.Context, req *synmeshv1.FollowRequest) (*synmeshv1.FollowResponse, error) {
	p, err := identity.FromContext(ctx)
	if err != nil {
		return nil, fault.Stranger(err)
	}
	version, files, err := s.Config.Follow(ctx, p.Identity.Name, req.GetVersion())
	if err != nil {
		return nil, fault.Unavailable("%w", err)
	}
	return &synmeshv1.FollowResponse{Version: version, Files: files}, nil
}
