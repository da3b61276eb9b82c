// Package fault is the one place where what went wrong in the controller
// becomes a gRPC status. A service returns one of these, with words that say
// what to do next; any other error reaches the client as it is, as Unknown.
package fault

import (
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Invalid says that the request is wrong and will be wrong again.
func Invalid(format string, args ...any) error { return with(codes.InvalidArgument, format, args) }

// Precondition says that the request is right and the system is not ready for
// it: nobody matches, say.
func Precondition(format string, args ...any) error {
	return with(codes.FailedPrecondition, format, args)
}

// Unavailable says that the same request may do better later.
func Unavailable(format string, args ...any) error { return with(codes.Unavailable, format, args) }

// Exhausted says that a bound was reached that protects the controller.
func Exhausted(format string, args ...any) error { return with(codes.ResourceExhausted, format, args) }

func with(code codes.Code, format string, args []any) error {
	return status.Error(code, fmt.Errorf(format, args...).Error())
}
