package spool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/synmesh/synmesh/internal/convert"
	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, cfg Config) *Spool {
	t.Helper()
	s, err := Open(cfg)
	must(t, err)
	return s
}

// running returns a Spool that runs and has a session, until the test ends.
func running(t testing.TB, cfg Config) *Spool {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	s := open(t, cfg)
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		must(t, <-ran)
	})
	s.Begin(nil, 64<<20, true)
	return s
}

// rows returns the results in a report.
func rows(r *synmeshv1.Report) (n int) {
	for range convert.Rows("", r) {
		n++
	}
	return n
}

// decoded is what Next returns, as the controller sees it.
func decoded(message []byte, err error) (*synmeshv1.SessionRequest, error) {
	if err != nil {
		return nil, err
	}
	m := &synmeshv1.SessionRequest{}
	return m, proto.Unmarshal(message, m)
}

// next returns the next report. Previews are passed over.
func next(t testing.TB, s *Spool) *synmeshv1.Report {
	t.Helper()
	for {
		if m := message(t, s); m.GetPreview() == nil {
			return m.GetReport()
		}
	}
}

func message(t testing.TB, s *Spool) *synmeshv1.SessionRequest {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	m, err := decoded(s.Next(ctx))
	must(t, err)
	return m
}

// wantNone looks that nothing is to be sent now.
func wantNone(t testing.TB, s *Spool) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if m, err := decoded(s.Next(ctx)); err == nil {
		t.Errorf("%v is to be sent, want nothing", m)
	}
}

// put has n results written as one report, of a Spool that does not run.
func put(t testing.TB, s *Spool, n int) {
	t.Helper()
	for range n {
		s.Add(result(ofMeasurement))
	}
	must(t, s.write(s.takeAll()))
}

func TestResultsAreGatheredBeforeTheyAreReported(t *testing.T) {
	tests := []struct {
		name     string
		add      func(*Spool)
		after    time.Duration
		results  int
		runsOver int
	}{
		{"those of a measurement for a fifth of a second", func(s *Spool) {
			s.Add(result(ofMeasurement))
			time.Sleep(199 * time.Millisecond)
			s.Add(result(ofMeasurement))
		}, 200 * time.Millisecond, 2, 0},
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
			time.Sleep(time.Millisecond)
			s.EndRun(&synmeshv1.RunEnd{Run: ofRun, Produced: 1})
		}, time.Millisecond, 1, 1},
		{"the end of a run that found nothing is a report as well", func(s *Spool) {
			s.EndRun(&synmeshv1.RunEnd{Run: ofRun, Error: "cancelled"})
		}, 0, 0, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := running(t, Config{})
				began := time.Now()
				go tt.add(s)
				r := next(t, s)
				if got := time.Since(began); got != tt.after {
					t.Errorf("reported after %v, want %v", got, tt.after)
				}
				if rows(r) != tt.results || len(r.GetRunEnds()) != tt.runsOver {
					t.Errorf("got %d results and %d ends of runs, want %d and %d", rows(r), len(r.GetRunEnds()), tt.results, tt.runsOver)
				}
				fresh, older := s.Epochs()
				if r.GetEpoch() != fresh || r.GetSequence() != 1 || r.GetProduced() != uint64(tt.results) || len(older) != 0 {
					t.Errorf("got report %d of epoch %d, with %d produced", r.GetSequence(), r.GetEpoch(), r.GetProduced())
				}
			})
		})
	}
}

func TestOnlyRunsKeepSequenceNumbers(t *testing.T) {
	s := running(t, Config{Gather: time.Hour})
	s.Add(result(ofMeasurement))
	s.Add(result(ofRun))
	seqs := make(map[string]uint32)
	for r := range convert.Rows("", next(t, s)) {
		seqs[r.Source] = r.SynAck.Seq
	}
	if seqs[ofRun] != 7 || seqs[ofMeasurement] != 0 {
		t.Errorf("got the SYN-ACKs' sequence numbers %v, want that of the run alone", seqs)
	}
}

