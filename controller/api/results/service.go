// Package results serves ResultService: what was measured.
package results

import (
	"context"
	"fmt"
	"iter"
	"math"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/synmesh/synmesh/controller/api/fault"
	"github.com/synmesh/synmesh/controller/fleet"
	"github.com/synmesh/synmesh/controller/history"
	"github.com/synmesh/synmesh/internal/convert"
	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// History reads reports back; see history.Store.
type History interface {
	Scan(ctx context.Context, from, to time.Time, after history.Cursor) iter.Seq2[history.Entry, error]
}

const (
	usualPage   = 1000
	maxPage     = 960 << 10       // bytes; messages have 1 MiB at most
	usualLook   = time.Hour       // of ListResults
	usualWindow = 5 * time.Minute // of Matrix
)

type service struct {
	synmeshv1.UnimplementedResultServiceServer
	history History
	fleet   *fleet.Fleet
}

// Register adds the service to a server.
func Register(r grpc.ServiceRegistrar, h History, f *fleet.Fleet) {
	synmeshv1.RegisterResultServiceServer(r, &service{history: h, fleet: f})
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
	from, end := now.Add(-usualLook), now
	if req.GetStartTime() != nil {
		from = req.GetStartTime().AsTime()
	}
	if req.GetEndTime() != nil {
		end = req.GetEndTime().AsTime()
	}
	if end.Before(from) {
		return place{}, fault.Invalid("start_time %s is after end_time %s", from.UTC().Format(time.RFC3339), end.UTC().Format(time.RFC3339))
	}
	return place{from: nanoseconds(from), end: nanoseconds(end)}, nil
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
func (s *service) ListResults(ctx context.Context, req *synmeshv1.ListResultsRequest) (*synmeshv1.ListResultsResponse, error) {
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
	for entry, err := range s.history.Scan(ctx, time.Unix(0, p.from), time.Unix(0, p.end), nil) {
		if err != nil {
			return nil, fault.Unavailable("%w", err)
		}
		at := place{from: entry.Stored.UnixNano(), end: p.end}
		for r := range rows(&entry, req) {
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

// rows returns the results of an entry that are asked for.
func rows(e *history.Entry, req *synmeshv1.ListResultsRequest) iter.Seq[*probe.Result] {
	return func(yield func(*probe.Result) bool) {
		if req.GetAgent() != "" && e.Agent != req.GetAgent() {
			return
		}
		wanted := &synmeshv1.Report{}
		for _, b := range e.Report.GetBlocks() {
			if (req.GetSource() == "" || b.GetSource() == req.GetSource()) && (req.GetTarget() == "" || b.GetTarget() == req.GetTarget()) {
				wanted.Blocks = append(wanted.Blocks, b)
			}
		}
		convert.Rows(e.Agent, wanted)(yield)
	}
}
