package agents

import (
	"context"
	"errors"
	"log/slog"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/synmesh/synmesh/controller/api/fault"
	"github.com/synmesh/synmesh/controller/feed"
	"github.com/synmesh/synmesh/controller/fleet"
	"github.com/synmesh/synmesh/controller/history"
	"github.com/synmesh/synmesh/internal/convert"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// Of a session, the controller holds one report at a time, beside what gRPC
// takes off the wire ahead of it, 64 KiB. So credit is not what protects the
// controller, but keeps agents from leaving a lot under way: what is new would
// wait behind it.
const (
	allCredit = 256 << 20 // bytes, of all agents together
	maxCredit = 2 << 20   // of one
	minCredit = 64 << 10
)

// credit is what an agent may have under way, in bytes.
func (s *Service) credit() uint64 {
	return uint64(min(max(allCredit/max(s.sessions.Load(), 1), minCredit), maxCredit))
}

// reporter takes in what an agent says in a session, one message after the other.
type reporter struct {
	*Service
	hello   *synmeshv1.Hello
	session *fleet.Session
	log     *slog.Logger

	told     uint64          // credit
	known    map[uint64]bool // epochs that it has reported under
	rejected map[uint64]bool // epochs of which a report was, and no resume came
}

func newReporter(s *Service, hello *synmeshv1.Hello, session *fleet.Session, log *slog.Logger) *reporter {
	return &reporter{Service: s, hello: hello, session: session, log: log, known: make(map[uint64]bool), rejected: make(map[uint64]bool)}
}

func (r *reporter) take(ctx context.Context, m *synmeshv1.SessionRequest) error {
	r.session.Heard(m.GetHeartbeat())
	switch m := m.GetMessage().(type) {
	case *synmeshv1.SessionRequest_Report:
		return r.store(ctx, m.Report)
	case *synmeshv1.SessionRequest_Heartbeat:
		r.session.Send(&synmeshv1.SessionResponse{Message: &synmeshv1.SessionResponse_Echo{
			Echo: &synmeshv1.Echo{HeartbeatTime: m.Heartbeat.GetTime(), Time: timestamppb.Now()}}})
	case *synmeshv1.SessionRequest_Resume:
		delete(r.rejected, m.Resume.GetEpoch())
	}
	return nil
}

// store makes a report durable, acknowledges it, and shows it to those who wait for it.
func (r *reporter) store(ctx context.Context, m *synmeshv1.Report) error {
	if r.rejected[m.GetEpoch()] {
		return nil // it comes again
	}
	if err := r.admit(m.GetEpoch()); err != nil {
		return err
	}
	if err := convert.CheckReport(m); err != nil {
		r.reject(m, err)
		return nil
	}
	stored, err := r.History.Append(ctx, r.hello.GetName(), m)
	if errors.Is(err, history.ErrInvalid) {
		r.reject(m, err)
		return nil
	}
	if err != nil {
		return fault.Unavailable("report %d was not stored (%w); keep it and send it again", m.GetSequence(), err)
	}
	a := &synmeshv1.Acknowledge{Epoch: m.GetEpoch(), Sequence: m.GetSequence()}
	if credit := r.credit(); credit != r.told {
		a.Credit, r.told = credit, credit
	}
	r.session.Send(&synmeshv1.SessionResponse{Message: &synmeshv1.SessionResponse_Acknowledge{Acknowledge: a}})
	if stored {
		r.Feed.Publish(feed.Event{Agent: r.hello.GetName(), Session: r.session.ID, Report: m})
	}
	return nil
}

// admit looks whether an agent may report under an epoch.
func (r *reporter) admit(epoch uint64) error {
	if r.known[epoch] {
		return nil
	}
	stored, err := r.History.Sequence(r.hello.GetName(), epoch)
	if err != nil {
		return fault.Unavailable("the history cannot be read (%w); connect again later", err)
	}
	if stored == 0 && !r.epochs.take(r.hello.GetName()) {
		return fault.Later(fault.Exhausted("reports of more than %d new epochs, and of more than one in %v after that; an agent needs one for each of its lives",
			epochsAtOnce, epochEvery), epochEvery)
	}
	r.known[epoch] = true
	return nil
}

// reject refuses a report for ever.
func (r *reporter) reject(m *synmeshv1.Report, why error) {
	r.log.Error("report refused", "sequence", m.GetSequence(), "reason", why)
	r.rejected[m.GetEpoch()] = true
	r.session.Send(&synmeshv1.SessionResponse{Message: &synmeshv1.SessionResponse_Reject{
		Reject: &synmeshv1.Reject{Epoch: m.GetEpoch(), Sequence: m.GetSequence(), Reason: why.Error()}}})
}
