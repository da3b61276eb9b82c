package tasks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// prober does every Spec until it is told to stop. It is told by the port of
// the first target what is going on.
type prober struct {
	mu    sync.Mutex
	going map[uint16]int // how many Do are under way
	most  map[uint16]int // and were at once
	begun map[uint16]int
	fail  map[uint16]error // what Do returns at once
	ends  map[uint16]int   // after how many results Do ends by itself; 0: never
	slow  time.Duration    // how long Do takes to notice that it was cancelled
}

func newProber() *prober {
	return &prober{going: make(map[uint16]int), most: make(map[uint16]int), begun: make(map[uint16]int),
		fail: make(map[uint16]error), ends: make(map[uint16]int)}
}

func (p *prober) Do(ctx context.Context, s probe.Spec, emit func(*probe.Result)) error {
	port := s.Targets[0].Port
	p.mu.Lock()
	p.begun[port]++
	p.going[port]++
	p.most[port] = max(p.most[port], p.going[port])
	fail, ends := p.fail[port], p.ends[port]
	p.mu.Unlock()
	defer func() {
		time.Sleep(p.slow)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.going[port]--
	}()
	if fail != nil {
		return fail
	}
	tick := time.NewTicker(s.Interval)
	defer tick.Stop()
	for n := 1; ; n++ {
		emit(&probe.Result{Target: s.Targets[0].Name, Outcome: probe.Open})
		if n == ends {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// state returns which ports are being probed, and how often it was begun with one.
func (p *prober) state(port uint16) (going, begun int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.going[port], p.begun[port]
}

// sink counts results by their source, and keeps the ends of runs.
type sink struct {
	mu      sync.Mutex
	results map[string]int
	ends    []*synmeshv1.RunEnd
}

func (s *sink) Add(r *probe.Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.results[r.Source]++
}

func (s *sink) EndRun(e *synmeshv1.RunEnd) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ends = append(s.ends, e)
}

func (s *sink) count(source string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.results[source]
}

// end returns the only end of a run there is.
func (s *sink) end(t *testing.T) *synmeshv1.RunEnd {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ends) != 1 {
		t.Fatalf("%d runs have ended, want one: %v", len(s.ends), s.ends)
	}
	return s.ends[0]
}

// bench is a Tasks that runs, in a bubble of synctest.
type bench struct {
	*Tasks
	t      *testing.T
	prober *prober
	sink   *sink
	log    bytes.Buffer // to be read when all is at rest
	stop   func()
}

func run(t *testing.T, f func(*bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t, prober: newProber(), sink: &sink{results: make(map[string]int)}}
		b.Tasks = New(b.prober, b.sink, slog.New(slog.NewTextHandler(&b.log, nil)))
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- b.Run(ctx) }()
		b.stop = sync.OnceFunc(func() {
			cancel()
			if err := <-ran; err != nil {
				t.Errorf("Run: %v", err)
			}
		})
		defer b.stop()
		b.Connected()
		f(b)
	})
}

func (b *bench) going(ports ...uint16) {
	b.t.Helper()
	synctest.Wait()
	wanted := make(map[uint16]bool)
	for _, p := range ports {
		wanted[p] = true
	}
	for port := uint16(1); port < 100; port++ {
		if n, _ := b.prober.state(port); (n == 1) != wanted[port] {
			b.t.Errorf("port %d is probed %d times at once; wanted are the ports %v", port, n, ports)
		}
	}
}

func (b *bench) begun(port uint16, want int) {
	b.t.Helper()
	synctest.Wait()
	if _, n := b.prober.state(port); n != want {
		b.t.Errorf("port %d was begun with %d times, want %d", port, n, want)
	}
}

func (b *bench) logged(want string) {
	b.t.Helper()
	synctest.Wait()
	if !strings.Contains(b.log.String(), want) {
		b.t.Errorf("the log does not say %q:\n%s", want, &b.log)
	}
}

