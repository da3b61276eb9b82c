package fault

import (
	"fmt"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/synmesh/synmesh/controller/registry"
	"github.com/synmesh/synmesh/internal/identity"
)

func TestWhatTheRegistryDoesNotDoIsToldByItsCode(t *testing.T) {
	for err, want := range map[error]codes.Code{
		registry.ErrInvalid: codes.InvalidArgument, registry.ErrNotFound: codes.NotFound, registry.ErrTooMany: codes.ResourceExhausted,
		registry.ErrExists: codes.FailedPrecondition, registry.ErrLastAdmin: codes.FailedPrecondition, registry.ErrBanned: codes.FailedPrecondition,
		registry.ErrTokenUsed: codes.FailedPrecondition, registry.ErrTokenExpired: codes.PermissionDenied, registry.ErrDamaged: codes.Unavailable,
	} {
		if got := status.Convert(Registry(fmt.Errorf("agent a: %w", err))); got.Code() != want || got.Message() != "agent a: "+err.Error() {
			t.Errorf("%v becomes %v", err, got)
		}
	}
}

func TestWhoIsRefusedIsToldWhatToDo(t *testing.T) {
	agent, user := identity.Identity{Kind: identity.Agent}, identity.Identity{Kind: identity.User}
	for _, tt := range []struct {
		name string
		id   identity.Identity
		err  error
		want codes.Code
	}{
		{"an agent with a certificate that is not the newest should renew it", agent, registry.ErrSuperseded, codes.Aborted},
		{"a person who was made anew cannot", user, registry.ErrSuperseded, codes.PermissionDenied},
		{"a banned agent comes again", agent, registry.ErrBanned, codes.PermissionDenied},
		{"a locked one waits longer", agent, registry.ErrLocked, codes.PermissionDenied},
	} {
		s := status.Convert(Refused(tt.id, fmt.Errorf("who: %w", tt.err)))
		if s.Code() != tt.want {
			t.Errorf("%s: %v", tt.name, s)
		}
		told := false
		for _, d := range s.Details() {
			_, told = d.(*errdetails.RetryInfo)
		}
		if told != (tt.err == registry.ErrBanned) {
			t.Errorf("%s: it is told when to come again: %v", tt.name, told)
		}
	}
}
