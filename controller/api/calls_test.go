package api

import (
	"context"
	"errors"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/synmesh/synmesh/controller/api/fault"
)

func TestCallsAreCountedByHowTheyEnd(t *testing.T) {
	c := &calls{}
	end := func(err error) {
		_, _ = c.unary(t.Context(), nil, &grpc.UnaryServerInfo{FullMethod: "/a"}, func(context.Context, any) (any, error) { return nil, err })
		_ = c.stream(nil, nil, &grpc.StreamServerInfo{FullMethod: "/b"}, func(any, grpc.ServerStream) error { return err })
	}
	for _, err := range []error{nil, nil, fault.Forbidden("no"), context.Canceled, errors.New("unlike any other")} {
		end(err)
	}
	got := (&Server{calls: c}).Calls()
	for _, method := range []string{"/a", "/b"} {
		for code, n := range map[codes.Code]uint64{codes.OK: 2, codes.PermissionDenied: 1, codes.Canceled: 1, codes.Unknown: 1} {
			if got[Call{method, code}] != n {
				t.Errorf("%s, %v: %d, want %d", method, code, got[Call{method, code}], n)
			}
		}
	}
	if len(got) != 8 {
		t.Errorf("got %v", got)
	}
}