func TestWhatWasWrittenLastIsSentWithoutReadingItBack(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Config{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	defer s.Close()
	s.Begin(nil, math.MaxInt64, true)
	wreck := func() {
		t.Helper()
		must(t, os.WriteFile(s.folder.name(0, true), make([]byte, 1<<20), 0o600))
	}
	put(t, s, 1)
	next(t, s) // from now on the file has its second name
	put(t, s, 3)
	wreck()
	if r := next(t, s); r.GetSequence() != 2 || rows(r) != 3 {
		t.Errorf("report %d with %d results is sent; want report 2 with 3, from memory", r.GetSequence(), rows(r))
	}
	put(t, s, 3)
	put(t, s, 3) // takes the place of those before
	wreck()
	wantNone(t, s)
}

func TestNextEndsWithItsContext(t *testing.T) {
	s := running(t, Config{Gather: time.Hour})
	s.Add(result(ofMeasurement))
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := s.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the context's error", err)
	}
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
			s := open(t, Config{Dir: t.TempDir(), Gather: time.Hour})
			for i := range n {
				s.Add(tt.result(i))
			}
			for i := range 5000 {
				s.EndRun(&synmeshv1.RunEnd{Run: fmt.Sprint(RunPrefix, i), Produced: math.MaxUint64, Error: strings.Repeat("e", 300)})
			}
			for batch := s.takeAll(); len(batch) > 0; batch = s.takeAll() {
				must(t, s.write(batch))
			}
			defer s.Close()
			s.Begin(nil, math.MaxInt64, true)
			all := 0
			for s.held > 0 {
				r := next(t, s)
				s.Acknowledge(r.GetEpoch(), r.GetSequence())
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

func TestAFolderIsForOneProcess(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Config{Dir: dir})
	_, err := Open(Config{Dir: dir})
	if err == nil || !strings.Contains(err.Error(), "another process uses it") || !strings.Contains(err.Error(), dir) {
		t.Errorf("a second spool in the folder: %v", err)
	}
	must(t, s.Close())
	must(t, open(t, Config{Dir: dir}).Close())
}

func TestWhatIsOldDoesNotHoldUpWhatIsNew(t *testing.T) {
	cfg := Config{Dir: t.TempDir()}
	s := open(t, cfg)
	for range 100 {
		put(t, s, 1)
	}
	must(t, s.Close())

	s = open(t, cfg)
	defer s.Close()
	put(t, s, 1)
	fresh, older := s.Epochs()
	if len(older) != 1 || older[0] == fresh {
		t.Fatalf("the epochs are %x and before %x", fresh, older)
	}
	s.Begin(map[uint64]uint64{older[0]: 7}, 1<<20, true)
	first, second, third := next(t, s), next(t, s), next(t, s)
	if first.GetEpoch() != older[0] || first.GetSequence() != 8 || second.GetEpoch() != fresh || third.GetSequence() != 9 {
		t.Errorf("sent are %d of %x, %d of %x, %d of %x", first.GetSequence(), first.GetEpoch(), second.GetSequence(), second.GetEpoch(), third.GetSequence(), third.GetEpoch())
	}
	for range maxOld - 2 {
		next(t, s)
	}
	wantNone(t, s)
	put(t, s, 1)
	if r := next(t, s); r.GetEpoch() != fresh || r.GetSequence() != 2 {
		t.Errorf("with much under way, %d of %x is sent, want the new one", r.GetSequence(), r.GetEpoch())
	}
}

func TestASessionThatFindsMuchBeginsALane(t *testing.T) {
	s := open(t, Config{Dir: t.TempDir()})
	defer s.Close()
	for range 40 {
		put(t, s, 3000)
	}
	before, _ := s.Epochs()
	s.Begin(nil, 1<<20, true)
	fresh, older := s.Epochs()
	if fresh == before || len(older) != 1 || older[0] != before {
		t.Errorf("the epochs are %x and before %x, want one more than %x", fresh, older, before)
	}
	put(t, s, 1)
	next(t, s)
	if r := next(t, s); r.GetEpoch() != fresh {
		t.Error("what is new waits behind what is old")
	}
}

// A folder that was set back to what it had been would use sequences again.
func TestSequencesThatTheControllerKnowsAreNotUsedAgain(t *testing.T) {
	s := open(t, Config{Dir: t.TempDir()})
	defer s.Close()
	before, _ := s.Epochs()
	s.Begin(map[uint64]uint64{before: 5}, 1<<20, true)
	put(t, s, 1)
	if r := next(t, s); r.GetEpoch() == before {
		t.Errorf("report %d is sent, and the controller has 5 already", r.GetSequence())
	}
}

func TestCreditBoundsWhatIsUnderWay(t *testing.T) {
	s := open(t, Config{Dir: t.TempDir()})
	defer s.Close()
	for range 5 {
		put(t, s, 10)
	}
	s.Begin(nil, 1, true)
	first := next(t, s) // one may always
	wantNone(t, s)
	s.Acknowledge(first.GetEpoch(), first.GetSequence())
	next(t, s)
	wantNone(t, s)
	s.SetCredit(1 << 20)
	if r := next(t, s); r.GetSequence() != 3 {
		t.Errorf("with more credit, report %d is sent, want 3", r.GetSequence())
	}
}

func TestARejectedReportIsDroppedAndTheNextAreSentAgain(t *testing.T) {
	cfg := Config{Dir: t.TempDir()}
	s := open(t, cfg)
	for n := range 3 {
		put(t, s, n+1)
	}
	s.Begin(nil, 1<<20, true)
	var last *synmeshv1.Report
	for range 3 {
		last = next(t, s)
	}
	s.Reject(last.GetEpoch(), 2)
	wantNone(t, s) // until it counts for good
	must(t, s.write(nil))
	m, err := decoded(s.Next(t.Context()))
	must(t, err)
	if m.GetResume().GetEpoch() != last.GetEpoch() {
		t.Errorf("sent is %v, want a resume", m)
	}
	if r := next(t, s); r.GetSequence() != 3 {
		t.Errorf("report %d is sent, want 3", r.GetSequence())
	}
	must(t, s.Close()) // and it is not sent again by the next process
	s = open(t, cfg)
	defer s.Close()
	if st := s.Status(); st.Produced != 6 || st.Held != 3 || st.Dropped[Rejected] != 2 {
		t.Errorf("after a restart: %+v, want 3 held and 2 rejected of 6", st)
	}
}

// A disk may be full, or its folder away.
func TestADiskThatTakesNothingIsSurvived(t *testing.T) {
	cfg := Config{Dir: t.TempDir()}
	s := open(t, cfg)
	put(t, s, 1)
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	must(t, err)
	must(t, s.active.Close())
	s.active = full
	away := cfg.Dir + "-away"
	must(t, os.Rename(cfg.Dir, away))
	s.failing = true
	for i := range 3 { // first by write, then by making another segment
		s.Add(result(ofMeasurement))
		batch := s.takeAll()
		if err := s.write(batch); err == nil {
			t.Fatalf("write %d has worked", i+1)
		}
		s.giveBack(batch)
	}
	if st := s.Status(); st.Produced != 4 || st.Held != 4 || st.Pending != 3 {
		t.Errorf("while the disk takes nothing: %+v", st)
	}
	wide := result(ofMeasurement)
	wide.Err = strings.Repeat("e", 100_000)
	const many = 1000
	for range many {
		s.Add(wide)
	}
	st := s.Status()
	if st.Dropped[Disk] < 100 || st.Produced != many+4 || st.Held+st.Dropped.Sum() != st.Produced {
		t.Errorf("when the memory was full: %+v", st)
	}
	must(t, os.Rename(away, cfg.Dir))
	for batch := s.takeAll(); len(batch) > 0; batch = s.takeAll() {
		must(t, s.write(batch))
	}
	after := s.Status()
	if after.Produced != st.Produced || after.Dropped != st.Dropped || after.Pending != 0 {
		t.Errorf("when it was there again: %+v, before %+v", after, st)
	}
	must(t, s.Close())
	s = open(t, cfg)
	defer s.Close()
	if again := s.Status(); again != after {
		t.Errorf("after a restart: %+v, before %+v", again, after)
	}
}

func TestTheEndOfARunOutlivesItsResults(t *testing.T) {
	s := open(t, Config{Dir: t.TempDir(), Limit: 1})
	defer s.Close()
	s.Add(result(ofRun))
	s.EndRun(&synmeshv1.RunEnd{Run: ofRun, Produced: 1})
	must(t, s.write(s.takeAll()))
	if st := s.Status(); st.Dropped[Full] != 1 || st.Produced != 1 {
		t.Errorf("%+v, want one dropped for there is no room", st)
	}
	s.cfg.Limit = 1 << 20
	must(t, s.write(s.takeAll()))
	s.Begin(nil, 1<<20, true)
	if r := next(t, s); len(r.GetRunEnds()) != 1 || rows(r) != 0 {
		t.Errorf("sent is %v, want the end of the run alone", r)
	}
}

// A report that the controller cannot take would stop its lane for ever.
func TestEndsThatAreKeptFitIntoMessages(t *testing.T) {
	s := open(t, Config{Dir: t.TempDir()})
	defer s.Close()
	const runs = 5000
	for i := range runs {
		s.EndRun(&synmeshv1.RunEnd{Run: fmt.Sprint(RunPrefix, i), Error: strings.Repeat("e", 300)})
	}
	wide := result(ofMeasurement)
	wide.Err = strings.Repeat("e", 500_000)
	for range maxQueue / len(wide.Err) * 2 {
		s.Add(wide)
	}
	ends := 0
	for _, p := range s.queue {
		if p.weight > maxReport {
			t.Errorf("%d bytes wait to be one report; at most %d are wanted", p.weight, maxReport)
		}
		ends += len(p.ends)
	}
	if st := s.Status(); ends != runs || st.Dropped[Full] == 0 || st.Held+st.Dropped.Sum() != st.Produced || s.queued > maxQueue+2*maxReport {
		t.Errorf("%d ends wait, of %d runs; %d bytes wait; %+v", ends, runs, s.queued, st)
	}
}

func TestAResultThatNoMessageCanHoldIsDropped(t *testing.T) {
	s := open(t, Config{Dir: t.TempDir()})
	defer s.Close()
	bad := result(ofMeasurement)
	bad.Err = "\xff"
	s.Add(bad)
	must(t, s.write(s.takeAll()))
	put(t, s, 2)
	if st := s.Status(); st.Dropped[Rejected] != 1 || st.Held != 2 || st.Pending != 0 || st.Produced != 3 {
		t.Errorf("%+v, want one of 3 dropped", st)
	}
}

func TestManyMayAddWhileOneReports(t *testing.T) {
	const adders, each = 8, 2_000
	s := running(t, Config{})
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
		for stored < adders*each {
			r := next(t, s)
			if r.GetSequence() != sequence+1 {
				t.Errorf("report %d comes after %d", r.GetSequence(), sequence)
			}
			sequence = r.GetSequence()
			stored += rows(r)
			s.Acknowledge(r.GetEpoch(), sequence)
		}
	})
	adding.Wait()
	reporting.Wait()
	if st := s.Status(); st.Held != 0 || st.Dropped.Sum() != 0 || st.Produced != adders*each {
		t.Errorf("%+v, want all stored", st)
	}
}

