package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// broken is what a stream ends with when its controller is killed.
var broken = status.Error(codes.Unavailable, "error reading from server: EOF")

// stored is a controller with results "1" to "n", which ends streams as it is told.
type stored struct {
	n       int
	endings []func(given int) error // of one stream after the other; the last goes on
	opened  []string                // cursors
}

func (s *stored) open(ctx context.Context, cursor string) (func() (part, error), error) {
	s.opened = append(s.opened, cursor)
	ending := s.endings[min(len(s.opened), len(s.endings))-1]
	at, given := 0, 0
	if cursor != "" {
		if _, err := fmt.Sscan(cursor, &at); err != nil {
			return nil, status.Error(codes.InvalidArgument, "no cursor")
		}
	}
	return func() (part, error) {
		if err := ending(given); err != nil {
			return part{}, err
		}
		if at == s.n {
			return part{}, io.EOF
		}
		at++
		given++
		return part{results: []*synmeshv1.Result{{Agent: fmt.Sprint(at)}}, cursor: fmt.Sprint(at)}, ctx.Err()
	}, nil
}

// after breaks a stream after so many parts.
func after(parts int, err error) func(int) error {
	return func(given int) error {
		if given == parts {
			return err
		}
		return nil
	}
}

func never(int) error { return nil }

// followed runs a follower in no time, and returns what it took and said.
func followed(t *testing.T, f follower, s *stored) (taken []string, said string, took time.Duration, err error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var complaints bytes.Buffer
		f.app = &app{err: &complaints, controller: "ctl:7400"}
		f.open = s.open
		if f.take == nil {
			f.take = func(p part) error {
				for _, r := range p.results {
					taken = append(taken, r.GetAgent())
				}
				return nil
			}
		}
		began := time.Now()
		err = f.run(t.Context())
		said, took = complaints.String(), time.Since(began)
	})
	return taken, said, took, err
}

func TestAStreamGoesOnWhereItBrokeOff(t *testing.T) {
	s := &stored{n: 6, endings: []func(int) error{after(2, broken), after(0, broken), after(0, broken), after(3, broken), never}}
	taken, said, _, err := followed(t, follower{ends: true, patience: 3}, s)
	if err != nil || !slices.Equal(taken, []string{"1", "2", "3", "4", "5", "6"}) {
		t.Errorf("took %v, %v", taken, err)
	}
	if want := []string{"", "2", "2", "2", "5"}; !slices.Equal(s.opened, want) {
		t.Errorf("opened at %q, want %q", s.opened, want)
	}
	if n := strings.Count(said, "the connection broke (error reading from server: EOF); trying to go on\nconnected again\n"); n != 2 {
		t.Errorf("it says %q", said)
	}
}

func TestPatienceEnds(t *testing.T) {
	s := &stored{n: 3, endings: []func(int) error{after(1, broken), after(0, broken)}}
	taken, _, took, err := followed(t, follower{ends: true, patience: exportPatience}, s)
	var e *exit
	if !errors.As(err, &e) || e.code != exitController || !strings.Contains(err.Error(), "controller ctl:7400 cannot be reached") {
		t.Errorf("got %v", err)
	}
	if len(taken) != 1 || len(s.opened) != exportPatience+1 {
		t.Errorf("took %v in %d tries", taken, len(s.opened))
	}
	if took < 15*time.Second || took > time.Minute {
		t.Errorf("it was patient for %v", took)
	}
}

func TestWhatIsFinalIsNotTriedAgain(t *testing.T) {
	for code, want := range map[codes.Code]int{
		codes.InvalidArgument: exitUsage, codes.FailedPrecondition: exitUsage, codes.PermissionDenied: exitController,
		codes.Unauthenticated: exitController, codes.Unimplemented: exitController,
	} {
		s := &stored{n: 3, endings: []func(int) error{after(1, status.Error(code, "because"))}}
		_, _, _, err := followed(t, follower{}, s)
		var e *exit
		if !errors.As(err, &e) || e.code != want || len(s.opened) != 1 {
			t.Errorf("%v: got %v after %d tries", code, err, len(s.opened))
		}
	}
}

func TestAnErrorOfOursEndsAll(t *testing.T) {
	full := errors.New("the disk is full")
	s := &stored{n: 3, endings: []func(int) error{never}}
	_, _, _, err := followed(t, follower{take: func(part) error { return full }}, s)
	if err != full || len(s.opened) != 1 {
		t.Errorf("got %v after %d tries", err, len(s.opened))
	}
}

// A watch goes on for ever, whatever the controller does, until it is interrupted.
func TestAWatchEndsWhenItIsInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := &stored{n: 2, endings: append(slices.Repeat([]func(int) error{after(0, broken)}, 100), never)}
		f := follower{app: &app{err: io.Discard}, open: s.open, take: func(p part) error {
			if p.cursor == "2" {
				cancel()
			}
			return nil
		}}
		var e *exit
		if err := f.run(ctx); !errors.As(err, &e) || e.code != exitInterrupted || len(s.opened) != 101 {
			t.Errorf("got %v after %d tries", err, len(s.opened))
		}
	})
}

func TestAStreamThatIsSilentIsOpenedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opened := 0
		f := follower{app: &app{err: io.Discard}, ends: true, take: func(part) error { return nil },
			open: func(ctx context.Context, _ string) (func() (part, error), error) {
				opened++
				return func() (part, error) {
					if opened == 2 {
						return part{}, io.EOF
					}
					<-ctx.Done()
					return part{}, status.FromContextError(ctx.Err()).Err()
				}, nil
			}}
		began := time.Now()
		if err := f.run(t.Context()); err != nil || opened != 2 {
			t.Errorf("got %v after %d tries", err, opened)
		}
		if took := time.Since(began); took < silence || took > silence+lastBackOff {
			t.Errorf("it took %v", took)
		}
	})
}

// Whoever reads slowly is not mistaken for a controller that is silent.
func TestSlownessOfOursIsNoSilence(t *testing.T) {
	s := &stored{n: 3, endings: []func(int) error{never}}
	f := follower{ends: true, take: func(part) error {
		time.Sleep(2 * silence)
		return nil
	}}
	if _, said, _, err := followed(t, f, s); err != nil || said != "" || len(s.opened) != 1 {
		t.Errorf("got %v after %d tries: %q", err, len(s.opened), said)
	}
}
