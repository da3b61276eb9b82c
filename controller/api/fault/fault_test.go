package fault

import (
	"errors"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestFaultsBecomeStatuses(t *testing.T) {
	cause := errors.New("the disk is full")
	tests := []struct {
		name string
		err  error
		code codes.Code
		want string
	}{
		{"a wrong request", Invalid("%q is no selector", "=="), codes.InvalidArgument, `"==" is no selector`},
		{"a system that is not ready", Precondition("nobody matches"), codes.FailedPrecondition, "nobody matches"},
		{"something that is not there", NotFound("no %s", "mesh"), codes.NotFound, "no mesh"},
		{"a cause is part of the words", Unavailable("report %d was not stored (%w)", 3, cause), codes.Unavailable, "report 3 was not stored (the disk is full)"},
		{"a bound that was reached", Exhausted("too fast"), codes.ResourceExhausted, "too fast"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, ok := status.FromError(tt.err)
			if !ok || s.Code() != tt.code || s.Message() != tt.want {
				t.Errorf("got %v, want %v: %s", tt.err, tt.code, tt.want)
			}
		})
	}
}