// Between the removal of what was dropped and the end of the write a session may begin.
func TestADroppedSegmentIsNotLookedFor(t *testing.T) {
	var log bytes.Buffer
	cfg := Config{Dir: t.TempDir(), Limit: 64 << 10, Logger: slog.New(slog.NewTextHandler(&log, nil))}
	s := open(t, cfg)
	defer s.Close()
	for len(s.lanes[0].segments) < 2 {
		put(t, s, 4)
	}
	g := s.lanes[0].segments[0]
	results := g.left
	s.drop(Full, results)
	s.settle(g, results)
	g.gone = true
	s.removeFile(g)
	s.Begin(nil, 1<<20, true)
	if r := next(t, s); r.GetSequence() != g.last+1 {
		t.Errorf("report %d is sent, want %d", r.GetSequence(), g.last+1)
	}
	if log.Len() > 0 {
		t.Errorf("nothing is wrong, and the log says: %s", &log)
	}
}

// block has a file of the folder not be opened, by root either, until free is called.
func block(t *testing.T, dir, pattern string) (free func()) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(found) == 0 {
		t.Fatal(found, err)
	}
	path := found[0]
	must(t, os.Rename(path, path+"-away"))
	must(t, os.Symlink(path, path))
	return func() { must(t, os.Rename(path+"-away", path)) }
}

