package apitest

import (
	"context"
	"errors"
	"io"
	"testing"

	"google.golang.org/grpc"

	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// Agent is an agent's end of a session. It does nothing by itself.
type Agent struct {
	t      testing.TB
	stream grpc.BidiStreamingClient[synmeshv1.SessionRequest, synmeshv1.SessionResponse]
	leave  context.CancelFunc
}

// Open begins a stream on which nothing has been said. It ends with the test.
func Open(t testing.TB, conn *grpc.ClientConn) *Agent {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	stream, err := synmeshv1.NewAgentServiceClient(conn).Session(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return &Agent{t, stream, cancel}
}

// Join opens a session, says hello and returns the sequence of the welcome.
func Join(t testing.TB, conn *grpc.ClientConn, hello *synmeshv1.Hello) (*Agent, uint64) {
	t.Helper()
	a := Open(t, conn)
	a.Hello(hello)
	w := a.Recv().GetWelcome()
	if w == nil {
		t.Fatal("the first message is not a welcome")
	}
	return a, w.GetSequence()
}

// Hello introduces the agent.
func (a *Agent) Hello(h *synmeshv1.Hello) {
	a.t.Helper()
	a.send(&synmeshv1.SessionRequest{Message: &synmeshv1.SessionRequest_Hello{Hello: h}})
}

// Report sends a report.
func (a *Agent) Report(r *synmeshv1.Report) {
	a.t.Helper()
	a.send(&synmeshv1.SessionRequest{Message: &synmeshv1.SessionRequest_Report{Report: r}})
}

// Preview sends a preview.
func (a *Agent) Preview(p *synmeshv1.Preview) {
	a.t.Helper()
	a.send(&synmeshv1.SessionRequest{Message: &synmeshv1.SessionRequest_Preview{Preview: p}})
}

// Heartbeat sends a heartbeat.
func (a *Agent) Heartbeat(h *synmeshv1.Heartbeat) {
	a.t.Helper()
	a.send(&synmeshv1.SessionRequest{Message: &synmeshv1.SessionRequest_Heartbeat{Heartbeat: h}})
}

// Resume says that a rejected report has been taken in.
func (a *Agent) Resume(epoch uint64) {
	a.t.Helper()
	a.send(&synmeshv1.SessionRequest{Message: &synmeshv1.SessionRequest_Resume{Resume: &synmeshv1.Resume{Epoch: epoch}}})
}

func (a *Agent) send(m *synmeshv1.SessionRequest) {
	a.t.Helper()
	if err := a.stream.Send(m); err != nil && !errors.Is(err, io.EOF) { // io.EOF: Recv has the reason
		a.t.Fatalf("send: %v", err)
	}
}

// Recv returns the next message.
func (a *Agent) Recv() *synmeshv1.SessionResponse {
	a.t.Helper()
	m, err := a.stream.Recv()
	if err != nil {
		a.t.Fatalf("receive: %v", err)
	}
	return m
}

// Acknowledged returns the sequence of the next message but for echoes, which is
// an acknowledgement.
func (a *Agent) Acknowledged() uint64 {
	a.t.Helper()
	m := a.Recv()
	for m.GetEcho() != nil {
		m = a.Recv()
	}
	if m.GetAcknowledge() == nil {
		a.t.Fatalf("got %v; an acknowledgement was expected", m)
	}
	return m.GetAcknowledge().GetSequence()
}

// End reads what is left and returns why the session has ended.
func (a *Agent) End() (rest []*synmeshv1.SessionResponse, why error) {
	for {
		m, err := a.stream.Recv()
		if err != nil {
			return rest, err
		}
		rest = append(rest, m)
	}
}

// Finish says that nothing more will be sent.
func (a *Agent) Finish() {
	a.t.Helper()
	if err := a.stream.CloseSend(); err != nil {
		a.t.Fatalf("close: %v", err)
	}
}

// Leave ends the session as a lost connection would, without a word.
func (a *Agent) Leave() { a.leave() }
