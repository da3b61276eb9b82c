package runs

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

const within = 800 * time.Millisecond

// startAttended begins a run that goes on until its client is gone.
func (b *bench) startAttended() *viewer {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	b.Cleanup(cancel)
	stream, err := b.client.Run(ctx, &synmeshv1.RunRequest{Spec: spec(0, "db.fra:5432"), AttendWithin: durationpb.New(within)})
	if err != nil {
		b.Fatal(err)
	}
	v := &viewer{b: b, stream: stream, leave: cancel}
	v.run = v.next().GetStarted().GetRun()
	synctest.Wait()
	return v
}

// attend opens the stream by which the client says that it is there.
func (v *viewer) attend() grpc.ClientStreamingClient[synmeshv1.AttendRequest, synmeshv1.AttendResponse] {
	v.b.Helper()
	stream, err := v.b.client.Attend(v.b.Context())
	if err != nil {
		v.b.Fatal(err)
	}
	return stream
}

func (v *viewer) here(stream grpc.ClientStreamingClient[synmeshv1.AttendRequest, synmeshv1.AttendResponse]) {
	v.b.Helper()
	if err := stream.Send(&synmeshv1.AttendRequest{Run: v.run}); err != nil {
		v.b.Fatal(err)
	}
	synctest.Wait()
}

func (p *player) wantTold(want ...string) {
	p.b.Helper()
	if got := p.told(); fmt.Sprint(got) != fmt.Sprint(want) {
		p.b.Errorf("%s was told %q, want %q", p.name, got, want)
	}
}

func TestARunEndsWhenItsClientIsNotHeard(t *testing.T) {
	bubble(t, func(b *bench) {
		fra, nyc := b.join("fra-1"), b.join("nyc-1")
		v := b.startAttended()
		fra.wantTold("start " + v.run)
		st := v.attend()
		for range 1000 {
			time.Sleep(within - 1)
			v.here(st)
		}
		fra.wantTold()
		time.Sleep(within - 1)
		fra.wantTold()
		time.Sleep(time.Nanosecond)
		fra.wantTold("cancel " + v.run)
		nyc.wantTold("start "+v.run, "cancel "+v.run)
		wantFault(b, v.stream, codes.Aborted, "the run was ended: its client was not heard for 800ms")
		if err := st.Send(&synmeshv1.AttendRequest{Run: v.run}); err != nil {
			b.Fatal(err)
		}
		if _, err := st.CloseAndRecv(); status.Code(err) != codes.NotFound {
			b.Errorf("attending to a run that is over: %v", err)
		}
	})
}

func TestTheFirstWordOfAClientMayTakeLonger(t *testing.T) {
	bubble(t, func(b *bench) {
		fra := b.join("fra-1")
		v := b.startAttended()
		time.Sleep(firstAttend - 1)
		fra.wantTold("start " + v.run)
		time.Sleep(time.Nanosecond)
		fra.wantTold("cancel " + v.run)
		wantFault(b, v.stream, codes.Aborted, "was not heard")
	})
}

// The stream of a client that is gone fills up, and whoever sends on it waits.
func TestAgentsAreStoppedThoughNobodyTakesTheirResults(t *testing.T) {
	bubble(t, func(b *bench) {
		fra := b.join("fra-1")
		v := b.startAttended()
		v.here(v.attend())
		for range 1000 {
			fra.report(found(v.run, 100))
			synctest.Wait()
		}
		fra.wantTold("start " + v.run)
		time.Sleep(within)
		fra.wantTold("cancel " + v.run)
		wantFault(b, v.stream, codes.Aborted, "was not heard")
	})
}

func TestARunThatEndsByItselfIsNotAttendedToAnyMore(t *testing.T) {
	bubble(t, func(b *bench) {
		fra := b.join("fra-1")
		v := b.startAttended()
		st := v.attend()
		v.here(st)
		fra.report(nil, &synmeshv1.RunEnd{Run: v.run})
		v.wantEnded("fra-1", 0, "")
		v.wantOver()
		if _, err := st.CloseAndRecv(); err != nil {
			b.Errorf("the end of attending: %v", err)
		}
		time.Sleep(time.Minute)
		fra.wantTold("start " + v.run)
	})
}

func TestOnlyRunsThatAskForItAreAttendedTo(t *testing.T) {
	bubble(t, func(b *bench) {
		fra := b.join("fra-1")
		v := b.start("", spec(0, "db.fra:5432"), "fra-1")
		st := v.attend()
		v.here(st)
		if _, err := st.CloseAndRecv(); status.Code(err) != codes.NotFound {
			b.Errorf("got %v, want that there is nothing to attend to", err)
		}
		time.Sleep(time.Hour)
		fra.wantTold("start " + v.run)
	})
}
