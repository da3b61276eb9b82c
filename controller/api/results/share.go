package results

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

const (
	// freshFor is how long an answer is given to others who ask the same: twenty screens with one
	// matrix are to cost what one does.
	freshFor = time.Second
	// maxAsking is how many questions are put to the history at a time: what they hold, and how much
	// of the processors the intake has to share.
	maxAsking = 2
)

// shared has the answers that were given lately, or are being found.
type shared struct {
	mu      sync.Mutex
	answers map[string]*answer
}

// answer is one that there is when done is closed.
type answer struct {
	began time.Time
	done  chan struct{}
	resp  *synmeshv1.MatrixResponse
	err   error
}

func (a *answer) ended() bool {
	select {
	case <-a.done:
		return true
	default:
		return false
	}
}

// get returns the answer to a question, which find finds unless somebody else does just now, or did lately.
func (s *shared) get(ctx context.Context, question string, find func() (*synmeshv1.MatrixResponse, error)) (*synmeshv1.MatrixResponse, error) {
	s.mu.Lock()
	maps.DeleteFunc(s.answers, func(_ string, a *answer) bool {
		return a.ended() && (a.err != nil || time.Since(a.began) > freshFor)
	})
	a := s.answers[question]
	mine := a == nil
	if mine {
		a = &answer{began: time.Now(), done: make(chan struct{})}
		if s.answers == nil {
			s.answers = make(map[string]*answer)
		}
		s.answers[question] = a
	}
	s.mu.Unlock()
	if mine {
		defer close(a.done) // also if find panics
		a.err = context.Canceled
		a.resp, a.err = find()
		return a.resp, a.err
	}
	select {
	case <-a.done:
	case <-ctx.Done():
		return nil, failed(ctx, ctx.Err())
	}
	if a.err != nil {
		return find() // that one may have had less time
	}
	return a.resp, nil
}