// There may be no file descriptor left, or the rights may be wrong: that passes.
func TestASegmentThatCannotBeOpenedNowIsNotLost(t *testing.T) {
	cfg := Config{Dir: t.TempDir()}
	s := open(t, cfg)
	for range 3 {
		put(t, s, 2)
	}
	s.Begin(nil, 1<<20, true)
	free := block(t, cfg.Dir, "*.segment")
	wantNone(t, s)
	free()
	s.Acknowledge(next(t, s).GetEpoch(), 1)

	free = block(t, cfg.Dir, "*.sent")
	s.Begin(nil, 1<<20, true) // cannot look up where the second begins
	wantNone(t, s)
	must(t, s.write(nil))
	free()
	for sequence := uint64(2); sequence <= 3; sequence++ {
		r := next(t, s)
		if r.GetSequence() != sequence {
			t.Fatalf("report %d is sent, want %d", r.GetSequence(), sequence)
		}
	}
	must(t, s.Close())

	free = block(t, cfg.Dir, "*.sent")
	if s, err := Open(cfg); err == nil {
		_ = s.Close()
		t.Error("a segment that cannot be opened is passed over")
	} else if !strings.Contains(err.Error(), ".sent") {
		t.Errorf("%v does not say which", err)
	}
	free()
	s = open(t, cfg)
	defer s.Close()
	old := s.lanes[0].epoch
	s.Begin(map[uint64]uint64{old: 1}, 1<<20, true)
	for sequence := uint64(2); sequence <= 3; sequence++ {
		s.Acknowledge(old, next(t, s).GetSequence())
	}
	if st := s.Status(); st.Produced != 6 || st.Held != 0 || st.Dropped.Sum() != 0 {
		t.Errorf("%+v, want 6 produced, and all stored", st)
	}
}

