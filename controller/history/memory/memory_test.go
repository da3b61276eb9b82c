package memory

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/synmesh/synmesh/controller/history/historytest"
	synmeshv1 "github.com/synmesh/synmesh/proto/synmesh/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestItIsAHistory(t *testing.T) {
	historytest.Test(t, historytest.Subject{
		Open: func(_ string, now func() time.Time) (historytest.History, error) { return New(Config{Now: now}) },
	})
}

func newHistory(t *testing.T, cfg Config) *History {
	t.Helper()
	h, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func add(t *testing.T, h *History, sequence uint64) {
	t.Helper()
	r := &synmeshv1.Report{Epoch: 1, Sequence: sequence, Blocks: []*synmeshv1.ResultBlock{{Source: string(make([]byte, 1000))}}}
	if stored, err := h.Append(t.Context(), "a", r); !stored || err != nil {
		t.Fatalf("report %d: stored %v, %v", sequence, stored, err)
	}
}

func sequences(t *testing.T, h *History) (list []uint64) {
	t.Helper()
	for e, err := range h.Scan(t.Context(), time.Time{}, time.Time{}, nil) {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, e.Report.GetSequence())
	}
	return list
}

func TestTheOldestReportsAreForgottenWhenThereAreTooMany(t *testing.T) {
	h := newHistory(t, Config{MaxSize: 4000})
	for i := range uint64(10) {
		add(t, h, i+1)
	}
	if got := sequences(t, h); !slices.Equal(got, []uint64{8, 9, 10}) || h.Dropped() != 7 {
		t.Errorf("%v are left, %d were dropped", got, h.Dropped())
	}
	if n, err := h.Sequence("a", 1); n != 10 || err != nil {
		t.Errorf("mark %d, %v", n, err)
	}
	// One that is larger than all that is kept goes at once, and is not asked for again.
	large := newHistory(t, Config{MaxSize: 100})
	add(t, large, 1)
	if got := sequences(t, large); len(got) != 0 || large.Dropped() != 1 {
		t.Errorf("%v are left, %d were dropped", got, large.Dropped())
	}
}

// Whoever is reading goes on with what there was.
func TestAScanKeepsWhatIsForgotten(t *testing.T) {
	h := newHistory(t, Config{MaxSize: 6000})
	for i := range uint64(4) {
		add(t, h, i+1)
	}
	next := uint64(1)
	for e, err := range h.Scan(t.Context(), time.Time{}, time.Time{}, nil) {
		if err != nil || e.Report.GetSequence() != next {
			t.Fatalf("report %d comes where %d should: %v", e.Report.GetSequence(), next, err)
		}
		next++
		add(t, h, 100+next)
	}
	if next != 5 {
		t.Errorf("%d reports, not 4", next-1)
	}
}

func TestOldReportsAreForgottenWithTheirMarks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHistory(t, Config{Retention: time.Hour})
		ended := make(chan error, 1)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { ended <- h.Run(ctx) }()
		add(t, h, 1)
		time.Sleep(time.Minute)
		synctest.Wait()
		add(t, h, 2)
		if got := sequences(t, h); !slices.Equal(got, []uint64{1, 2}) {
			t.Errorf("%v are there", got)
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		n, err := h.Sequence("a", 1)
		if got := sequences(t, h); len(got) != 0 || n != 0 || err != nil || h.Dropped() != 2 {
			t.Errorf("%v are left, mark %d, %v, %d dropped", got, n, err, h.Dropped())
		}
		cancel()
		if err := errors.Join(<-ended, h.Close()); err != nil {
			t.Error(err)
		}
	})
}

func TestAConfigurationThatCannotBeRightIsRefused(t *testing.T) {
	for want, cfg := range map[string]Config{
		"history: retention of -1s: it cannot be negative":    {Retention: -time.Second},
		"history: a limit of -1 bytes: it cannot be negative": {MaxSize: -1},
	} {
		if _, err := New(cfg); fmt.Sprint(err) != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
