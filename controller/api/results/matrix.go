package results

import (
	"context"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/synmesh/synmesh/controller/api/fault"
	"github.com/synmesh/synmesh/internal/selector"
	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// pair is the place of a cell.
type pair struct{ row, column string }

// maxSummed is how many results a matrix sums up: each takes 8 bytes, and the
// window is the client's choice.
const maxSummed = 10_000_000

// Matrix implements synmeshv1.ResultServiceServer. Agents are grouped by the
// labels that they have now.
func (s *service) Matrix(ctx context.Context, req *synmeshv1.MatrixRequest) (*synmeshv1.MatrixResponse, error) {
	window := usualWindow
	if req.GetWindow() != nil {
		window = req.GetWindow().AsDuration()
	}
	groupOf := make(map[string]string)
	for _, a := range s.fleet.Agents(selector.Selector{}) {
		if g, ok := a.Labels[req.GetGroupBy()]; ok {
			groupOf[a.Name] = g
		}
	}
	if len(groupOf) == 0 {
		return nil, fault.Precondition("no agent has the label %q; see probectl get agents", req.GetGroupBy())
	}
	now := time.Now()
	cells, summed := make(map[pair]*probe.Summary), 0
	filter := &synmeshv1.ListResultsRequest{Source: req.GetSource()}
	for entry, err := range s.history.Scan(ctx, now.Add(-window), now, nil) {
		if err != nil {
			return nil, fault.Unavailable("%w", err)
		}
		row, ok := groupOf[entry.Agent]
		if !ok {
			continue
		}
		for r := range rows(&entry, filter) {
			column, ok := groupOf[r.Target]
			if !ok {
				continue
			}
			if summed++; summed > maxSummed {
				return nil, fault.Exhausted("there are more than %d results in %v; ask for a shorter window", maxSummed, window)
			}
			at := pair{row, column}
			if cells[at] == nil {
				cells[at] = &probe.Summary{}
			}
			cells[at].Add(r)
		}
	}
	return matrix(groupOf, cells), nil
}

// matrix lays the cells out, in order.
func matrix(groupOf map[string]string, cells map[pair]*probe.Summary) *synmeshv1.MatrixResponse {
	resp := &synmeshv1.MatrixResponse{Groups: slices.Compact(slices.Sorted(maps.Values(groupOf)))}
	for _, row := range resp.Groups {
		for _, column := range resp.Groups {
			s := cells[pair{row, column}]
			if s == nil {
				continue
			}
			resp.Cells = append(resp.Cells, &synmeshv1.MatrixCell{
				Row: row, Column: column, Sent: int64(s.Sent()), Open: int64(s.Count(probe.Open)), Loss: s.Loss(),
				Min: durationpb.New(s.Quantile(0)), P50: durationpb.New(s.Quantile(0.5)),
				P99: durationpb.New(s.Quantile(0.99)), Max: durationpb.New(s.Quantile(1)),
			})
		}
	}
	return resp
}
