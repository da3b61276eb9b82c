package results

import (
	"context"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/synmesh/synmesh/controller/api/fault"
	"github.com/synmesh/synmesh/controller/history"
	"github.com/synmesh/synmesh/controller/history/rollup"
	"github.com/synmesh/synmesh/internal/selector"
	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// ahead is by how much agents' clocks may be ahead of ours, and their results still be in the window.
const ahead = time.Minute

// pair is the place of a cell.
type pair struct{ row, column string }

// Matrix implements synmeshv1.ResultServiceServer. Agents are grouped by the
// labels that they have now. An answer may be a second old.
func (s *Service) Matrix(ctx context.Context, req *synmeshv1.MatrixRequest) (*synmeshv1.MatrixResponse, error) {
	question, err := proto.MarshalOptions{Deterministic: true}.Marshal(req)
	if err != nil {
		return nil, fault.Invalid("the request cannot be written: %w", err)
	}
	return s.matrices.get(ctx, string(question), func() (*synmeshv1.MatrixResponse, error) { return s.matrix(ctx, req) })
}

func (s *Service) matrix(ctx context.Context, req *synmeshv1.MatrixRequest) (*synmeshv1.MatrixResponse, error) {
	window := usualWindow
	if req.GetWindow() != nil {
		window = req.GetWindow().AsDuration()
	}
	rowOf, err := s.groups(req.GetGroupBy())
	if err != nil {
		return nil, err
	}
	columnOf := rowOf
	if req.GetColumnsBy() != "" {
		if columnOf, err = s.groups(req.GetColumnsBy()); err != nil {
			return nil, err
		}
	}
	end, err := s.turn(ctx)
	if err != nil {
		return nil, failed(ctx, err)
	}
	defer end()
	now := time.Now()
	answers, err := s.history.Query(ctx, history.Query{Source: req.GetSource(), From: now.Add(-window), To: now.Add(ahead),
		Group: func(id history.Series) (cell history.Series, ok bool) {
			row, known := rowOf[id.Agent]
			column, too := columnOf[id.Target]
			return history.Series{Agent: row, Target: column}, known && too
		}})
	if err != nil {
		return nil, failed(ctx, err)
	}
	cells := make(map[pair]*rollup.Summary, len(answers))
	for _, a := range answers {
		cells[pair{a.Agent, a.Target}] = a.Steps[0]
	}
	resp := newMatrix(values(rowOf), values(columnOf), cells)
	if size := proto.Size(resp); size > maxMessage {
		return nil, fault.Exhausted("%d cells take %d bytes, and a message has %d at most; group by a label of fewer values", len(cells), size, maxMessage)
	}
	return resp, nil
}

// groups returns the group of every agent that has the label; by the key of selectors that
// stands for the name, each is its own.
func (s *Service) groups(label string) (map[string]string, error) {
	groupOf := make(map[string]string)
	for name, labels := range s.labels() {
		if group, ok := labels[label]; ok {
			groupOf[name] = group
		} else if label == selector.NameKey {
			groupOf[name] = name
		}
	}
	if len(groupOf) == 0 {
		return nil, fault.Precondition("no agent has the label %q; see probectl get agents", label)
	}
	return groupOf, nil
}

func values(groupOf map[string]string) []string {
	return slices.Compact(slices.Sorted(maps.Values(groupOf)))
}

// newMatrix lays the cells out, in order.
func newMatrix(rows, columns []string, cells map[pair]*rollup.Summary) *synmeshv1.MatrixResponse {
	resp := &synmeshv1.MatrixResponse{Groups: rows, Columns: columns}
	for _, row := range rows {
		for _, column := range columns {
			s := cells[pair{row, column}]
			if s == nil {
				continue
			}
			resp.Cells = append(resp.Cells, &synmeshv1.MatrixCell{
				Row: row, Column: column, Sent: int64(s.Sent()), Open: int64(s.Counts[probe.Open]), Loss: s.Loss(),
				Min: durationpb.New(s.Quantile(0)), P50: durationpb.New(s.Quantile(0.5)),
				P99: durationpb.New(s.Quantile(0.99)), Max: durationpb.New(s.Quantile(1)),
			})
		}
	}
	return resp
}
