// Package results serves ResultService: what was measured.
package results

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/synmesh/synmesh/controller/api/fault"
	"github.com/synmesh/synmesh/controller/fleet"
	"github.com/synmesh/synmesh/controller/history"
	"github.com/synmesh/synmesh/internal/convert"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// History reads back what was stored; see history.Store.
type History interface {
	ScanSeries(ctx context.Context, f history.Filter, from, to time.Time, after history.Cursor) iter.Seq2[history.Entry, error]
	Query(ctx context.Context, q history.Query) ([]history.Answer, error)
	Changed() <-chan struct{}
	Latest() history.Cursor
	Whole(after, to history.Cursor) bool
}

const (
	usualPage   = 1000
	maxPage     = 960 << 10       // bytes of a page
	maxMessage  = 1 << 20         // of a message
	usualLook   = time.Hour       // of ListResults
	usualWindow = 5 * time.Minute // of Matrix
)

// Service is the service. Call Stop before the server's GracefulStop.
type Service struct {
	synmeshv1.UnimplementedResultServiceServer
	history  History
	fleet    *fleet.Fleet
	asking   chan struct{} // has an entry for each question under way
	matrices shared
	ending   chan struct{}
	stop     sync.Once
}

// Register adds the service to a server.
func Register(r grpc.ServiceRegistrar, h History, f *fleet.Fleet) *Service {
	s := &Service{history: h, fleet: f, asking: make(chan struct{}, maxAsking), ending: make(chan struct{})}
	synmeshv1.RegisterResultServiceServer(r, s)
	return s
}

// Stop sends those away who watch; they go on elsewhere, or later.
func (s *Service) Stop() { s.stop.Do(func() { close(s.ending) }) }

// failed is what the client is told when the history does not answer.
func failed(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return status.FromContextError(ctx.Err()).Err()
	case errors.Is(err, history.ErrInvalid):
		return fault.Invalid("%w", err)
	case errors.Is(err, history.ErrTooLarge):
		return fault.Exhausted("%w", err)
	}
	return fault.Unavailable("%w", err)
}

// place is where a page begins: with the first entry stored at from or later,
// behind so many of its results that match if it was stored just then, looking
// no further than end. Both times are nanoseconds since 1970, and go from page
// to page: those of the first may have been a moment ago.
type place struct{ from, skip, end int64 }

const tokenForm = "%d.%d.%d"

func (p place) token() string { return fmt.Sprintf(tokenForm, p.from, p.skip, p.end) }

func parseToken(token string) (p place, err error) {
	_, err = fmt.Sscanf(token, tokenForm, &p.from, &p.skip, &p.end)
	if err != nil || p.token() != token || p.from < 0 || p.skip < 0 || p.end < p.from {
		return p, fault.Invalid("page token %q is none of ours; use next_page_token as it came", token)
	}
	return p, nil
}

// firstPage returns the place where a request without a token begins.
func firstPage(req *synmeshv1.ListResultsRequest, now time.Time) (place, error) {
	from, end, err := span(req.GetStartTime(), req.GetEndTime(), now)
	return place{from: nanoseconds(from), end: nanoseconds(end)}, err
}

// span returns the time that is asked about, which usually is the last hour.
func span(start, end *timestamppb.Timestamp, now time.Time) (from, to time.Time, err error) {
	from, to = now.Add(-usualLook), now
	if start != nil {
		from = start.AsTime()
	}
	if end != nil {
		to = end.AsTime()
	}
	if to.Before(from) {
		err = fault.Invalid("start_time %s is after end_time %s", from.UTC().Format(time.RFC3339), to.UTC().Format(time.RFC3339))
	}
	return from, to, err
}

// nanoseconds returns the nearest time that can be counted: nothing was stored
// before 1970 nor after 2262.
func nanoseconds(t time.Time) int64 {
	switch {
	case t.Before(time.Unix(0, 0)):
		return 0
	case t.After(time.Unix(0, math.MaxInt64)):
		return math.MaxInt64
	}
	return t.UnixNano()
}

// ListResults implements synmeshv1.ResultServiceServer.
func (s *Service) ListResults(ctx context.Context, req *synmeshv1.ListResultsRequest) (*synmeshv1.ListResultsResponse, error) {
	p, err := firstPage(req, time.Now())
	if req.GetPageToken() != "" {
		p, err = parseToken(req.GetPageToken())
	}
	if err != nil {
		return nil, err
	}
	room := int(req.GetPageSize())
	if room == 0 {
		room = usualPage
	}
	resp, bytes := &synmeshv1.ListResultsResponse{}, 0
	wanted := history.Filter{Source: req.GetSource(), Agent: req.GetAgent(), Target: req.GetTarget()}
	for entry, err := range s.history.ScanSeries(ctx, wanted, time.Unix(0, p.from), time.Unix(0, p.end), nil) {
		if err != nil {
			return nil, failed(ctx, err)
		}
		at := place{from: entry.Stored.UnixNano(), end: p.end}
		for r := range convert.Rows(entry.Agent, entry.Report) {
			if at.from == p.from && at.skip < p.skip {
				at.skip++
				continue
			}
			m := convert.FromResult(r)
			bytes += proto.Size(m) + 4 // and the field's number and length
			if room == 0 || (bytes > maxPage && len(resp.Results) > 0) {
				resp.NextPageToken = at.token()
				return resp, nil
			}
			resp.Results = append(resp.Results, m)
			at.skip++
			room--
		}
	}
	return resp, nil
}
