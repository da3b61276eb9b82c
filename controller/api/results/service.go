// Package results serves ResultService: what was measured.
package results

import (
	"context"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"

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

// place is where a page begins: after an entry, behind so many of the results
// of the next that match, looking no further than a time.
type place struct {
	after history.Cursor
	skip  int
	end   int64 // nanoseconds since 1970
}

func (p place) token() string { return fmt.Sprintf("%s.%d.%d", p.after, p.skip, p.end) }

func parseToken(token string) (p place, err error) {
	after, rest, _ := strings.Cut(token, ".")
	skip, end, _ := strings.Cut(rest, ".")
	p.after, err = history.ParseCursor(after)
	if err == nil {
		p.skip, err = strconv.Atoi(skip)
	}
	if err == nil {
		p.end, err = strconv.ParseInt(end, 10, 64)
	}
	if err != nil || p.skip < 0 {
		return p, fault.Invalid("page token %q is none of ours; use next_page_token as it came", token)
	}
	return p, nil
}

// ListResults implements synmeshv1.ResultServiceServer.
func (s *service) ListResults(ctx context.Context, req *synmeshv1.ListResultsRequest) (*synmeshv1.ListResultsResponse, error) {
	now := time.Now()
	from := now.Add(-usualLook)
	if req.GetStartTime() != nil {
		from = req.GetStartTime().AsTime()
	}
	p := place{end: now.UnixNano()}
	if req.GetEndTime() != nil {
		p.end = req.GetEndTime().AsTime().UnixNano()
	}
	if req.GetPageToken() != "" {
		var err error
		if p, err = parseToken(req.GetPageToken()); err != nil {
			return nil, err
		}
	}
	size := int(req.GetPageSize())
	if size == 0 {
		size = usualPage
	}
	resp := &synmeshv1.ListResultsResponse{}
	for entry, err := range s.history.Scan(ctx, from, time.Unix(0, p.end), p.after) {
		if err != nil {
			return nil, fault.Unavailable("%w", err)
		}
		skip := p.skip
		for r := range rows(&entry, req) {
			if skip > 0 {
				skip--
				continue
			}
			if len(resp.Results) == size {
				resp.NextPageToken = p.token()
				return resp, nil
			}
			resp.Results = append(resp.Results, convert.FromResult(r))
			p.skip++
		}
		p.after, p.skip = entry.Cursor, 0
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
