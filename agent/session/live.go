package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/synmesh/synmesh/agent/spool"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// live is a session that has been welcomed.
type live struct {
	*Config
	stream  stream
	sending sync.Mutex // held to send on the stream
	clock   clock
	soon    chan struct{} // holds one if a heartbeat is due at once
	why     drained       // set before drained is closed
	drained chan struct{} // closed when nothing new is to be sent
}

// serve sends and receives until either ends. It does not return nil.
func (l *live) serve(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	landed := make(chan struct{})
	g.Go(func() error {
		taking, stop := context.WithCancel(ctx)
		defer stop()
		g.Go(func() error {
			select {
			case <-l.drained:
				stop()
			case <-taking.Done():
			}
			return nil
		})
		for {
			m, err := l.Spool.Next(taking)
			if err != nil {
				break
			}
			if err := l.send(func() any { return encoded(m) }); err != nil {
				return err
			}
		}
		if err := l.Spool.Landed(ctx); err != nil {
			return err
		}
		close(landed)
		return nil
	})
	g.Go(func() error { return l.heartbeats(ctx, landed) })
	g.Go(func() error { return l.receive() })
	return g.Wait()
}

// send sends what message returns as soon as it is its turn.
func (l *live) send(message func() any) error {
	l.sending.Lock()
	defer l.sending.Unlock()
	if err := l.stream.SendMsg(message()); err != nil && !errors.Is(err, io.EOF) { // io.EOF: receive has the reason
		return err
	}
	return nil
}

// heartbeats sends one at once and then regularly, until all reports have landed:
// then nothing more is sent.
func (l *live) heartbeats(ctx context.Context, landed <-chan struct{}) error {
	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	for {
		if err := l.send(l.heartbeat); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-l.soon:
		case <-landed:
			return l.stream.CloseSend()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// heartbeat says how the agent is.
func (l *live) heartbeat() any {
	st := l.Spool.Status()
	h := &synmeshv1.Heartbeat{
		Produced: st.Produced, Backlog: st.Held, Dropped: st.Dropped.Sum(), Drops: drops(st.Dropped), Refused: l.Tasks.Refused(),
	}
	h.Time = timestamppb.New(l.clock.ask())
	if offset, within, ok := l.clock.tell(); ok {
		h.ClockOffset, h.ClockError = durationpb.New(offset), durationpb.New(within)
	}
	return &synmeshv1.SessionRequest{Message: &synmeshv1.SessionRequest_Heartbeat{Heartbeat: h}}
}

func drops(d spool.Drops) (counts []*synmeshv1.DropCount) {
	for reason, n := range d {
		if n > 0 {
			counts = append(counts, &synmeshv1.DropCount{Reason: synmeshv1.DropReason(reason), Results: n})
		}
	}
	return counts
}

func (l *live) receive() error {
	for {
		m, err := l.stream.Recv()
		if errors.Is(err, io.EOF) {
			select {
			case <-l.drained:
				return &l.why
			default:
				return errors.New("the controller ended the session")
			}
		}
		if err != nil {
			return err
		}
		l.take(m)
	}
}

func (l *live) take(m *synmeshv1.SessionResponse) {
	switch m := m.GetMessage().(type) {
	case *synmeshv1.SessionResponse_Timetable:
		l.Tasks.SetTimetable(m.Timetable)
	case *synmeshv1.SessionResponse_StartRun:
		l.Tasks.StartRun(m.StartRun, l.clock.local(m.StartRun.GetStartTime()))
	case *synmeshv1.SessionResponse_CancelRun:
		l.Tasks.CancelRun(m.CancelRun.GetRun())
	case *synmeshv1.SessionResponse_Acknowledge:
		l.Spool.Acknowledge(m.Acknowledge.GetEpoch(), m.Acknowledge.GetSequence())
		if credit := m.Acknowledge.GetCredit(); credit > 0 {
			l.Spool.SetCredit(int64(min(credit, maxCredit)))
		}
	case *synmeshv1.SessionResponse_Reject:
		l.Logger.Error("the controller refused a report, which is dropped", "sequence", m.Reject.GetSequence(), "reason", m.Reject.GetReason())
		l.Spool.Reject(m.Reject.GetEpoch(), m.Reject.GetSequence())
	case *synmeshv1.SessionResponse_Echo:
		if l.clock.hear(m.Echo.GetHeartbeatTime().AsTime(), m.Echo.GetTime().AsTime()) {
			l.soon <- struct{}{} // the controller needs to know how far it is to us
		}
	case *synmeshv1.SessionResponse_Drain:
		if l.why == (drained{}) {
			l.why = drained{m.Drain.GetReason(), m.Drain.GetRetryDelay().AsDuration()}
			close(l.drained)
		}
	default: // of a newer controller
		l.Logger.Warn("message not understood", "type", fmt.Sprintf("%T", m))
	}
}