func specOf(port int) *synmeshv1.ProbeSpec {
	return &synmeshv1.ProbeSpec{
		Targets:  []*synmeshv1.Target{{Name: fmt.Sprintf("db.fra:%d", port)}},
		Interval: durationpb.New(time.Second), Timeout: durationpb.New(time.Second), Flows: 1,
	}
}

// table returns a timetable of measurements with the names of the ports they probe.
func table(ports ...int) *synmeshv1.Timetable {
	m := &synmeshv1.Timetable{Version: 1, Expiry: durationpb.New(15 * time.Minute)}
	for _, p := range ports {
		m.Entries = append(m.Entries, &synmeshv1.TimetableEntry{Source: fmt.Sprint("measurements/", p), Spec: specOf(p)})
	}
	return m
}

func TestATimetableTakesThePlaceOfTheOneBefore(t *testing.T) {
	run(t, func(b *bench) {
		b.SetTimetable(table(1, 2))
		b.going(1, 2)
		b.SetTimetable(table(2, 3))
		b.going(2, 3)
		b.begun(2, 1) // it goes on undisturbed
		time.Sleep(10 * time.Second)
		if n := b.sink.count("measurements/2"); n < 10 {
			t.Errorf("%d results are under the source of the entry, want 10", n)
		}
		b.SetTimetable(table())
		b.going()
	})
}

func TestAnEntryThatChangedBeginsWhenItsFormerSelfHasStopped(t *testing.T) {
	run(t, func(b *bench) {
		b.prober.slow = time.Second
		m := table(1)
		b.SetTimetable(m)
		b.going(1)
		for flows := range int32(3) { // faster than it can stop
			m = table(1)
			m.Entries[0].Spec.Flows = flows + 2
			b.SetTimetable(m)
		}
		time.Sleep(10 * time.Second)
		b.going(1)
		if most := b.prober.most[1]; most != 1 {
			t.Errorf("%d were under way at once; their source ports are the same", most)
		}
	})
}

func TestAnEntryThatFailsIsTriedAgain(t *testing.T) {
	run(t, func(b *bench) {
		b.prober.fail[1] = errors.New("no source port is free")
		b.SetTimetable(table(1))
		time.Sleep(25 * time.Second)
		b.begun(1, 3)
		b.logged("no source port is free")
		b.prober.mu.Lock()
		delete(b.prober.fail, 1)
		b.prober.mu.Unlock()
		time.Sleep(10 * time.Second)
		b.going(1)
	})
}

func TestAnEntryThatEndsByItselfIsNotDoneAgain(t *testing.T) {
	run(t, func(b *bench) {
		b.prober.ends[1] = 3
		b.SetTimetable(table(1))
		time.Sleep(time.Hour)
		b.SetTimetable(table(1))
		b.begun(1, 1)
		if n := b.sink.count("measurements/1"); n != 3 {
			t.Errorf("got %d results, want 3", n)
		}
	})
}

// refused are Specs that no agent carries out, with what it says of them.
var refused = []struct {
	name   string
	change func(*synmeshv1.ProbeSpec)
	why    string
}{
	{"without a target", func(s *synmeshv1.ProbeSpec) { s.Targets = nil }, "no target"},
	{"with a target that has no port", func(s *synmeshv1.ProbeSpec) { s.Targets[0].Name = "db.fra" }, "no port"},
	{"without flows", func(s *synmeshv1.ProbeSpec) { s.Flows = 0 }, "0 flows are outside 1 to 256"},
	{"without an interval", func(s *synmeshv1.ProbeSpec) { s.Interval = nil }, "interval 0s is outside"},
	{"faster than the agent allows", func(s *synmeshv1.ProbeSpec) { s.Interval = durationpb.New(50 * time.Millisecond) }, "20 SYNs a second to one target; agents allow 10"},
}

