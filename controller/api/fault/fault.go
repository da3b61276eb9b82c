// Package fault is the one place where what went wrong in the controller
// becomes a gRPC status. A service returns one of these, with words that say
// what to do next; any other error reaches the client as it is, as Unknown.
package fault

import (
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Invalid says that the request is wrong and will be wrong again.
func Invalid(format string, args ...any) error { return with(codes.InvalidArgument, format, args) }

// Precondition says that the request is right and the system is not ready for
// it: nobody matches, say.
func Precondition(format string, args ...any) error {
	return with(codes.FailedPrecondition, format, args)
}

// NotFound says that there is nothing of that name.
func NotFound(format string, args ...any) error { return with(codes.NotFound, format, args) }

// Unavailable says that the same request may do better later.
func Unavailable(format string, args ...any) error { return with(codes.Unavailable, format, args) }

// Exhausted says that a bound was reached that protects the controller.
func Exhausted(format string, args ...any) error { return with(codes.ResourceExhausted, format, args) }

// Abandoned says that the one who asked was not heard any more.
func Abandoned(format string, args ...any) error { return with(codes.Aborted, format, args) }

// Later adds to one of these errors when to try again: some time up to within,
// another for everybody who is told.
func Later(err error, within time.Duration) error {
	s, detailErr := status.Convert(err).WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(rand.N(within))})
	if detailErr != nil {
		return err // it says what is wrong all the same
	}
	return s.Err()
}

func with(code codes.Code, format string, args []any) error {
	return status.Error(code, fmt.Errorf(format, args...).Error())
}
