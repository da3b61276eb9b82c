package spool

import (
	"math"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// Of these spools most do not run: their writer waits for the disk, say.

func TestARunsResultsAreShownBeforeTheDiskHasThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, Config{Dir: t.TempDir()})
		defer s.Close()
		s.Begin(nil, 1<<20, true)
		began := time.Now()
		go func() {
			s.Add(result(ofMeasurement))
			s.Add(result(ofRun))
			time.Sleep(time.Millisecond)
			s.Add(result(ofRun))
		}()
		p := message(t, s).GetPreview()
		if took := time.Since(began); took != hurry || p.GetNumber() != 1 || rows(&synmeshv1.Report{Blocks: p.GetBlocks()}) != 2 {
			t.Errorf("after %v comes %v, want the two results of the run after %v", took, p, hurry)
		}
		must(t, s.write(s.takeAll()))
		r := message(t, s).GetReport()
		if r.GetPreview() != 1 || rows(r) != 3 {
			t.Errorf("the report is %v, want all three results, with the preview's number", r)
		}
		r.Blocks = r.GetBlocks()[len(r.GetBlocks())-len(p.GetBlocks()):]
		if d := gocmp.Diff(p.GetBlocks(), r.GetBlocks(), protocmp.Transform()); d != "" {
			t.Errorf("the report has others than the preview: %s", d)
		}
		wantNone(t, s)
	})
}

func TestTheEndOfARunIsNoMatterOfAPreview(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, Config{Dir: t.TempDir()})
		defer s.Close()
		s.Begin(nil, 1<<20, true)
		began := time.Now()
		go func() {
			s.Add(result(ofRun))
			time.Sleep(time.Millisecond)
			s.EndRun(&synmeshv1.RunEnd{Run: ofRun, Produced: 1})
		}()
		if p := message(t, s).GetPreview(); len(p.GetBlocks()) != 1 || time.Since(began) != time.Millisecond {
			t.Errorf("after %v comes %v, want the result as soon as the run ends", time.Since(began), p)
		}
		wantNone(t, s)
		must(t, s.write(s.takeAll()))
		if r := message(t, s).GetReport(); rows(r) != 1 || len(r.GetRunEnds()) != 1 {
			t.Errorf("the report is %v, want the result and the end", r)
		}
	})
}

func TestWhatIsNotPreviewed(t *testing.T) {
	large := result(ofRun)
	large.Err = strings.Repeat("e", maxPreview)
	tests := []struct {
		name   string
		begin  func(*Spool)
		add    func(*Spool)
		number uint64 // in the report
	}{
		{"results of measurements", nil, func(s *Spool) { s.Add(result(ofMeasurement)) }, 0},
		{"a report that takes long to send", nil, func(s *Spool) { s.Add(large) }, 0},
		{"the end of a run alone", nil, func(s *Spool) { s.EndRun(&synmeshv1.RunEnd{Run: ofRun}) }, 0},
		{"anything for a controller that knows no previews", func(s *Spool) { s.Begin(nil, math.MaxInt64, false) }, func(s *Spool) { s.Add(result(ofRun)) }, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, Config{Dir: t.TempDir()})
			defer s.Close()
			s.Begin(nil, math.MaxInt64, true)
			if tt.begin != nil {
				tt.begin(s)
			}
			tt.add(s)
			batch := s.takeAll()
			wantNone(t, s)
			must(t, s.write(batch))
			if r := message(t, s).GetReport(); r == nil || r.GetPreview() != tt.number {
				t.Errorf("sent is report %v with the number %d, want %d", r.GetSequence(), r.GetPreview(), tt.number)
			}
		})
	}
}

