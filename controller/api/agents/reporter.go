package agents

import (
	"context"
	"errors"
	"log/slog"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/synmesh/synmesh/controller/api/fault"
	"github.com/synmesh/synmesh/controller/feed"
	"github.com/synmesh/synmesh/controller/fleet"
	"github.com/synmesh/synmesh/controller/history"
	"github.com/synmesh/synmesh/internal/convert"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// Of a session, the controller holds what waits to be stored (maxWaiting, or one report that
// is larger), the message behind that, and what gRPC takes off the wire ahead of it, 64 KiB. So
// much an agent may cost that does not keep to its credit. Of those that do, no more than
// allCredit is on the way, but for one report of each; and what is new does
// not wait long behind it.
const (
	allCredit = 256 << 20 // bytes, of all agents together
	maxCredit = 2 << 20   // of one
	minCredit = 64 << 10
)

// credit is what an agent may have under way, in bytes.
func (s *Service) credit() uint64 {
	return uint64(min(max(allCredit/max(s.sessions.Load(), 1), minCredit), maxCredit))
}

// reporter takes in what an agent says in a session: what it reports one after the other, as
// the history stores it, and the rest at once.
type reporter struct {
	*Service
	hello   *synmeshv1.Hello
	session *fleet.Session
	log     *slog.Logger
	waiting *waiting

	// Of store alone:
	told     uint64          // credit
	known    map[uint64]bool // epochs that it has reported under
	rejected map[uint64]bool // epochs of which a report was, and no resume came
}

func newReporter(s *Service, hello *synmeshv1.Hello, session *fleet.Session, log *slog.Logger) *reporter {
	return &reporter{Service: s, hello: hello, session: session, log: log, waiting: newWaiting(),
		known: make(map[uint64]bool), rejected: make(map[uint64]bool)}
}

// receive takes in what the agent says, until the stream ends.
func (r *reporter) receive(st stream) {
	for {
		q := &request{}
		err := q.next(st)
		if err == nil {
			err = r.hear(st.Context(), q)
		}
		if err != nil {
			r.waiting.end(err)
			return
		}
	}
}

// hear takes in a message, which is its own.
func (r *reporter) hear(ctx context.Context, q *request) error {
	r.session.Heard(q.GetHeartbeat())
	switch m := q.GetMessage().(type) {
	case *synmeshv1.SessionRequest_Report, *synmeshv1.SessionRequest_Resume:
		return r.waiting.put(ctx, q)
	case *synmeshv1.SessionRequest_Heartbeat:
		r.session.Send(&synmeshv1.SessionResponse{Message: &synmeshv1.SessionResponse_Echo{
			Echo: &synmeshv1.Echo{HeartbeatTime: m.Heartbeat.GetTime(), Time: timestamppb.Now()}}})
	case *synmeshv1.SessionRequest_Preview:
		r.preview(m.Preview)
	}
	return nil
}

// preview shows results to those who wait for them. If something is wrong with it, the report will tell.
func (r *reporter) preview(m *synmeshv1.Preview) {
	e := feed.Event{Agent: r.hello.GetName(), Session: r.session.ID, Preview: true,
		Report: &synmeshv1.Report{Preview: m.GetNumber(), Blocks: m.GetBlocks()}}
	if m.GetNumber() > 0 && convert.CheckReport(e.Report) == nil {
		r.Feed.Publish(e)
	}
}

// store takes in what is reported, until the stream ends.
func (r *reporter) store(ctx context.Context) error {
	return ignoreEnd(ctx, r.waiting.each(ctx, func(q *request) error {
		if m := q.GetResume(); m != nil {
			delete(r.rejected, m.GetEpoch())
			return nil
		}
		return r.report(ctx, q)
	}))
}

// report makes a report durable, acknowledges it, and shows it to those who wait for it.
func (r *reporter) report(ctx context.Context, q *request) error {
	m := q.report
	if r.rejected[m.Epoch] {
		return nil // it comes again
	}
	if err := r.admit(m.Epoch); err != nil {
		return err
	}
	if q.wrong != nil {
		r.reject(m, q.wrong)
		return nil
	}
	// The next session's welcome waits for it, so the end of this one must not leave it undecided.
	stored, err := r.History.AppendEncoded(context.WithoutCancel(ctx), r.hello.GetName(), m)
	if errors.Is(err, history.ErrInvalid) {
		r.reject(m, err)
		return nil
	}
	if err != nil {
		return fault.Unavailable("report %d was not stored (%w); keep it and send it again", m.Sequence, err)
	}
	a := &synmeshv1.Acknowledge{Epoch: m.Epoch, Sequence: m.Sequence}
	if credit := r.credit(); credit != r.told {
		a.Credit, r.told = credit, credit
	}
	r.session.Send(&synmeshv1.SessionResponse{Message: &synmeshv1.SessionResponse_Acknowledge{Acknowledge: a}})
	if !stored || !r.Feed.Wants(q.sources) {
		return nil
	}
	return r.publish(m)
}

// publish shows a report to those who wait for it.
func (r *reporter) publish(m history.Encoded) error {
	e := feed.Event{Agent: r.hello.GetName(), Session: r.session.ID, Report: &synmeshv1.Report{}}
	if err := proto.Unmarshal(m.Bytes, e.Report); err != nil {
		return err
	}
	r.Feed.Publish(e)
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
func (r *reporter) reject(m history.Encoded, why error) {
	r.log.Error("report refused", "sequence", m.Sequence, "reason", why)
	r.rejected[m.Epoch] = true
	r.session.Send(&synmeshv1.SessionResponse{Message: &synmeshv1.SessionResponse_Reject{
		Reject: &synmeshv1.Reject{Epoch: m.Epoch, Sequence: m.Sequence, Reason: why.Error()}}})
}
