package access

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/synmesh/synmesh/internal/identity"
)

// nobodys is a registry that must not be asked.
type nobodys struct{ *testing.T }

func (n nobodys) Allowed(identity.Identity, identity.KeyHash) error {
	n.Error("the registry was asked")
	return nil
}

func (n nobodys) Admit(identity.Identity, identity.KeyHash) error {
	return n.Allowed(identity.Identity{}, identity.KeyHash{})
}

func (n nobodys) Changed() <-chan struct{} { return nil }

func TestWhatHasNoRuleIsRefusedToEverybody(t *testing.T) {
	g := New(nobodys{t}, slog.New(slog.DiscardHandler))
	next := func(context.Context, any) (any, error) { return nil, errors.New("it was called") }
	_, err := g.Unary(t.Context(), nil, &grpc.UnaryServerInfo{FullMethod: "/synmesh.v1.New/Method"}, next)
	if s := status.Convert(err); s.Code() != codes.PermissionDenied || s.Message() != "/synmesh.v1.New/Method: nobody may call it" {
		t.Errorf("got %v", err)
	}
}

func TestACallWithoutTLSIsRefused(t *testing.T) {
	g := New(nobodys{t}, slog.New(slog.DiscardHandler))
	next := func(context.Context, any) (any, error) { return nil, errors.New("it was called") }
	for _, method := range []string{"/synmesh.v1.IdentityService/WhoAmI", "/synmesh.v1.EnrolmentService/Renew"} {
		_, err := g.Unary(t.Context(), nil, &grpc.UnaryServerInfo{FullMethod: method}, next)
		if status.Code(err) != codes.Unauthenticated {
			t.Errorf("%s: %v", method, err)
		}
	}
	if err := g.Admit(t.Context(), "fra-1"); status.Code(err) != codes.Unauthenticated {
		t.Errorf("Admit: %v", err)
	}
}

func TestEachRoleMayDoWhatTheLesserOnesMay(t *testing.T) {
	for r := anybody; r <= admins; r++ {
		may := false
		for role := identity.Viewer; role <= identity.Admin; role++ {
			now := r.lets(identity.Identity{Kind: identity.User, Role: role})
			if may && !now {
				t.Errorf("what is for %v is for lesser roles and not for %v", r, role)
			}
			may = now
		}
	}
	if rule(0).lets(identity.Identity{Kind: identity.User, Role: identity.Admin}) {
		t.Error("a rule that is none lets somebody through")
	}
}
