package identities

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/synmesh/synmesh/controller/api/apitest"
	"github.com/synmesh/synmesh/internal/identity"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench is the service, and its first admin, who is called root.
type bench struct {
	*testing.T
	synmeshv1.IdentityServiceClient
	members *apitest.Members
	as      func(*identity.Credentials) *grpc.ClientConn
}

func serve(t *testing.T, k Keys) *bench {
	t.Helper()
	m := apitest.NewMembers(t)
	as := m.Serve(func(r grpc.ServiceRegistrar) {
		Register(r, Config{Registry: m.Registry, Roots: m.CA.Roots(), Keys: k})
	})
	return &bench{t, synmeshv1.NewIdentityServiceClient(as(m.NewUser("root", identity.Admin, 0))), m, as}
}

// keys are of a gossip with two agents, unless they cannot be changed.
type keys struct {
	err   error
	why   []string
	ended <-chan struct{} // nil: they are changed at once
}

// Change implements Keys.
func (k *keys) Change(actor identity.Identity, why string) (func(context.Context) (int, error), error) {
	k.why = append(k.why, actor.String()+": "+why)
	return func(ctx context.Context) (int, error) {
		if k.ended == nil {
			return 2, nil
		}
		select {
		case <-k.ended:
			return 2, nil
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}, k.err
}

func request(t testing.TB, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	der, err := identity.NewRequest(key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func wantStatus(t testing.TB, err error, code codes.Code, words string) {
	t.Helper()
	if s := status.Convert(err); s.Code() != code || !strings.Contains(s.Message(), words) {
		t.Errorf("got %v, want %v with %q", err, code, words)
	}
}

// acts returns what root has done, as the audit log tells it.
func (b *bench) acts() (acts []string) {
	b.Helper()
	resp, err := b.ListAuditEntries(b.Context(), &synmeshv1.ListAuditEntriesRequest{})
	if err != nil {
		b.Fatal(err)
	}
	for _, e := range resp.GetEntries() {
		if e.GetActor() == "user/admin/root" {
			acts = append(acts, e.GetAct()+" "+e.GetSubject())
		}
	}
	return acts
}

func (b *bench) wantActs(want ...string) {
	b.Helper()
	if got := b.acts(); !slices.Equal(got, want) {
		b.Errorf("the audit log says\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestAPersonIsMadeOnce(t *testing.T) {
	b := serve(t, &keys{})
	key := apitest.NewKey(t)
	ask := &synmeshv1.CreateUserRequest{
		Name: "ada", Role: synmeshv1.Role_ROLE_VIEWER, CertificateRequest: request(t, key), Ttl: durationpb.New(time.Hour)}
	first, err := b.CreateUser(t.Context(), ask)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := identity.ParseChain(first.GetCredentials().GetChain())
	if err != nil {
		t.Fatal(err)
	}
	roots, err := identity.ParseChain(first.GetCredentials().GetRoots())
	if err != nil {
		t.Fatal(err)
	}
	c, err := identity.NewCredentials(key, chain, roots)
	if err != nil || c.Identity.String() != "user/viewer/ada" {
		t.Fatalf("the certificate is %v's, %v", c, err)
	}
	user, left := first.GetUser(), time.Until(chain[0].NotAfter)
	if !user.GetExpireTime().AsTime().Equal(chain[0].NotAfter) || left > time.Hour || left < 50*time.Minute || user.GetCreator() != "user/admin/root" {
		t.Errorf("%v, and the certificate has another %v", user, left)
	}

	// The answer may have been lost.
	again, err := b.CreateUser(t.Context(), ask)
	if err != nil || !slices.EqualFunc(again.GetCredentials().GetChain(), first.GetCredentials().GetChain(), bytes.Equal) {
		t.Errorf("who asks again gets another certificate: %v", err)
	}
	for what, change := range map[string]func(*synmeshv1.CreateUserRequest){
		"with another key":   func(r *synmeshv1.CreateUserRequest) { r.CertificateRequest = request(t, apitest.NewKey(t)) },
		"with another role":  func(r *synmeshv1.CreateUserRequest) { r.Role = synmeshv1.Role_ROLE_ADMIN },
		"as the first admin": func(r *synmeshv1.CreateUserRequest) { r.Name = "root" },
	} {
		t.Run(what, func(t *testing.T) {
			r := proto.CloneOf(ask)
			change(r)
			_, err := b.CreateUser(t.Context(), r)
			wantStatus(t, err, codes.FailedPrecondition, "exists already")
		})
	}
	b.wantActs("create user user/viewer/ada")

	if _, err := b.RevokeUser(t.Context(), &synmeshv1.RevokeUserRequest{Name: "ada", Reason: "left"}); err != nil {
		t.Fatal(err)
	}
	ask.Role, ask.CertificateRequest = synmeshv1.Role_ROLE_OPERATOR, request(t, apitest.NewKey(t))
	if _, err := b.CreateUser(t.Context(), ask); err != nil {
		t.Errorf("a name that is free again: %v", err)
	}
	b.wantActs("create user user/viewer/ada", "revoke user user/viewer/ada", "create user user/operator/ada")
	users, err := b.ListUsers(t.Context(), &synmeshv1.ListUsersRequest{})
	if err != nil || len(users.GetUsers()) != 2 {
		t.Fatal(users, err)
	}
	if u := users.GetUsers()[0]; u.GetName() != "ada" || u.GetRole() != synmeshv1.Role_ROLE_OPERATOR || u.GetRevocation() != nil {
		t.Errorf("ada is %v", u)
	}
}

// These come past the rules of the proto files, which are tested with the server.
func TestWhatCannotBeDoneIsRefused(t *testing.T) {
	b := serve(t, &keys{})
	b.members.Agent("fra-1")
	weak, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, weak)
	if err != nil {
		t.Fatal(err)
	}
	good := request(t, apitest.NewKey(t))
	forged := bytes.Clone(good)
	forged[len(forged)-1] ^= 1
	create := func(name string, role synmeshv1.Role, csr []byte) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := b.CreateUser(ctx, &synmeshv1.CreateUserRequest{Name: name, Role: role, CertificateRequest: csr})
			return err
		}
	}
	token := func(agent string, ttl time.Duration) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := b.CreateToken(ctx, &synmeshv1.CreateTokenRequest{Agent: agent, Ttl: durationpb.New(ttl)})
			return err
		}
	}
	const viewer = synmeshv1.Role_ROLE_VIEWER
	for _, tt := range []struct {
		name  string
		call  func(context.Context) error
		code  codes.Code
		words string
	}{
		{"a person without a request", create("ada", viewer, nil), codes.InvalidArgument, "certificate request: "},
		{"a person with another sort of key", create("ada", viewer, other), codes.InvalidArgument, "not ECDSA on P-256"},
		{"a person with a key of somebody else", create("ada", viewer, forged), codes.InvalidArgument, "not signed with its key"},
		{"a person without a name", create("", viewer, good), codes.InvalidArgument, "name"},
		{"a person who leads elsewhere", create("..", viewer, good), codes.InvalidArgument, `name ".."`},
		{"a person with a slash", create("admin/ada", viewer, good), codes.InvalidArgument, "name"},
		{"a person without a role", create("ada", 0, good), codes.InvalidArgument, "role"},
		{"a person with a role that there is not", create("ada", 9, good), codes.InvalidArgument, "role"},
		{"a token for nobody", token("", time.Hour), codes.InvalidArgument, "name"},
		{"a token for a folder", token(".", time.Hour), codes.InvalidArgument, `name "."`},
		{"a token of no time", token("fra-1", time.Nanosecond), codes.InvalidArgument, "a token lasts 1s to 168h0m0s"},
		{"a token of the past", token("fra-1", -time.Hour), codes.InvalidArgument, "a token lasts 1s to 168h0m0s"},
		{"a token of more than a week", token("fra-1", 7*24*time.Hour+1), codes.InvalidArgument, "a token lasts 1s to 168h0m0s"},
		{"a ban of nobody", func(ctx context.Context) error {
			_, err := b.BanAgent(ctx, &synmeshv1.BanAgentRequest{Agent: "nyc-1", Reason: "too loud"})
			return err
		}, codes.NotFound, "agent nyc-1"},
		{"a ban without a reason", func(ctx context.Context) error {
			_, err := b.BanAgent(ctx, &synmeshv1.BanAgentRequest{Agent: "fra-1"})
			return err
		}, codes.InvalidArgument, "reason"},
		{"the end of a ban that there is not", func(ctx context.Context) error {
			_, err := b.UnbanAgent(ctx, &synmeshv1.UnbanAgentRequest{Agent: "fra-1"})
			return err
		}, codes.NotFound, `"fra-1" is not banned`},
		{"the end of a lock that there is not", func(ctx context.Context) error {
			_, err := b.UnlockAgent(ctx, &synmeshv1.UnlockAgentRequest{Agent: "fra-1"})
			return err
		}, codes.NotFound, `"fra-1" is not locked`},
		{"a token that there is not", func(ctx context.Context) error {
			_, err := b.RevokeToken(ctx, &synmeshv1.RevokeTokenRequest{Id: "0123456789abcdef"})
			return err
		}, codes.NotFound, "token 0123456789abcdef"},
		{"a token without an ID", func(ctx context.Context) error {
			_, err := b.RevokeToken(ctx, &synmeshv1.RevokeTokenRequest{})
			return err
		}, codes.InvalidArgument, "16 hexadecimal digits"},
		{"a person who is not there", func(ctx context.Context) error {
			_, err := b.RevokeUser(ctx, &synmeshv1.RevokeUserRequest{Name: "ada", Reason: "left"})
			return err
		}, codes.NotFound, "user ada"},
		{"the last admin", func(ctx context.Context) error {
			_, err := b.RevokeUser(ctx, &synmeshv1.RevokeUserRequest{Name: "root", Reason: "left"})
			return err
		}, codes.FailedPrecondition, "create another first"},
		{"a page of tokens after what is no ID", func(ctx context.Context) error {
			_, err := b.ListTokens(ctx, &synmeshv1.ListTokensRequest{PageToken: "xyz"})
			return err
		}, codes.InvalidArgument, "not the ID of a token"},
		{"a page of the audit log after what is no number", func(ctx context.Context) error {
			_, err := b.ListAuditEntries(ctx, &synmeshv1.ListAuditEntriesRequest{PageToken: "18446744073709551616"})
			return err
		}, codes.InvalidArgument, "not the number of an entry"},
	} {
		t.Run(tt.name, func(t *testing.T) { wantStatus(t, tt.call(t.Context()), tt.code, tt.words) })
	}
	b.wantActs()
}

