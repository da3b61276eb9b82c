package web

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/synmesh/synmesh/controller/api/access"
	"github.com/synmesh/synmesh/controller/api/fault"
	"github.com/synmesh/synmesh/controller/web/gateway/synmesh/v1"
	"github.com/synmesh/synmesh/internal/identity"
)

// routes returns the handler of everything.
func (s *Server) routes() (*guarded, error) {
	api, err := s.gateway()
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("/", api)
	mux.HandleFunc("GET "+access.Metrics, s.metrics)
	// A browser shows its user's certificate whatever page asks.
	foreign := http.NewCrossOriginProtection()
	foreign.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, fault.Forbidden("a page of another origin has asked for this"))
	}))
	return &guarded{identity: s.cfg.Identity, next: foreign.Handler(mux), bodyWithin: bodyWithin, takeWithin: takeWithin}, nil
}

// metrics asks the guard itself, for this is no method of gRPC.
func (s *Server) metrics(w http.ResponseWriter, r *http.Request) {
	p, err := visitorOf(r, s.cfg.Identity)
	if err == nil {
		err = s.cfg.Check(identity.WithPeer(r.Context(), p), access.Metrics)
	}
	if err != nil {
		refuse(w, err)
		return
	}
	s.cfg.Metrics.ServeHTTP(w, r)
}

// gateway returns the handler of the API.
func (s *Server) gateway() (http.Handler, error) {
	nothing := func(string) (string, bool) { return "", false }
	mux := runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, form),
		runtime.SetQueryParameterParser(strict{}),
		runtime.WithErrorHandler(func(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, _ *http.Request, err error) {
			refuse(w, err)
		}),
		runtime.WithRoutingErrorHandler(misrouted),
		runtime.WithIncomingHeaderMatcher(nothing), runtime.WithOutgoingHeaderMatcher(nothing), runtime.WithOutgoingTrailerMatcher(nothing),
		runtime.WithDisablePathLengthFallback(), runtime.WithDisableHTTPMethodOverride(),
	)
	for _, register := range []func(context.Context, *runtime.ServeMux, *grpc.ClientConn) error{
		synmeshv1.RegisterFleetServiceHandler, synmeshv1.RegisterIdentityServiceHandler, synmeshv1.RegisterMeasurementServiceHandler,
		synmeshv1.RegisterResultServiceHandler, synmeshv1.RegisterRunServiceHandler,
	} {
		if err := register(context.Background(), mux, s.conn); err != nil {
			return nil, err
		}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, err := visitorOf(r, s.cfg.Identity)
		if err != nil {
			refuse(w, stranger(err))
			return
		}
		if !utf8.ValidString(r.URL.Path) {
			refuse(w, fault.Invalid("the path is no UTF-8"))
			return
		}
		ctx, release := s.cfg.Relay.As(r.Context(), p)
		defer release()
		r = r.WithContext(ctx)
		r.Header = http.Header{} // it says nothing that is asked for
		mux.ServeHTTP(w, r)
	}), nil
}

// json is how messages are written: as protojson does, in lowerCamelCase, and what is
// empty is there, too.
type json struct{ *runtime.JSONPb }

var form = json{&runtime.JSONPb{MarshalOptions: protojson.MarshalOptions{EmitDefaultValues: true}}}

// StreamContentType implements runtime.StreamContentType: a message is a line.
func (json) StreamContentType(any) string { return "application/x-ndjson" }

// strict reads the fields of a request from the query string. What is none is refused.
type strict struct{}

// Parse implements runtime.QueryParameterParser.
func (strict) Parse(m proto.Message, values url.Values, filter *utilities.DoubleArray) error {
	for name, texts := range values {
		if slices.ContainsFunc(texts, func(text string) bool { return !utf8.ValidString(text) }) {
			return fmt.Errorf("the value of %.80q in the query string is no UTF-8", name)
		}
		if !hasField(m.ProtoReflect().Descriptor(), name) {
			return fmt.Errorf("the query string has %.80q, which is no field of %s", name, m.ProtoReflect().Descriptor().Name())
		}
	}
	return (&runtime.DefaultQueryParser{}).Parse(m, values, filter)
}

// hasField tells whether a path such as filter.agents leads to a field.
func hasField(in protoreflect.MessageDescriptor, path string) bool {
	for name := range strings.SplitSeq(path, ".") {
		if in == nil {
			return false
		}
		field := in.Fields().ByJSONName(name)
		if field == nil {
			field = in.Fields().ByName(protoreflect.Name(name))
		}
		if field == nil {
			return false
		}
		in = field.Message()
	}
	return true
}

// misrouted answers where there is nothing.
func misrouted(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, code int) {
	switch code {
	case http.StatusNotFound:
		refuse(w, status.Errorf(codes.NotFound, "there is nothing at %.200q", r.URL.Path))
	case http.StatusMethodNotAllowed:
		answer(w, code, status.Newf(codes.Unimplemented, "%.200q is there, but not for %.20q", r.URL.Path, r.Method))
	default:
		answer(w, code, status.New(codes.InvalidArgument, http.StatusText(code)))
	}
}
