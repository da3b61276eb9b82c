package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/synmesh/synmesh/internal/convert"
	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// part is what a stream of results consists of.
type part struct {
	results []*synmeshv1.Result
	cursor  string
	gap     bool
}

// follower reads a stream of results, and goes on from the last cursor where it broke off.
type follower struct {
	app *app
	// open begins the stream, or goes on with it from a cursor, and returns what reads its parts.
	open func(ctx context.Context, cursor string) (func() (part, error), error)
	// take is given each part once. Its errors end all.
	take func(part) error
	// ends says that the stream is over when the controller says so.
	ends bool
	// patience is how often in a row it may break before anything has come; 0: for ever.
	patience int
	// cursor is where it goes on.
	cursor string

	broken int // in a row
}

// silence is how long nothing may come: a controller says something every 10 s.
const silence = 30 * time.Second

// errOurs marks what went wrong on this side, where no other try would help.
type errOurs struct{ error }

// run reads until the stream ends, or fails for good.
func (f *follower) run(ctx context.Context) error {
	for {
		err := f.read(ctx)
		var ours errOurs
		switch {
		case errors.As(err, &ours):
			return ours.error
		case ctx.Err() != nil:
			return &exit{code: exitInterrupted}
		case errors.Is(err, io.EOF) && f.ends:
			return nil
		case errors.Is(err, io.EOF):
			err = status.Error(codes.Unavailable, "the controller has ended it")
		case !passing(err):
			return f.app.failed(ctx, err)
		}
		f.broken++
		if f.patience > 0 && f.broken > f.patience {
			return f.app.failed(ctx, err)
		}
		if f.broken == 1 {
			fmt.Fprintf(f.app.err, "the connection broke (%s); trying to go on\n", status.Convert(err).Message())
		}
		if wait(ctx, backOff(f.broken)) != nil {
			return &exit{code: exitInterrupted}
		}
	}
}

// read reads one stream until it breaks or ends.
func (f *follower) read(ctx context.Context) error {
	within, cancel := context.WithCancel(ctx)
	defer cancel() // frees the stream
	silent := time.AfterFunc(silence, cancel)
	defer silent.Stop()
	next, err := f.open(within, f.cursor)
	for err == nil {
		var p part
		if p, err = next(); err != nil {
			break
		}
		silent.Stop() // what takes long from here on is ours
		if f.broken > 0 {
			f.broken = 0
			fmt.Fprintln(f.app.err, "connected again")
		}
		if err := f.take(p); err != nil {
			return errOurs{err}
		}
		f.cursor = p.cursor
		silent.Reset(silence)
	}
	if within.Err() != nil && ctx.Err() == nil {
		return status.Errorf(codes.Unavailable, "nothing has come for %v", silence)
	}
	return err
}

// passing tells whether another try may do better.
func passing(err error) bool {
	switch status.Code(err) {
	case codes.InvalidArgument, codes.NotFound, codes.AlreadyExists, codes.PermissionDenied, codes.FailedPrecondition,
		codes.OutOfRange, codes.Unimplemented, codes.DataLoss, codes.Unauthenticated:
		return false
	}
	return true
}

// The times between two tries grow from the one to the other, each by chance a little shorter.
const (
	firstBackOff = 200 * time.Millisecond
	lastBackOff  = 3 * time.Second
)

func backOff(failures int) time.Duration {
	d := min(firstBackOff<<min(failures-1, 10), lastBackOff)
	return d - rand.N(d/4)
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// resultsOf returns the results of messages.
func resultsOf(messages []*synmeshv1.Result) ([]probe.Result, error) {
	results := make([]probe.Result, len(messages))
	for i, m := range messages {
		var err error
		if results[i], err = convert.ToResult(m); err != nil {
			return nil, fmt.Errorf("the controller has sent a result that is none: %w", err)
		}
	}
	return results, nil
}
