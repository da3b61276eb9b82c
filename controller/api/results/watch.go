package results

import (
	"context"
	"time"

	"google.golang.org/grpc"

	"github.com/synmesh/synmesh/controller/api/fault"
	"github.com/synmesh/synmesh/controller/history"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

const (
	// beat is how long a watcher hears nothing at most.
	beat = 10*time.Second - sayWithin/2
	// rest is the shortest time between two looks at what is new, however many commits there are.
	rest = 5 * time.Millisecond
	// choiceHolds is how long a selection by labels is good for, if these change.
	choiceHolds = time.Second
)

// Watch implements synmeshv1.ResultServiceServer. The disk is the queue: a watcher reads what was stored
// since it last looked, and waits for more.
func (s *Service) Watch(req *synmeshv1.WatchRequest, stream grpc.ServerStreamingServer[synmeshv1.WatchResponse]) error {
	wanted, err := s.newSelection(req.GetFilter())
	if err != nil {
		return err
	}
	from := mark{s.history.Latest(), allRows}
	if req.GetCursor() != "" {
		if from, err = s.resume(req.GetCursor()); err != nil {
			return err
		}
	}
	r := &reader{history: s.history, send: func(results []*synmeshv1.Result, from, to mark) error {
		return stream.Send(&synmeshv1.WatchResponse{Results: results, Cursor: to.String(), Gap: !s.history.Whole(from.entry, to.entry)})
	}}
	r.begin(from, wanted)
	if req.GetCursor() == "" {
		if err := r.say(); err != nil { // so that who goes before the first result can come back
			return err
		}
	}
	return s.follow(stream.Context(), r, req.GetFilter())
}

// resume understands a cursor.
func (s *Service) resume(cursor string) (mark, error) {
	m, err := parseMark(cursor)
	if err == nil && m.entry.Compare(s.history.Latest()) > 0 {
		err = fault.Precondition("cursor %q is of %s, and this history ends before that; it was set back, or is another: begin without a cursor",
			cursor, m.entry.Stored().Format(time.RFC3339Nano))
	}
	return m, err
}

// follow gives what is new whenever there is something, until the client or the controller goes.
func (s *Service) follow(ctx context.Context, r *reader, filter *synmeshv1.SeriesFilter) error {
	var fleet <-chan struct{} // closed when the labels may be others; nil when they are to be looked at
	var chosen time.Time
	tick := time.NewTimer(beat)
	defer tick.Stop()
	for {
		stored, began := s.history.Changed(), time.Now()
		if fleet == nil {
			fleet, chosen = s.fleet.Changed(), began
			wanted, err := s.newSelection(filter)
			if err != nil {
				return err
			}
			r.choose(wanted)
		}
		if err := r.readTo(ctx, s.history.Latest()); err != nil {
			return err
		}
		tick.Reset(time.Until(r.said.Add(beat)))
		select {
		case <-stored:
		case <-tick.C:
			if err := r.say(); err != nil {
				return err
			}
		case <-s.ending:
			return fault.Unavailable("the controller is stopping; go on from the last cursor later")
		case <-ctx.Done():
		}
		if err := pause(ctx, time.Until(began.Add(rest))); err != nil {
			return failed(ctx, err)
		}
		select {
		case <-fleet:
			if time.Since(chosen) > choiceHolds {
				fleet = nil
			}
		default:
		}
	}
}

// pause waits for some time, if that is left.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Export implements synmeshv1.ResultServiceServer.
func (s *Service) Export(req *synmeshv1.ExportRequest, stream grpc.ServerStreamingServer[synmeshv1.ExportResponse]) error {
	wanted, err := s.newSelection(req.GetFilter())
	if err != nil {
		return err
	}
	start, end, err := span(req.GetStartTime(), req.GetEndTime(), time.Now())
	if err != nil {
		return err
	}
	from := mark{history.CursorAt(start.Add(-1)), allRows}
	if req.GetCursor() != "" {
		if from, err = s.resume(req.GetCursor()); err != nil {
			return err
		}
	}
	last := history.CursorAt(end.Add(-1))
	if latest := s.history.Latest(); latest.Compare(last) < 0 {
		last = latest
	}
	r := &reader{history: s.history, send: func(results []*synmeshv1.Result, _, to mark) error {
		return stream.Send(&synmeshv1.ExportResponse{Results: results, Cursor: to.String()})
	}}
	r.begin(from, wanted)
	if err := r.readTo(stream.Context(), last); err != nil {
		return err
	}
	if r.given.String() == r.done.String() {
		return nil
	}
	return r.say() // to go on from, though nothing was found at the end
}