func TestAMeasurementIsRefused(t *testing.T) {
	for _, tt := range refused {
		t.Run(tt.name, func(t *testing.T) {
			run(t, func(b *bench) {
				b.SetTimetable(table(1, 2))
				m := table(1, 2)
				tt.change(m.Entries[0].Spec)
				b.SetTimetable(m)
				b.going(2) // the one before does not go on in its place
				b.logged(tt.why)
				b.logged("measurements/1")
				b.SetTimetable(m)
				if n := strings.Count(b.log.String(), "measurement refused"); n != 1 {
					t.Errorf("the log tells of it %d times, want once", n)
				}
				if all := b.Refused(); len(all) != 1 || all[0].GetSource() != "measurements/1" || !strings.Contains(all[0].GetReason(), tt.why) {
					t.Errorf("refused are %v, want measurements/1 because of %q", all, tt.why)
				}
				b.SetTimetable(table(1, 2))
				b.going(1, 2)
				if all := b.Refused(); len(all) != 0 {
					t.Errorf("refused are %v, want none any more", all)
				}
			})
		})
	}
}

func TestARunIsRefused(t *testing.T) {
	for _, tt := range refused {
		t.Run(tt.name, func(t *testing.T) {
			run(t, func(b *bench) {
				spec := specOf(1)
				tt.change(spec)
				b.StartRun(&synmeshv1.StartRun{Run: "runs/a", Spec: spec}, time.Time{})
				if end := b.sink.end(t); end.GetRun() != "runs/a" || !strings.Contains(end.GetError(), tt.why) {
					t.Errorf("got %v, want that runs/a ended because of %q", end, tt.why)
				}
				b.begun(1, 0)
			})
		})
	}
}

func TestARunEnds(t *testing.T) {
	tests := []struct {
		name     string
		do       func(*bench)
		produced uint64
		why      string
	}{
		{"when it is done, with the count of its results", func(b *bench) {
			b.prober.ends[1] = 3
			b.StartRun(start(1), time.Time{})
			time.Sleep(time.Minute)
		}, 3, ""},
		{"when it fails, with the reason", func(b *bench) {
			b.prober.fail[1] = errors.New("no source port is free")
			b.StartRun(start(1), time.Time{})
		}, 0, "no source port is free"},
		{"when it is cancelled, with what it has found", func(b *bench) {
			b.StartRun(start(1), time.Time{})
			time.Sleep(2500 * time.Millisecond)
			b.CancelRun("runs/1")
		}, 3, "cancelled"},
		{"when the controller is lost, for nobody waits", func(b *bench) {
			b.StartRun(start(1), time.Time{})
			time.Sleep(500 * time.Millisecond)
			b.Disconnected()
		}, 1, "cancelled"},
		{"when the agent ends", func(b *bench) {
			b.StartRun(start(1), time.Time{})
			time.Sleep(500 * time.Millisecond)
			b.stop()
		}, 1, "cancelled"},
		{"once, though it was asked for twice", func(b *bench) {
			b.prober.ends[1] = 3
			b.StartRun(start(1), time.Time{})
			b.StartRun(start(1), time.Time{})
			time.Sleep(time.Minute)
		}, 3, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			run(t, func(b *bench) {
				tt.do(b)
				synctest.Wait()
				end := b.sink.end(t)
				if end.GetRun() != "runs/1" || end.GetProduced() != tt.produced || end.GetError() != tt.why {
					t.Errorf("got %v, want %d produced and error %q", end, tt.produced, tt.why)
				}
				if n := b.sink.count("runs/1"); n != int(tt.produced) {
					t.Errorf("%d results are under the source of the run, and its end says %d", n, tt.produced)
				}
				b.going()
			})
		})
	}
}

func start(port int) *synmeshv1.StartRun {
	return &synmeshv1.StartRun{Run: fmt.Sprint("runs/", port), Spec: specOf(port)}
}

