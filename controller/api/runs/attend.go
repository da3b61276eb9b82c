package runs

import (
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"

	"github.com/synmesh/synmesh/controller/api/fault"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// firstAttend is how long the first word of Attend may take: a client learns the
// name of its run only from the answer.
const firstAttend = 5 * time.Second

// steps are in which the time is counted that a client is not heard. Where the
// controller itself stands still, or is too busy to hear, few of them pass.
const steps = 8

// attendance is that of a run whose client has promised to attend to it.
type attendance struct {
	within time.Duration
	timer  *time.Timer
	left   int           // steps until the client counts as gone
	missed chan struct{} // closed when it does
}

// attend calls a function if the client is not heard for too long, until leave is
// called. A run does not find out by itself as long as it waits for the client to
// take its results. Without a promise it returns nil.
func (s *service) attend(run string, within time.Duration, missed func()) *attendance {
	if within == 0 {
		return nil
	}
	step := within / steps
	a := &attendance{within: within, left: int(max(within, firstAttend) / step), missed: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	a.timer = time.AfterFunc(step, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		switch a.left--; {
		case s.attended[run] != a || a.left < 0:
		case a.left > 0:
			a.timer.Reset(step)
		default:
			close(a.missed)
			missed()
		}
	})
	s.attended[run] = a
	return a
}

func (s *service) leave(run string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.attended[run]; a != nil {
		a.timer.Stop()
		delete(s.attended, run)
	}
}

// hear notes that somebody waits for a run.
func (s *service) hear(run string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.attended[run]
	if a == nil || a.left <= 0 {
		return false
	}
	a.left = steps
	a.timer.Reset(a.within / steps)
	return true
}

// lost returns why the run ends if its client is gone.
func (a *attendance) lost() error {
	if a == nil {
		return nil
	}
	select {
	case <-a.missed:
		return fault.Abandoned("the run was ended: its client was not heard for %v", a.within)
	default:
		return nil
	}
}

// ended is closed when the client was not heard for too long.
func (a *attendance) ended() <-chan struct{} {
	if a == nil {
		return nil
	}
	return a.missed
}

// Attend implements synmeshv1.RunServiceServer.
func (s *service) Attend(st grpc.ClientStreamingServer[synmeshv1.AttendRequest, synmeshv1.AttendResponse]) error {
	for {
		m, err := st.Recv()
		if errors.Is(err, io.EOF) {
			return st.SendAndClose(&synmeshv1.AttendResponse{})
		}
		if err != nil {
			return err
		}
		if !s.hear(m.GetRun()) {
			return fault.NotFound("%q does not go on, or was begun without attend_within", m.GetRun())
		}
	}
}
