package agents

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/synmesh/synmesh/controller/history"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

func preview(number uint64, results int) *synmeshv1.Preview {
	return &synmeshv1.Preview{Number: number, Blocks: report(1, results).GetBlocks()}
}

// hold has the history wait with each report until what free returns is called.
func (b *bench) hold() (free func()) {
	held := make(chan struct{})
	b.history.BeforeAppend = func(*synmeshv1.Report) error {
		<-held
		return nil
	}
	return func() { close(held) }
}

func TestPreviewsAndHeartbeatsPassReportsThatWait(t *testing.T) {
	run(t, func(b *bench) {
		free := b.hold()
		sub := b.feed.Subscribe("runs/a")
		defer sub.Close()
		a := b.join()
		a.Report(report(1, 3))
		a.Report(report(2, 3))
		a.Preview(preview(7, 2))
		a.Heartbeat(&synmeshv1.Heartbeat{Backlog: 6})
		if a.Recv().GetEcho() == nil {
			b.Error("the first answer is no echo")
		}
		if got := fmt.Sprint(b.published(sub)); got != "[session 1 preview 7]" || b.agent().Backlog != 6 {
			b.Errorf("published is %s while nothing is stored, and a backlog of %d is known", got, b.agent().Backlog)
		}
		free()
		if first, second := a.Acknowledged(), a.Acknowledged(); first != 1 || second != 2 {
			b.Errorf("%d and %d are acknowledged, want 1 and 2", first, second)
		}
		if got := fmt.Sprint(b.published(sub)); got != "[session 1 report 1 session 1 report 2]" {
			b.Errorf("published is %s", got)
		}
		if n := len(b.history.Entries()); n != 2 {
			b.Errorf("%d reports are stored, want 2: a preview is none", n)
		}
	})
}

// The report that follows is told what is wrong with it.
func TestPreviewsThatAreWrongAreShownToNobody(t *testing.T) {
	for name, change := range map[string]func(*synmeshv1.Preview){
		"without a number":                 func(p *synmeshv1.Preview) { p.Number = 0 },
		"with a column that is too short":  func(p *synmeshv1.Preview) { p.Blocks[0].Rtts = nil },
		"with an outcome that is none":     func(p *synmeshv1.Preview) { p.Blocks[0].Outcomes[0] = 99 },
		"with a fault in the second block": func(p *synmeshv1.Preview) { p.Blocks = append(p.Blocks, &synmeshv1.ResultBlock{Port: 1 << 16}) },
		"of another run":                   func(p *synmeshv1.Preview) { p.Blocks[0].Source = "runs/b" },
		"with nothing in it":               func(p *synmeshv1.Preview) { p.Blocks = nil },
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(b *bench) {
				sub := b.feed.Subscribe("runs/a")
				defer sub.Close()
				a := b.join()
				p := preview(7, 2)
				change(p)
				a.Preview(p)
				a.Preview(preview(8, 1)) // the session goes on
				if got := fmt.Sprint(b.published(sub)); got != "[session 1 preview 8]" {
					b.Errorf("published is %s", got)
				}
			})
		})
	}
}

// What is behind a report that was not stored must not be either: its number would stand for both.
func TestWhatWaitsBehindAReportThatWasNotStoredIsForgotten(t *testing.T) {
	run(t, func(b *bench) {
		free := make(chan error)
		b.history.BeforeAppend = func(*synmeshv1.Report) error { return <-free }
		a := b.join()
		for n := range uint64(5) {
			a.Report(report(n+1, 1))
		}
		free <- nil
		if n := a.Acknowledged(); n != 1 {
			b.Errorf("report %d is acknowledged, want 1", n)
		}
		synctest.Wait()
		free <- errors.New("no space left on device")
		b.wantEnd(a, codes.Unavailable, "report 2 was not stored")
		synctest.Wait()
		if n := len(b.history.Entries()); n != 1 {
			b.Errorf("%d reports are stored, want 1", n)
		}
	})
}

func TestWhatWaitsIsStoredWhenTheAgentHasNothingMoreToSay(t *testing.T) {
	run(t, func(b *bench) {
		free := b.hold()
		a := b.join()
		const reports = 20
		for n := range uint64(reports) {
			a.Report(report(n+1, 1))
		}
		a.Finish()
		synctest.Wait()
		free()
		if _, err := a.End(); !errors.Is(err, io.EOF) || len(b.history.Entries()) != reports {
			b.Errorf("the session ended with %v, and %d reports of %d are stored", err, len(b.history.Entries()), reports)
		}
	})
}

// weighing is a report of so many bytes.
func weighing(bytes int) *request {
	return &request{report: history.Encoded{Bytes: make([]byte, bytes)}}
}

func TestOnlySoMuchOfASessionWaits(t *testing.T) {
	for _, tt := range []struct {
		name    string
		bytes   int // of a report
		waiting int // how many do
	}{
		{"many small ones", 10, maxWaiting / minWaiting},
		{"some that are larger", 100 << 10, 2},
		{"one that is as large as all", maxWaiting, 1},
		{"one that is larger", 1 << 20, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWaiting()
				ctx, cancel := context.WithCancel(t.Context())
				put := 0
				go func() {
					for {
						if err := w.put(ctx, weighing(tt.bytes)); err != nil {
							w.end(err)
							return
						}
						put++
					}
				}()
				synctest.Wait()
				if put != tt.waiting {
					t.Errorf("%d wait, want %d", put, tt.waiting)
				}
				taken := 0
				err := w.each(ctx, func(*request) error {
					if taken++; taken < 10 {
						return nil
					}
					return errors.New("enough")
				})
				synctest.Wait()
				if err == nil || put != tt.waiting+10 {
					t.Errorf("when 10 were taken, %d had been put, and it ended with %v; want %d", put, err, tt.waiting+10)
				}
				cancel()
			})
		})
	}
}

func TestWhatWaitsComesInItsOrderAndThenTheReasonOfItsEnd(t *testing.T) {
	w, lost := newWaiting(), errors.New("the connection was lost")
	var want, got []uint64
	for n := range uint64(maxWaiting / minWaiting) {
		q := weighing(0)
		q.report.Sequence = n
		if err := w.put(t.Context(), q); err != nil {
			t.Fatal(err)
		}
		want = append(want, n)
	}
	w.end(lost)
	err := w.each(t.Context(), func(q *request) error {
		got = append(got, q.report.Sequence)
		return nil
	})
	if !slices.Equal(got, want) || !errors.Is(err, lost) {
		t.Errorf("got %v, and %v", got, err)
	}
}

// An agent that does not keep to its credit waits, and with it only what it says itself.
func TestAnAgentThatSendsTooMuchHoldsUpNobodyElse(t *testing.T) {
	run(t, func(b *bench) {
		free := b.hold()
		a := b.join()
		sent := 0
		const reports = 100
		go func() {
			for n := range uint64(reports) {
				a.Report(report(n+1, 2000))
				sent++
			}
		}()
		time.Sleep(time.Minute)
		synctest.Wait()
		if sent == reports {
			b.Error("all was taken while nothing could be stored")
		}
		h := hello()
		h.Name = "fra-2"
		other := b.joinAs(h)
		other.Heartbeat(&synmeshv1.Heartbeat{})
		if other.Recv().GetEcho() == nil {
			b.Error("another agent's heartbeat is not answered")
		}
		free()
		for n := range uint64(reports) {
			if got := a.Acknowledged(); got != n+1 {
				b.Fatalf("report %d is acknowledged, want %d", got, n+1)
			}
		}
	})
}
