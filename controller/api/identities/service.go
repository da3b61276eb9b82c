// Package identities serves IdentityService: who belongs to the fleet, and who
// changed that.
package identities

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"fmt"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/synmesh/synmesh/controller/api/fault"
	"github.com/synmesh/synmesh/controller/registry"
	"github.com/synmesh/synmesh/internal/identity"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// maxPage is how many entries a page has at most, which is what the registry gives.
const maxPage = 1000

// Registry is where it all stands; see registry.Registry.
type Registry interface {
	CreateToken(actor identity.Identity, agent string, life time.Duration) (identity.Token, registry.Token, error)
	RevokeToken(actor identity.Identity, id string) error
	Tokens(after string, limit int) ([]registry.Token, error)
	Agents(after string, limit int) ([]registry.Agent, error)
	Ban(actor identity.Identity, agent, reason string) error
	Unban(actor identity.Identity, agent string) error
	Unlock(actor identity.Identity, agent string) error
	CreateUser(actor identity.Identity, name string, role identity.Role, key *ecdsa.PublicKey, life time.Duration) (registry.Enrolment, error)
	RevokeUser(actor identity.Identity, name, reason string) error
	Users(after string, limit int) ([]registry.User, error)
	Audit(after uint64, limit int) ([]registry.Entry, error)
	AuditHead() (number uint64, hash string, err error)
}

// Config has no optional fields.
type Config struct {
	Registry Registry
	// Roots are what everybody checks certificates against.
	Roots []*x509.Certificate
	Keys  Keys
}

// Keys are those of the gossip.
type Keys interface {
	// Change has them changed in somebody's name. What it returns waits for the end,
	// and tells how many agents have taken part.
	Change(actor identity.Identity, why string) (wait func(context.Context) (int, error), err error)
}

type service struct {
	synmeshv1.UnimplementedIdentityServiceServer
	Config
}

// Register adds the service to a server.
func Register(r grpc.ServiceRegistrar, c Config) {
	synmeshv1.RegisterIdentityServiceServer(r, &service{Config: c})
}

// WhoAmI implements synmeshv1.IdentityServiceServer.
func (s *service) WhoAmI(ctx context.Context, _ *synmeshv1.WhoAmIRequest) (*synmeshv1.WhoAmIResponse, error) {
	p, err := identity.FromContext(ctx)
	if err != nil {
		return nil, fault.Stranger(err)
	}
	return &synmeshv1.WhoAmIResponse{Uri: p.Identity.URI(), Role: synmeshv1.Role(p.Identity.Role), ExpireTime: timestamppb.New(p.NotAfter)}, nil
}

// change has the registry do something in the name of the one who calls.
func change[R any](ctx context.Context, resp R, do func(actor identity.Identity) error) (R, error) {
	p, err := identity.FromContext(ctx)
	if err != nil {
		return *new(R), fault.Stranger(err)
	}
	if err := do(p.Identity); err != nil {
		return *new(R), fault.Registry(err)
	}
	return resp, nil
}

// CreateToken implements synmeshv1.IdentityServiceServer.
func (s *service) CreateToken(ctx context.Context, req *synmeshv1.CreateTokenRequest) (*synmeshv1.CreateTokenResponse, error) {
	resp := &synmeshv1.CreateTokenResponse{}
	return change(ctx, resp, func(actor identity.Identity) error {
		secret, record, err := s.Registry.CreateToken(actor, req.GetAgent(), req.GetTtl().AsDuration())
		if err == nil {
			resp.Token, resp.Text = token(record), secret.Text()
		}
		return err
	})
}

// RevokeToken implements synmeshv1.IdentityServiceServer.
func (s *service) RevokeToken(ctx context.Context, req *synmeshv1.RevokeTokenRequest) (*synmeshv1.RevokeTokenResponse, error) {
	return change(ctx, &synmeshv1.RevokeTokenResponse{}, func(actor identity.Identity) error {
		return s.Registry.RevokeToken(actor, req.GetId())
	})
}