func TestARunBeginsWhenItIsTime(t *testing.T) {
	run(t, func(b *bench) {
		began := time.Now()
		b.prober.ends[1], b.prober.ends[2] = 1, 1
		b.StartRun(start(1), began.Add(150*time.Millisecond))
		b.StartRun(start(2), began.Add(-time.Hour))
		b.begun(1, 0)
		b.begun(2, 1)
		time.Sleep(150*time.Millisecond - 1)
		b.begun(1, 0)
		time.Sleep(time.Nanosecond)
		b.begun(1, 1)
	})
}

func TestARunMayBeCancelledBeforeItBegins(t *testing.T) {
	run(t, func(b *bench) {
		b.StartRun(start(1), time.Now().Add(300*time.Millisecond))
		synctest.Wait()
		b.CancelRun("runs/1")
		synctest.Wait()
		if end := b.sink.end(t); end.GetError() != "cancelled" || end.GetProduced() != 0 {
			t.Errorf("got %v, want that it was cancelled", end)
		}
		time.Sleep(time.Minute)
		if n := b.sink.count("runs/1"); n != 0 {
			t.Errorf("there are %d results of it", n)
		}
	})
}

func TestAnAgentDoesSoManyRunsAtOnce(t *testing.T) {
	run(t, func(b *bench) {
		for port := 1; port <= maxRuns; port++ {
			b.StartRun(start(port), time.Time{})
		}
		b.StartRun(start(maxRuns+1), time.Time{})
		if end := b.sink.end(t); end.GetRun() != "runs/65" || !strings.Contains(end.GetError(), "64 runs are going on") {
			t.Errorf("got %v, want that the 65th is refused", end)
		}
		b.CancelRun("runs/1")
		b.CancelRun("runs/1")
		b.CancelRun("runs/none")
		synctest.Wait()
		b.StartRun(start(maxRuns+1), time.Time{})
		b.begun(65, 1)
	})
}

func TestATimetableOutlivesTheControllerUntilItExpires(t *testing.T) {
	tests := []struct {
		name  string
		do    func(*bench)
		going []uint16
	}{
		{"just before it expires, it goes on", func(b *bench) {
			b.Disconnected()
			time.Sleep(15*time.Minute - time.Nanosecond)
		}, []uint16{1}},
		{"when it has expired, it has stopped", func(b *bench) {
			b.Disconnected()
			time.Sleep(15 * time.Minute)
		}, nil},
		{"further attempts to connect that fail do not put it off", func(b *bench) {
			for range 16 {
				b.Disconnected()
				time.Sleep(time.Minute)
			}
		}, nil},
		{"a controller that is back in time puts it off for ever", func(b *bench) {
			b.Disconnected()
			time.Sleep(14 * time.Minute)
			b.Connected()
			time.Sleep(24 * time.Hour)
		}, []uint16{1}},
		{"and when it is lost again, the time begins anew", func(b *bench) {
			b.Disconnected()
			time.Sleep(14 * time.Minute)
			b.Connected()
			b.Disconnected()
			time.Sleep(14 * time.Minute)
		}, []uint16{1}},
		{"a controller that is back too late sends one that is begun anew", func(b *bench) {
			b.Disconnected()
			time.Sleep(time.Hour)
			b.Connected()
			b.SetTimetable(table(1))
			time.Sleep(time.Hour)
		}, []uint16{1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			run(t, func(b *bench) {
				b.SetTimetable(table(1))
				tt.do(b)
				b.going(tt.going...)
				if tt.going == nil {
					b.logged("the timetable has expired")
				}
			})
		})
	}
}

func TestNothingBeginsOnceRunHasReturned(t *testing.T) {
	run(t, func(b *bench) {
		b.SetTimetable(table(1))
		b.going(1)
		b.stop()
		b.going()
		b.Disconnected()
		b.SetTimetable(table(2))
		b.StartRun(start(3), time.Time{})
		time.Sleep(time.Hour)
		b.going()
		if strings.Contains(b.log.String(), "expired") {
			t.Errorf("the timetable expired after Run had returned:\n%s", &b.log)
		}
	})
}
