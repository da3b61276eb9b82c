// Package measurements serves MeasurementService: what the fleet measures by itself.
package measurements

import (
	"context"
	"errors"
	"sort"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/synmesh/synmesh/controller/api/fault"
	"github.com/synmesh/synmesh/controller/catalogue"
	"github.com/synmesh/synmesh/controller/fleet"
	"github.com/synmesh/synmesh/controller/plan"
	"github.com/synmesh/synmesh/internal/identity"
	"github.com/synmesh/synmesh/internal/measurement"
	"github.com/synmesh/synmesh/internal/selector"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

const usualPage = 100

// maxPageBytes bounds the measurements of a page, whatever the client asks for:
// a message is no larger than 4 MiB unless both sides agree.
const maxPageBytes = 2 << 20

// Config has no optional fields.
type Config struct {
	Catalogue *catalogue.Catalogue
	// Plan returns the plan as it is carried out.
	Plan  func() *plan.Plan
	Fleet *fleet.Fleet
}

type service struct {
	synmeshv1.UnimplementedMeasurementServiceServer
	Config
}

// Register adds the service to a server.
func Register(r grpc.ServiceRegistrar, c Config) {
	synmeshv1.RegisterMeasurementServiceServer(r, &service{Config: c})
}

// ApplyMeasurements implements synmeshv1.MeasurementServiceServer.
func (s *service) ApplyMeasurements(ctx context.Context, req *synmeshv1.ApplyMeasurementsRequest) (*synmeshv1.ApplyMeasurementsResponse, error) {
	var changes []catalogue.Change
	var err error
	if req.GetValidateOnly() {
		changes, err = s.Catalogue.Compare(req.GetMeasurements(), req.GetPrune())
	} else {
		changes, err = s.Catalogue.Apply(ctx, actor(ctx), req.GetMeasurements(), req.GetPrune())
	}
	if err != nil {
		return nil, failed(err)
	}
	resp := &synmeshv1.ApplyMeasurementsResponse{}
	for _, c := range changes {
		resp.Changes = append(resp.Changes, &synmeshv1.MeasurementChange{Name: c.Name(), Action: action(c), Before: c.Before, After: c.After})
	}
	return resp, nil
}

func action(c catalogue.Change) synmeshv1.MeasurementAction {
	switch {
	case c.Before == nil:
		return synmeshv1.MeasurementAction_MEASUREMENT_ACTION_CREATED
	case c.After == nil:
		return synmeshv1.MeasurementAction_MEASUREMENT_ACTION_REMOVED
	case c.Same():
		return synmeshv1.MeasurementAction_MEASUREMENT_ACTION_UNCHANGED
	}
	return synmeshv1.MeasurementAction_MEASUREMENT_ACTION_CHANGED
}

// ListMeasurements implements synmeshv1.MeasurementServiceServer. A page token
// is the name of the last measurement of the page before.
func (s *service) ListMeasurements(_ context.Context, req *synmeshv1.ListMeasurementsRequest) (*synmeshv1.ListMeasurementsResponse, error) {
	all, err := s.Catalogue.All()
	if err != nil {
		return nil, failed(err)
	}
	size := int(req.GetPageSize())
	if size == 0 {
		size = usualPage
	}
	p, refused := s.Plan(), s.refused()
	resp := &synmeshv1.ListMeasurementsResponse{}
	bytes := 0
	from := sort.Search(len(all), func(i int) bool { return all[i].GetName() > req.GetPageToken() })
	for i, e := range all[from:] {
		bytes += proto.Size(e.Measurement)
		if i > 0 && (i == size || bytes > maxPageBytes) {
			resp.NextPageToken = all[from+i-1].GetName()
			break
		}
		resp.Measurements = append(resp.Measurements, stored(e, p, refused))
	}
	return resp, nil
}

// GetMeasurement implements synmeshv1.MeasurementServiceServer.
func (s *service) GetMeasurement(_ context.Context, req *synmeshv1.GetMeasurementRequest) (*synmeshv1.GetMeasurementResponse, error) {
	all, err := s.Catalogue.All()
	if err != nil {
		return nil, failed(err)
	}
	for _, e := range all {
		if e.GetName() == req.GetName() {
			return &synmeshv1.GetMeasurementResponse{Measurement: stored(e, s.Plan(), s.refused())}, nil
		}
	}
	return nil, fault.NotFound("measurement %q: %w", req.GetName(), catalogue.ErrNotFound)
}

// maxRefusals is how many agents are named that refuse a measurement.
const maxRefusals = 10

// refused returns what connected agents refuse to do, by its source.
func (s *service) refused() map[string][]*synmeshv1.MeasurementRefusal {
	found := make(map[string][]*synmeshv1.MeasurementRefusal)
	for _, a := range s.Fleet.Agents(selector.Selector{}) {
		for _, r := range a.Refused {
			if a.State == fleet.Connected {
				found[r.GetSource()] = append(found[r.GetSource()], &synmeshv1.MeasurementRefusal{Agent: a.Name, Reason: r.GetReason()})
			}
		}
	}
	return found
}

func stored(e catalogue.Entry, p *plan.Plan, refused map[string][]*synmeshv1.MeasurementRefusal) *synmeshv1.StoredMeasurement {
	st, refusals := p.Status(e.GetName()), refused[measurement.Prefix+e.GetName()]
	return &synmeshv1.StoredMeasurement{Measurement: e.Measurement, Status: &synmeshv1.MeasurementStatus{
		ReadOnly: e.ReadOnly, Expired: e.GetExpireTime() != nil && !time.Now().Before(e.GetExpireTime().AsTime()),
		Agents: int32(st.Agents), Pairs: int64(st.Pairs), PossiblePairs: int64(st.PossiblePairs),
		Rate: st.Rate, MaxAgentRate: st.MaxAgentRate, MaxTargetRate: st.MaxTargetRate,
		RefusingAgents: int32(len(refusals)), Refusals: refusals[:min(len(refusals), maxRefusals)],
	}}
}

// DeleteMeasurements implements synmeshv1.MeasurementServiceServer.
func (s *service) DeleteMeasurements(ctx context.Context, req *synmeshv1.DeleteMeasurementsRequest) (*synmeshv1.DeleteMeasurementsResponse, error) {
	if err := s.Catalogue.Delete(ctx, actor(ctx), req.GetNames()); err != nil {
		return nil, failed(err)
	}
	return &synmeshv1.DeleteMeasurementsResponse{}, nil
}

// GetTimetable implements synmeshv1.MeasurementServiceServer.
func (s *service) GetTimetable(_ context.Context, req *synmeshv1.GetTimetableRequest) (*synmeshv1.GetTimetableResponse, error) {
	table, known := s.Plan().Table(req.GetAgent())
	if !known {
		return nil, fault.NotFound("agent %q: no such agent; see probectl get agents", req.GetAgent())
	}
	return &synmeshv1.GetTimetableResponse{Timetable: table.Message()}, nil
}

// actor returns who calls; nobody, where access lets everybody in, as in tests.
func actor(ctx context.Context) identity.Identity {
	p, err := identity.FromContext(ctx)
	if err != nil {
		return identity.Identity{}
	}
	return p.Identity
}

func failed(err error) error {
	switch {
	case errors.Is(err, catalogue.ErrInvalid):
		return fault.Invalid("%w", err)
	case errors.Is(err, catalogue.ErrNotFound):
		return fault.NotFound("%w", err)
	case errors.Is(err, catalogue.ErrReadOnly), errors.Is(err, catalogue.ErrNoStore):
		return fault.Precondition("%w", err)
	}
	return fault.Unavailable("%w", err)
}