// ListTokens implements synmeshv1.IdentityServiceServer. A page token is the ID
// of the last token of the page before.
func (s *service) ListTokens(_ context.Context, req *synmeshv1.ListTokensRequest) (*synmeshv1.ListTokensResponse, error) {
	found, err := s.Registry.Tokens(req.GetPageToken(), int(req.GetPageSize()))
	if err != nil {
		return nil, fault.Registry(err)
	}
	resp := &synmeshv1.ListTokensResponse{}
	for _, t := range found {
		resp.Tokens = append(resp.Tokens, token(t))
	}
	if full(found, req.GetPageSize()) {
		resp.NextPageToken = found[len(found)-1].ID
	}
	return resp, nil
}

// ListMembers implements synmeshv1.IdentityServiceServer. A page token is the
// name of the last agent of the page before.
func (s *service) ListMembers(_ context.Context, req *synmeshv1.ListMembersRequest) (*synmeshv1.ListMembersResponse, error) {
	found, err := s.Registry.Agents(req.GetPageToken(), int(req.GetPageSize()))
	if err != nil {
		return nil, fault.Registry(err)
	}
	resp := &synmeshv1.ListMembersResponse{}
	for _, a := range found {
		resp.Members = append(resp.Members, &synmeshv1.Member{
			Agent: a.Name, EnrolTime: instant(a.Enrolled), RenewTime: instant(a.Renewed), ExpireTime: instant(a.Expires),
			Generation: a.Generation, Ban: exclusion(a.Banned), Lock: exclusion(a.Locked),
		})
	}
	if full(found, req.GetPageSize()) {
		resp.NextPageToken = found[len(found)-1].Name
	}
	return resp, nil
}

// BanAgent implements synmeshv1.IdentityServiceServer.
func (s *service) BanAgent(ctx context.Context, req *synmeshv1.BanAgentRequest) (*synmeshv1.BanAgentResponse, error) {
	return change(ctx, &synmeshv1.BanAgentResponse{}, func(actor identity.Identity) error {
		if err := s.Registry.Ban(actor, req.GetAgent(), req.GetReason()); err != nil {
			return err
		}
		_, err := s.Keys.Change(actor, "agent "+req.GetAgent()+" was banned, and has them")
		if err != nil {
			err = fmt.Errorf("%s is banned, but still has the keys of the gossip; see to the reason, and ban it again: %w", req.GetAgent(), err)
		}
		return err
	})
}

// RotateGossipKeys implements synmeshv1.IdentityServiceServer.
func (s *service) RotateGossipKeys(ctx context.Context, _ *synmeshv1.RotateGossipKeysRequest) (*synmeshv1.RotateGossipKeysResponse, error) {
	resp := &synmeshv1.RotateGossipKeysResponse{}
	return change(ctx, resp, func(actor identity.Identity) error {
		wait, err := s.Keys.Change(actor, "")
		if err != nil {
			return err
		}
		n, err := wait(ctx)
		resp.Agents = int32(n)
		return err
	})
}

// UnbanAgent implements synmeshv1.IdentityServiceServer.
func (s *service) UnbanAgent(ctx context.Context, req *synmeshv1.UnbanAgentRequest) (*synmeshv1.UnbanAgentResponse, error) {
	return change(ctx, &synmeshv1.UnbanAgentResponse{}, func(actor identity.Identity) error {
		return s.Registry.Unban(actor, req.GetAgent())
	})
}

// UnlockAgent implements synmeshv1.IdentityServiceServer.
func (s *service) UnlockAgent(ctx context.Context, req *synmeshv1.UnlockAgentRequest) (*synmeshv1.UnlockAgentResponse, error) {
	return change(ctx, &synmeshv1.UnlockAgentResponse{}, func(actor identity.Identity) error {
		return s.Registry.Unlock(actor, req.GetAgent())
	})
}

// CreateUser implements synmeshv1.IdentityServiceServer.
func (s *service) CreateUser(ctx context.Context, req *synmeshv1.CreateUserRequest) (*synmeshv1.CreateUserResponse, error) {
	key, err := identity.ParseRequest(req.GetCertificateRequest())
	if err != nil {
		return nil, fault.Invalid("%w", err)
	}
	resp := &synmeshv1.CreateUserResponse{}
	return change(ctx, resp, func(actor identity.Identity) error {
		e, err := s.Registry.CreateUser(actor, req.GetName(), identity.Role(req.GetRole()), key, req.GetTtl().AsDuration())
		if err != nil {
			return err
		}
		resp.User = &synmeshv1.User{
			Name: req.GetName(), Role: req.GetRole(), Creator: actor.String(),
			CreateTime: timestamppb.Now(), ExpireTime: timestamppb.New(e.Chain[0].NotAfter),
		}
		resp.Credentials = &synmeshv1.Credentials{Generation: e.Generation, Chain: raw(e.Chain), Roots: raw(s.Roots)}
		return nil
	})
}

