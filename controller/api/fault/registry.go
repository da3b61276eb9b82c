package fault

import (
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/synmesh/synmesh/controller/registry"
	"github.com/synmesh/synmesh/internal/identity"
)

// again is the time in which somebody who is banned may ask again, so that an unban
// is noticed.
const again = 4 * time.Second

// Stranger says that nobody knows who calls, or that what they show has expired.
func Stranger(err error) error { return status.Error(codes.Unauthenticated, err.Error()) }

// Forbidden says that who calls must not do it.
func Forbidden(format string, args ...any) error { return with(codes.PermissionDenied, format, args) }

// Superseded says that there is a newer certificate, or session, of the one who calls. If
// it has not got that itself, somebody else has a copy of its key.
func Superseded(format string, args ...any) error { return with(codes.Aborted, format, args) }

// Refused is what the one who calls is told whom the registry does not let in.
func Refused(id identity.Identity, err error) error {
	switch {
	case errors.Is(err, registry.ErrSuperseded) && id.Kind == identity.Agent:
		return Superseded("%w", err)
	case errors.Is(err, registry.ErrBanned):
		return Later(Forbidden("%w", err), again)
	}
	return Forbidden("%w", err)
}

// Registry is what the one who calls is told when the registry does not do what they ask.
func Registry(err error) error {
	is := func(targets ...error) bool {
		for _, target := range targets {
			if errors.Is(err, target) {
				return true
			}
		}
		return false
	}
	switch {
	case is(registry.ErrInvalid):
		return Invalid("%w", err)
	case is(registry.ErrNotFound):
		return NotFound("%w", err)
	case is(registry.ErrTooMany):
		return Exhausted("%w", err)
	case is(registry.ErrExists, registry.ErrLastAdmin, registry.ErrOwnPKI, registry.ErrBanned, registry.ErrLocked, registry.ErrTokenUsed):
		return Precondition("%w", err)
	case is(registry.ErrTokenUnknown, registry.ErrTokenExpired, registry.ErrTokenRevoked, registry.ErrTokenName,
		registry.ErrUnknown, registry.ErrRevoked, registry.ErrSuperseded):
		return Forbidden("%w", err)
	}
	return Unavailable("%w", err)
}