// Who is behind with reports has no time for previews.
func TestPreviewsNeverTakeThePlaceOfReports(t *testing.T) {
	s := open(t, Config{Dir: t.TempDir()})
	defer s.Close()
	s.Begin(nil, 1, true)
	put(t, s, 1)
	put(t, s, 1)
	first := next(t, s)
	s.Add(result(ofRun))
	batch := s.takeAll()
	wantNone(t, s) // for there is no credit for the second
	s.Acknowledge(first.GetEpoch(), 1)
	if m := message(t, s); m.GetReport().GetSequence() != 2 {
		t.Errorf("sent is %v, want report 2", m)
	}
	if m := message(t, s); m.GetPreview() == nil {
		t.Errorf("sent is %v, want the preview", m)
	}
	must(t, s.write(batch))
}

// What could not be written gets other sequences, or is dropped.
func TestAPreviewKeepsItsNumberWhateverBecomesOfTheDisk(t *testing.T) {
	cfg := Config{Dir: t.TempDir(), MaxReport: maxPreview}
	s := open(t, cfg)
	defer s.Close()
	put(t, s, 1)
	s.Begin(nil, math.MaxInt64, true)
	s.Acknowledge(next(t, s).GetEpoch(), 1)
	wide := result(ofRun)
	add := func(rtt int) {
		wide.RTT, wide.Err = time.Duration(rtt), strings.Repeat("e", 200_000)
		s.Add(wide) // which is a report of its own, as soon as there is another
	}
	of := make(map[uint64]string)
	preview := func() {
		t.Helper()
		p := message(t, s).GetPreview()
		if p == nil || of[p.GetNumber()] != "" {
			t.Fatalf("sent is preview %d, after %d others", p.GetNumber(), len(of))
		}
		of[p.GetNumber()] = marshalled(t, p.GetBlocks())
	}
	add(1)
	add(2)
	batch := s.takeAll()
	preview()
	preview()
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	must(t, err)
	must(t, s.active.Close())
	s.active = full
	if err := s.write(batch); err == nil {
		t.Fatal("a write to a full disk has worked")
	}
	s.giveBack(batch)
	wantNone(t, s) // both have been sent
	const many = 400
	for n := range many { // more than there is room for, so the first go
		add(n + 3)
	}
	if s.drops[Full] == 0 {
		t.Fatal("nothing was dropped")
	}
	batch = s.takeAll()
	preview()
	for ; len(batch) > 0; batch = s.takeAll() {
		must(t, s.write(batch))
	}
	numbers, found := make(map[uint64]bool), 0
	for s.held > 0 {
		r := next(t, s)
		s.Acknowledge(r.GetEpoch(), r.GetSequence())
		n := r.GetPreview()
		if n == 0 || numbers[n] {
			t.Fatalf("report %d has the number %d, after %d others", r.GetSequence(), n, len(numbers))
		}
		numbers[n] = true
		if of[n] != "" {
			found++
			if of[n] != marshalled(t, r.GetBlocks()) {
				t.Errorf("report %d has the number %d of another preview", r.GetSequence(), n)
			}
		}
	}
	if found != 1 || numbers[1] || numbers[2] {
		t.Errorf("%d reports of previews are sent, want that of the third: the others were dropped", found)
	}
}

func marshalled(t *testing.T, blocks []*synmeshv1.ResultBlock) string {
	t.Helper()
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(&synmeshv1.Report{Blocks: blocks})
	must(t, err)
	return string(b)
}

// A session that ends takes along what it was told; the next is told nothing twice.
func TestAPreviewIsSentOnce(t *testing.T) {
	s := open(t, Config{Dir: t.TempDir()})
	defer s.Close()
	s.Begin(nil, 1<<20, true)
	s.Add(result(ofRun))
	batch := s.takeAll()
	if message(t, s).GetPreview() == nil {
		t.Error("there is no preview")
	}
	s.Begin(nil, 1<<20, true)
	wantNone(t, s)
	must(t, s.write(batch))
	if r := next(t, s); r.GetPreview() != 1 {
		t.Errorf("the report has the number %d, want 1", r.GetPreview())
	}
}
