package web

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/synmesh/synmesh/controller/api/fault"
	"github.com/synmesh/synmesh/internal/identity"
)

// stranger is what somebody is told who shows no certificate that is good.
func stranger(err error) error {
	if errors.Is(err, identity.ErrNoCertificate) {
		return fault.Stranger(errors.New("no certificate was shown; show one of the fleet, as in curl --cert FILE --key FILE"))
	}
	return fault.Stranger(err)
}

// refuse answers with an error as google.rpc.Status, under the code of HTTP that fits.
func refuse(w http.ResponseWriter, err error) {
	var known *runtime.HTTPStatusError
	if errors.As(err, &known) {
		answer(w, known.HTTPStatus, status.Convert(known.Err))
		return
	}
	s := status.Convert(err)
	answer(w, runtime.HTTPStatusFromCode(s.Code()), s)
}

func answer(w http.ResponseWriter, code int, s *status.Status) {
	text, err := form.Marshal(s.Proto())
	if err != nil { // of details that are not known here
		text, _ = form.Marshal(status.New(s.Code(), s.Message()).Proto())
	}
	h := w.Header()
	h.Del("Transfer-Encoding")
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(text)+1))
	if later, ok := retryAfter(s); ok {
		h.Set("Retry-After", strconv.Itoa(int(later.Round(time.Second)/time.Second)))
	}
	if s.Code() == codes.Unauthenticated {
		h.Set("Connection", "close") // another certificate takes another connection
	}
	w.WriteHeader(code)
	_, _ = w.Write(append(text, '\n')) // who does not read it has gone
}

// retryAfter returns when to ask again, if the status says so.
func retryAfter(s *status.Status) (time.Duration, bool) {
	for _, d := range s.Details() {
		if r, ok := d.(*errdetails.RetryInfo); ok {
			return max(time.Second, r.GetRetryDelay().AsDuration()), true
		}
	}
	return 0, false
}