func TestATokenIsListedUntilItIsOfNoUse(t *testing.T) {
	b := serve(t, &keys{})
	made, err := b.CreateToken(t.Context(), &synmeshv1.CreateTokenRequest{Agent: "fra-1", Ttl: durationpb.New(7 * 24 * time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := identity.ParseToken(made.GetText()); err != nil {
		t.Error(err)
	}
	if life := made.GetToken().GetExpireTime().AsTime().Sub(made.GetToken().GetCreateTime().AsTime()); life != 7*24*time.Hour {
		t.Errorf("it lasts %v", life)
	}
	for range 2 { // who asks again is told the same
		if _, err := b.RevokeToken(t.Context(), &synmeshv1.RevokeTokenRequest{Id: made.GetToken().GetId()}); err != nil {
			t.Error(err)
		}
	}
	list, err := b.ListTokens(t.Context(), &synmeshv1.ListTokensRequest{})
	if err != nil || len(list.GetTokens()) != 1 || list.GetTokens()[0].GetRevokeTime() == nil {
		t.Errorf("the tokens are %v, %v", list, err)
	}
	if strings.Contains(list.String(), made.GetText()) {
		t.Error("the list tells the secret")
	}
	b.wantActs("create token agent/fra-1", "revoke token agent/fra-1")
}

// Who was banned has the keys of the gossip, whatever becomes of the ban's answer.
func TestABanWhoseKeysCannotBeChangedSaysSo(t *testing.T) {
	k := &keys{err: errors.New("gossip.json: no space left on device")}
	b := serve(t, k)
	b.members.Agent("fra-1")
	ban := &synmeshv1.BanAgentRequest{Agent: "fra-1", Reason: "too loud"}
	_, err := b.BanAgent(t.Context(), ban)
	wantStatus(t, err, codes.Unavailable, "fra-1 is banned, but still has the keys of the gossip; see to the reason, and ban it again: gossip.json")
	members, err := b.ListMembers(t.Context(), &synmeshv1.ListMembersRequest{})
	if err != nil || len(members.GetMembers()) != 1 || members.GetMembers()[0].GetBan().GetReason() != "too loud" {
		t.Errorf("the members are %v, %v", members, err)
	}
	k.err = nil
	if _, err := b.BanAgent(t.Context(), ban); err != nil {
		t.Error(err)
	}
	const why = "user/admin/root: agent fra-1 was banned, and has them"
	if !slices.Equal(k.why, []string{why, why}) {
		t.Errorf("the keys were changed because of %q", k.why)
	}
	b.wantActs("ban agent agent/fra-1", "ban agent agent/fra-1")
}

func TestWhoRotatesTheKeysWaitsForAll(t *testing.T) {
	ended := make(chan struct{})
	b := serve(t, &keys{ended: ended})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := b.RotateGossipKeys(ctx, &synmeshv1.RotateGossipKeysRequest{})
	wantStatus(t, err, codes.Canceled, "")
	// A ban does not wait: the agents may be away.
	b.members.Agent("fra-1")
	if _, err := b.BanAgent(t.Context(), &synmeshv1.BanAgentRequest{Agent: "fra-1", Reason: "too loud"}); err != nil {
		t.Error(err)
	}
	close(ended)
	if resp, err := b.RotateGossipKeys(t.Context(), &synmeshv1.RotateGossipKeysRequest{}); err != nil || resp.GetAgents() != 2 {
		t.Errorf("%v, %v", resp, err)
	}
}

func TestWhoAsksIsToldWhoTheyAre(t *testing.T) {
	b := serve(t, &keys{})
	who := b.members.NewUser("ada", identity.Operator, time.Hour)
	resp, err := synmeshv1.NewIdentityServiceClient(b.as(who)).WhoAmI(t.Context(), &synmeshv1.WhoAmIRequest{})
	if err != nil || resp.GetUri() != who.Identity.URI() || resp.GetRole() != synmeshv1.Role_ROLE_OPERATOR || !resp.GetExpireTime().AsTime().Equal(who.Leaf().NotAfter) {
		t.Errorf("%v, %v", resp, err)
	}
}

// paged is what the lists have in common.
type paged interface{ GetNextPageToken() string }

func TestPagesHaveEverythingOnce(t *testing.T) {
	b := serve(t, &keys{})
	for i := range 5 {
		b.members.Agent(fmt.Sprintf("fra-%d", i)) // with a token
	}
	for i := range 4 {
		b.members.NewUser(fmt.Sprintf("u%d", i), identity.Viewer, 0) // beside root
	}
	var previous string
	for what, tt := range map[string]struct {
		list func(ctx context.Context, after string) (paged, []string, error)
		want int
	}{
		"tokens": {func(ctx context.Context, after string) (paged, []string, error) {
			r, err := b.ListTokens(ctx, &synmeshv1.ListTokensRequest{PageSize: 2, PageToken: after})
			return r, names(r.GetTokens(), (*synmeshv1.Token).GetId), err
		}, 5},
		"members": {func(ctx context.Context, after string) (paged, []string, error) {
			r, err := b.ListMembers(ctx, &synmeshv1.ListMembersRequest{PageSize: 2, PageToken: after})
			return r, names(r.GetMembers(), (*synmeshv1.Member).GetAgent), err
		}, 5},
		"users": {func(ctx context.Context, after string) (paged, []string, error) {
			r, err := b.ListUsers(ctx, &synmeshv1.ListUsersRequest{PageSize: 2, PageToken: after})
			return r, names(r.GetUsers(), (*synmeshv1.User).GetName), err
		}, 5},
		"audit entries": {func(ctx context.Context, after string) (paged, []string, error) {
			r, err := b.ListAuditEntries(ctx, &synmeshv1.ListAuditEntriesRequest{PageSize: 2, PageToken: after})
			for _, e := range r.GetEntries() {
				if e.GetPrevious() != previous && previous != "" {
					t.Errorf("entry %d follows %s, and not %s", e.GetNumber(), e.GetPrevious(), previous)
				}
				previous = e.GetHash()
			}
			if r.GetNextPageToken() == "" && r.GetHeadHash() != previous {
				t.Errorf("the last entry is %s, and the head %s", previous, r.GetHeadHash())
			}
			return r, names(r.GetEntries(), func(e *synmeshv1.AuditEntry) string { return fmt.Sprintf("%04d", e.GetNumber()) }), err
		}, 15},
	} {
		t.Run(what, func(t *testing.T) {
			var all []string
			for after := ""; ; {
				page, found, err := tt.list(t.Context(), after)
				if err != nil || len(found) > 2 {
					t.Fatalf("after %q: %v, %v", after, found, err)
				}
				all = append(all, found...)
				if after = page.GetNextPageToken(); after == "" {
					break
				}
			}
			if len(all) != tt.want || !slices.IsSorted(all) || len(slices.Compact(slices.Clone(all))) != len(all) {
				t.Errorf("got %v, want %d", all, tt.want)
			}
		})
	}
}

func names[T any](list []T, name func(T) string) (names []string) {
	for _, v := range list {
		names = append(names, name(v))
	}
	return names
}