func TestWhatIsStoredOfASegmentThatCouldNotBeReadIsNotDropped(t *testing.T) {
	cfg := Config{Dir: t.TempDir()}
	s := open(t, cfg)
	defer s.Close()
	for range 3 {
		put(t, s, 2)
	}
	s.Begin(nil, 1<<20, true)
	r := next(t, s)
	free := block(t, cfg.Dir, "*.sent")
	s.Begin(map[uint64]uint64{r.GetEpoch(): 1}, 1<<20, true)
	free()
	for range 2 {
		s.Acknowledge(r.GetEpoch(), next(t, s).GetSequence())
	}
	if st := s.Status(); st.Produced != 6 || st.Held != 0 || st.Dropped.Sum() != 0 {
		t.Errorf("%+v, want 6 produced, and all stored", st)
	}
}

// One bit of what is on disk is another. That costs one report at most, and it is counted.
func TestADamagedBitCostsItsRecordOnly(t *testing.T) {
	const reports, each = 30, 4
	original := t.TempDir()
	s := open(t, Config{Dir: original, Limit: 64 << 10})
	for range reports {
		put(t, s, each)
	}
	size := 0
	for _, g := range s.lanes[0].segments {
		size += int(g.size)
	}
	if n := len(s.lanes[0].segments); n < 2 {
		t.Fatalf("%d segments; the test wants several", n)
	}
	must(t, s.Close())
	tail := 0
	for at := 0; at < size; at += 31 {
		dir := t.TempDir()
		must(t, os.CopyFS(dir, os.DirFS(original)))
		flip(t, dir, at)
		s := open(t, Config{Dir: dir, Limit: 64 << 10, Logger: slog.New(slog.DiscardHandler)})
		s.Begin(nil, 1<<20, true)
		stored := 0
		for {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			m, err := decoded(s.Next(ctx))
			if err != nil && !s.dirty() {
				break
			}
			must(t, s.write(nil))
			stored += rows(m.GetReport())
			s.Acknowledge(m.GetReport().GetEpoch(), m.GetReport().GetSequence())
		}
		st := s.Status()
		if stored < (reports-1)*each || uint64(stored)+st.Dropped[Corrupt] != st.Produced || st.Held != 0 {
			t.Fatalf("byte %d: %d are stored, and the counts are %+v", at, stored, st)
		}
		if st.Produced != reports*each {
			tail++ // the header of the very last record: nothing tells of it
		}
		must(t, s.Close())
	}
	if tail > headerSize/31+1 {
		t.Errorf("%d flips were not noticed, more than there are in the last header", tail)
	}
}

