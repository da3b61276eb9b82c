package results

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

func TestWhoAsksTheSameSharesTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s shared
		var found atomic.Int32
		find := func() (*synmeshv1.MatrixResponse, error) {
			found.Add(1)
			time.Sleep(100 * time.Millisecond)
			return &synmeshv1.MatrixResponse{}, nil
		}
		ask := func(question string) {
			if resp, err := s.get(t.Context(), question, find); resp == nil || err != nil {
				t.Error(resp, err)
			}
		}
		for range 20 {
			go ask("a")
		}
		ask("b")
		synctest.Wait()
		ask("a")
		if n := found.Load(); n != 2 {
			t.Errorf("of two questions, answers were looked for %d times", n)
		}
		time.Sleep(freshFor)
		ask("a")
		if n := found.Load(); n != 3 || len(s.answers) != 1 {
			t.Errorf("after a second, answers have been looked for %d times, and %d are kept", n, len(s.answers))
		}
	})
}

func TestWhoWaitsForAnAnswerThatFailsLooksItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s shared
		go s.get(t.Context(), "a", func() (*synmeshv1.MatrixResponse, error) {
			time.Sleep(time.Second)
			return nil, errors.New("its client has gone")
		})
		synctest.Wait()
		soon, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := s.get(soon, "a", nil); err == nil {
			t.Error("who has no time left got an answer")
		}
		resp, err := s.get(t.Context(), "a", func() (*synmeshv1.MatrixResponse, error) { return &synmeshv1.MatrixResponse{}, nil })
		if resp == nil || err != nil {
			t.Error(resp, err)
		}
	})
}
