package spool

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/synmesh/synmesh/internal/convert"
	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

const (
	ofRun         = "runs/abc"
	ofMeasurement = "measurements/web"
)

func result(source string) *probe.Result {
	return &probe.Result{
		Time: time.Now(), Source: source, Target: "db.fra:5432", Outcome: probe.Open, RTT: time.Millisecond,
		Attempts: 1, Stamp: probe.StampKernel, SynAck: &probe.SynAck{Seq: 7},
	}
}

// rows returns the results in a report.
func rows(r *synmeshv1.Report) (n int) {
	for range convert.Rows("", r) {
		n++
	}
	return n
}

func next(t *testing.T, s *Spool) *synmeshv1.Report {
	t.Helper()
	r, err := s.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestResultsAreGatheredBeforeTheyAreReported(t *testing.T) {
	tests := []struct {
		name     string
		add      func(*Spool)
		after    time.Duration
		results  int
		runsOver int
	}{
		{"those of a measurement for half a second", func(s *Spool) {
			s.Add(result(ofMeasurement))
			time.Sleep(499 * time.Millisecond)
			s.Add(result(ofMeasurement))
		}, 500 * time.Millisecond, 2, 0},
		{"those of a run for five milliseconds", func(s *Spool) {
			s.Add(result(ofRun))
			time.Sleep(4 * time.Millisecond)
			s.Add(result(ofRun))
		}, 5 * time.Millisecond, 2, 0},
		{"a run's result takes along what was waiting", func(s *Spool) {
			s.Add(result(ofMeasurement))
			time.Sleep(100 * time.Millisecond)
			s.Add(result(ofRun))
		}, 105 * time.Millisecond, 2, 0},
		{"a measurement's result does not hold up a run's", func(s *Spool) {
			s.Add(result(ofRun))
			s.Add(result(ofMeasurement))
		}, 5 * time.Millisecond, 2, 0},
		{"the end of a run waits for nothing", func(s *Spool) {
			s.Add(result(ofRun))
			s.EndRun(&synmeshv1.RunEnd{Run: ofRun, Produced: 1})
		}, 0, 1, 1},
		{"the end of a run that found nothing is a report as well", func(s *Spool) {
			s.EndRun(&synmeshv1.RunEnd{Run: ofRun, Error: "cancelled"})
		}, 0, 0, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, began := New(9), time.Now()
				go tt.add(s)
				r := next(t, s)
				if got := time.Since(began); got != tt.after {
					t.Errorf("reported after %v, want %v", got, tt.after)
				}
				if rows(r) != tt.results || len(r.GetRunEnds()) != tt.runsOver {
					t.Errorf("got %d results and %d ends of runs, want %d and %d", rows(r), len(r.GetRunEnds()), tt.results, tt.runsOver)
				}
				if r.GetEpoch() != 9 || r.GetSequence() != 1 {
					t.Errorf("got report %d of epoch %d, want the first of 9", r.GetSequence(), r.GetEpoch())
				}
			})
		})
	}
}

func TestOnlyRunsKeepSequenceNumbers(t *testing.T) {
	s := New(1)
	s.Add(result(ofMeasurement))
	s.Add(result(ofRun))
	s.EndRun(&synmeshv1.RunEnd{Run: ofRun})
	seqs := make(map[string]uint32)
	for r := range convert.Rows("", next(t, s)) {
		seqs[r.Source] = r.SynAck.Seq
	}
	if seqs[ofRun] != 7 || seqs[ofMeasurement] != 0 {
		t.Errorf("got the SYN-ACKs' sequence numbers %v, want that of the run alone", seqs)
	}
}

func TestNextEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, s := range []*Spool{New(1), withOne()} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			defer cancel()
			if _, err := s.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v, want the context's error", err)
			}
		}
	})
}

func withOne() *Spool {
	s := New(1)
	s.Add(result(ofMeasurement))
	return s
}

func TestReportsFitIntoAMessage(t *testing.T) {
	wide := func(i int) *probe.Result { // each with a block of its own, and the widest values
		r := result(ofRun)
		r.Time = time.Unix(0, int64(i%2)*math.MaxInt64)
		r.Source = RunPrefix + strings.Repeat("r", 30)
		r.Target = fmt.Sprintf("%0253d:65535", i)
		r.Remote = netip.MustParseAddrPort("[2001:db8::ffff:ffff:ffff]:65535")
		r.LocalPort, r.Attempts, r.Drops = math.MaxUint16, math.MaxUint32, math.MaxUint32
		r.RTT, r.Lateness, r.HostDelay = -1, -1, -1
		r.SynAck = &probe.SynAck{Seq: math.MaxUint32, Window: math.MaxUint16, MSS: math.MaxUint16, WindowScale: 14, SACKPermitted: true, Timestamps: true, TTL: 255}
		r.ICMP = &probe.ICMP{Type: 255, Code: 255, From: r.Remote.Addr()}
		r.Err = strings.Repeat("e", 300)
		r.SYN = math.MaxUint32
		r.Retry = &probe.Retry{Answered: math.MaxUint32, Lost: math.MaxUint8, Waited: -1}
		r.Close = &probe.Close{Ending: math.MaxUint8, Ack: -1, Fin: -1}
		return r
	}
	tests := []struct {
		name   string
		result func(int) *probe.Result
	}{
		{"of a thousand targets with long names", wide},
		{"of one target", func(i int) *probe.Result {
			r := wide(i)
			r.Target = "a:1"
			return r
		}},
		{"of ordinary results", func(i int) *probe.Result {
			r := result(ofMeasurement)
			r.Target = fmt.Sprintf("10.0.%d.%d:5432", i/256%256, i%256)
			return r
		}},
	}
	const n = 20_000
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := New(math.MaxUint64)
			for i := range n {
				s.Add(tt.result(i))
			}
			for i := range 5000 {
				s.EndRun(&synmeshv1.RunEnd{Run: fmt.Sprint(RunPrefix, i), Produced: math.MaxUint64, Error: strings.Repeat("e", 300)})
			}
			all := 0
			for all < n || s.unsent < len(s.reports) || len(s.ends) > 0 {
				r := next(t, s)
				if size := proto.Size(r); size > maxReport {
					t.Errorf("report %d has %d bytes; at most %d are wanted", r.GetSequence(), size, maxReport)
				}
				all += rows(r)
			}
			if all != n {
				t.Errorf("got %d results, want %d", all, n)
			}
		})
	}
}