// RevokeUser implements synmeshv1.IdentityServiceServer.
func (s *service) RevokeUser(ctx context.Context, req *synmeshv1.RevokeUserRequest) (*synmeshv1.RevokeUserResponse, error) {
	return change(ctx, &synmeshv1.RevokeUserResponse{}, func(actor identity.Identity) error {
		return s.Registry.RevokeUser(actor, req.GetName(), req.GetReason())
	})
}

// ListUsers implements synmeshv1.IdentityServiceServer. A page token is the
// name of the last user of the page before.
func (s *service) ListUsers(_ context.Context, req *synmeshv1.ListUsersRequest) (*synmeshv1.ListUsersResponse, error) {
	found, err := s.Registry.Users(req.GetPageToken(), int(req.GetPageSize()))
	if err != nil {
		return nil, fault.Registry(err)
	}
	resp := &synmeshv1.ListUsersResponse{}
	for _, u := range found {
		resp.Users = append(resp.Users, &synmeshv1.User{
			Name: u.Name, Role: synmeshv1.Role(u.Role), Creator: u.Creator,
			CreateTime: instant(u.Created), ExpireTime: instant(u.Expires), Revocation: exclusion(u.Revoked),
		})
	}
	if full(found, req.GetPageSize()) {
		resp.NextPageToken = found[len(found)-1].Name
	}
	return resp, nil
}

// ListAuditEntries implements synmeshv1.IdentityServiceServer. A page token is
// the number of the last entry of the page before.
func (s *service) ListAuditEntries(_ context.Context, req *synmeshv1.ListAuditEntriesRequest) (*synmeshv1.ListAuditEntriesResponse, error) {
	var after uint64
	if t := req.GetPageToken(); t != "" {
		var err error
		if after, err = strconv.ParseUint(t, 10, 64); err != nil {
			return nil, fault.Invalid("page token %q is not the number of an entry", t)
		}
	}
	found, err := s.Registry.Audit(after, int(req.GetPageSize()))
	if err != nil {
		return nil, fault.Registry(err)
	}
	resp := &synmeshv1.ListAuditEntriesResponse{}
	if resp.HeadNumber, resp.HeadHash, err = s.Registry.AuditHead(); err != nil {
		return nil, fault.Registry(err)
	}
	for _, e := range found {
		resp.Entries = append(resp.Entries, &synmeshv1.AuditEntry{
			Number: e.Number, Time: instant(e.Time), Actor: e.Actor, Act: e.Act, Subject: e.Subject, Detail: e.Detail,
			Previous: e.Previous, Hash: e.Hash,
		})
	}
	if full(found, req.GetPageSize()) {
		resp.NextPageToken = strconv.FormatUint(found[len(found)-1].Number, 10)
	}
	return resp, nil
}

// full tells whether there may be more after what was found.
func full[T any](found []T, size int32) bool {
	if size == 0 {
		size = maxPage
	}
	return len(found) > 0 && len(found) == int(size)
}

func token(t registry.Token) *synmeshv1.Token {
	return &synmeshv1.Token{
		Id: t.ID, Agent: t.Agent, Creator: t.Creator,
		CreateTime: instant(t.Created), ExpireTime: instant(t.Expires), UseTime: instant(t.Used), RevokeTime: instant(t.Revoked),
	}
}

func exclusion(m *registry.Mark) *synmeshv1.Exclusion {
	if m == nil {
		return nil
	}
	return &synmeshv1.Exclusion{Time: instant(m.Time), Actor: m.Actor, Reason: m.Reason}
}

// instant is absent where there was none.
func instant(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func raw(certs []*x509.Certificate) (ders [][]byte) {
	for _, c := range certs {
		ders = append(ders, c.Raw)
	}
	return ders
}