// flip changes a bit at an offset into all segments together.
func flip(t *testing.T, dir string, at int) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"+segmentSuffix))
	must(t, err)
	for _, name := range files {
		b, err := os.ReadFile(name)
		must(t, err)
		if at < len(b) {
			b[at] ^= 1 << (at % 8)
			must(t, os.WriteFile(name, b, 0o600))
			return
		}
		at -= len(b)
	}
}

// Whatever is in the folder, a spool opens, and works.
func FuzzSegment(f *testing.F) {
	dir := f.TempDir()
	s := open(f, Config{Dir: dir})
	put(f, s, 3)
	put(f, s, 2)
	must(f, s.Close())
	whole, err := os.ReadFile(filepath.Join(dir, "0000000000000000"+segmentSuffix))
	must(f, err)
	f.Add(whole)
	f.Add(whole[:len(whole)-1])
	f.Add(whole[30:])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, content []byte) {
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, "0000000000000003"+segmentSuffix), content, 0o600))
		s := open(t, Config{Dir: dir})
		defer s.Close()
		s.Begin(nil, math.MaxInt64, true)
		put(t, s, 1)
		for {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			m, err := decoded(s.Next(ctx))
			if err != nil && !s.dirty() {
				break
			}
			must(t, s.write(nil))
			r := m.GetReport()
			s.Acknowledge(r.GetEpoch(), r.GetSequence())
		}
		if _, err := os.Stat(filepath.Join(dir, "0000000000000003"+segmentSuffix)); err == nil {
			t.Error("a segment is left that nothing more can be read of")
		}
	})
}

func FuzzCounts(f *testing.F) {
	f.Add((&counts{unwritten: 1, marks: []mark{{2, 3}}, gone: []uint64{4}}).append(nil))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := parseCounts(b)
		if err == nil && string(c.append(nil)) != string(b) {
			t.Errorf("%x becomes %x", b, c.append(nil))
		}
	})
}

func BenchmarkAdd(b *testing.B) {
	s, r := running(b, Config{}), result(ofMeasurement)
	b.ReportAllocs()
	for b.Loop() {
		s.Add(r)
	}
}

// How long a run's end takes through the disk.
func BenchmarkThroughTheDisk(b *testing.B) {
	s := running(b, Config{})
	for b.Loop() {
		s.Add(result(ofRun))
		s.EndRun(&synmeshv1.RunEnd{Run: ofRun})
		r := next(b, s)
		s.Acknowledge(r.GetEpoch(), r.GetSequence())
	}
}