func TestAFullSpoolDropsWhatIsOldest(t *testing.T) {
	fill := func(s *Spool, n int) {
		for range n {
			s.Add(result(ofMeasurement))
		}
	}
	seal := func(s *Spool) { // what is open, as if its time had come
		s.mu.Lock()
		defer s.mu.Unlock()
		s.seal()
	}
	tests := []struct {
		name          string
		before        func(*testing.T, *Spool)
		held, dropped int
		sequence      uint64 // of the next report
	}{
		{"of what is in no report yet, all", func(_ *testing.T, s *Spool) { fill(s, 10) }, 1, 10, 1},
		{"of the reports, the first", func(_ *testing.T, s *Spool) {
			fill(s, 4)
			seal(s)
			fill(s, 6)
			seal(s)
		}, 7, 4, 2},
		{"but not a report that is under way, which may be stored by now", func(t *testing.T, s *Spool) {
			fill(s, 4)
			seal(s)
			fill(s, 6)
			seal(s)
			next(t, s)
		}, 5, 6, 3},
		{"but what is new, if all is under way", func(t *testing.T, s *Spool) {
			fill(s, 10)
			seal(s)
			next(t, s)
		}, 10, 1, 0},
		{"also what was under way when the session ended", func(t *testing.T, s *Spool) {
			fill(s, 4)
			seal(s)
			fill(s, 6)
			seal(s)
			next(t, s)
			s.Rewind(0)
		}, 7, 4, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := New(1)
				s.limit = 10
				tt.before(t, s)
				s.Add(result(ofMeasurement))
				if held, dropped := s.Counts(); held != tt.held || dropped != uint64(tt.dropped) {
					t.Errorf("%d are held and %d dropped, want %d and %d", held, dropped, tt.held, tt.dropped)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				r, err := s.Next(ctx)
				if tt.sequence == 0 {
					if err == nil {
						t.Errorf("got report %d, want none", r.GetSequence())
					}
				} else if err != nil || r.GetSequence() != tt.sequence {
					t.Errorf("got report %d and error %v, want report %d", r.GetSequence(), err, tt.sequence)
				}
			})
		})
	}
}

func TestTheEndOfARunOutlivesItsResults(t *testing.T) {
	s := New(1)
	s.limit = 3
	for range 3 {
		s.Add(result(ofRun))
	}
	s.EndRun(&synmeshv1.RunEnd{Run: ofRun, Produced: 3})
	s.mu.Lock()
	s.seal()
	s.mu.Unlock()
	s.Add(result(ofMeasurement)) // drops all three
	s.EndRun(&synmeshv1.RunEnd{Run: "runs/other"})
	r := next(t, s)
	if len(r.GetRunEnds()) != 2 || r.GetRunEnds()[0].GetRun() != ofRun || r.GetRunEnds()[0].GetProduced() != 3 {
		t.Errorf("got the ends %v, want that of %s first", r.GetRunEnds(), ofRun)
	}
	if _, dropped := s.Counts(); dropped != 3 {
		t.Errorf("%d are dropped, want 3", dropped)
	}
}

func TestManyMayAddWhileOneReports(t *testing.T) {
	const adders, each = 8, 2_000
	s := New(1)
	ctx, cancel := context.WithCancel(t.Context())
	var adding, reporting sync.WaitGroup
	for range adders {
		adding.Go(func() {
			for range each {
				s.Add(result(ofRun))
			}
			s.EndRun(&synmeshv1.RunEnd{Run: ofRun})
		})
	}
	stored, sequence := 0, uint64(0)
	reporting.Go(func() {
		for {
			r, err := s.Next(ctx)
			if err != nil {
				return
			}
			if r.GetSequence() != sequence+1 {
				t.Errorf("report %d comes after %d", r.GetSequence(), sequence)
			}
			sequence = r.GetSequence()
			stored += rows(r)
			s.Acknowledge(sequence)
			if stored == adders*each {
				cancel()
			}
		}
	})
	adding.Wait()
	reporting.Wait()
	if held, dropped := s.Counts(); stored != adders*each || held != 0 || dropped != 0 {
		t.Errorf("%d stored, %d held and %d dropped of %d", stored, held, dropped, adders*each)
	}
}

func BenchmarkAdd(b *testing.B) {
	s, r := New(1), result(ofMeasurement)
	b.ReportAllocs()
	for b.Loop() {
		s.Add(r)
	}
}
