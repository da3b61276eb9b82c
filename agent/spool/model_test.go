package spool

import (
	"context"
	"slices"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/synmesh/synmesh/internal/convert"
	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// model is a Spool, the controller that it reports to, and a connection that
// may be lost at any time. Every result is told by its round trip.
type model struct {
	spool    *Spool
	produced int
	runs     int // ended

	wire   []*synmeshv1.Report // sent, and not received yet
	acks   []uint64            // acknowledgements sent, and not received yet
	sent   uint64              // the last sequence sent in this session
	known  uint64              // the highest sequence that the spool knows to be stored
	lossy  bool                // something has been dropped
	mark   uint64              // the highest sequence stored
	stored map[int]uint64      // result -> sequence of its report
	ends   map[string]bool     // stored
}

func (m *model) add(t *rapid.T) {
	m.produced++
	r := result(rapid.SampledFrom([]string{ofRun, ofMeasurement}).Draw(t, "source"))
	r.RTT = time.Duration(m.produced)
	m.spool.Add(r)
}

func (m *model) endRun(*rapid.T) {
	m.runs++
	m.spool.EndRun(&synmeshv1.RunEnd{Run: RunPrefix + strconv.Itoa(m.runs)})
}

// ripen has the time come at which the open results are reported.
func (m *model) ripen(*rapid.T) {
	m.spool.mu.Lock()
	defer m.spool.mu.Unlock()
	if !m.spool.due.IsZero() {
		m.spool.due = time.Unix(0, 0)
	}
}

// send puts the next report on the wire, if there is one.
func (m *model) send(t *rapid.T) {
	s := m.spool
	s.mu.Lock()
	ready := s.unsent < len(s.reports) || (!s.due.IsZero() && !time.Now().Before(s.due))
	s.mu.Unlock()
	if !ready {
		return
	}
	r := soon(t, s)
	_, dropped := s.Counts()
	m.lossy = m.lossy || dropped > 0
	switch n := r.GetSequence(); {
	case n <= m.known:
		t.Fatalf("report %d is sent, and the spool knows that %d is stored", n, m.known)
	case n <= m.sent:
		t.Fatalf("report %d is sent after %d", n, m.sent)
	case n != m.sent+1 && !m.lossy:
		t.Fatalf("report %d is sent after %d, and nothing was dropped", n, m.sent)
	default:
		m.sent = n
	}
	m.wire = append(m.wire, r)
}

// soon returns the next report, which is there.
func soon(t *rapid.T, s *Spool) *synmeshv1.Report {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	r, err := s.Next(ctx)
	if err != nil {
		t.Fatalf("the next report: %v", err)
	}
	return r
}

// store has the controller receive a report and acknowledge it.
func (m *model) store(t *rapid.T) {
	if len(m.wire) == 0 {
		return
	}
	r := m.wire[0]
	m.wire = m.wire[1:]
	m.acks = append(m.acks, r.GetSequence())
	if r.GetSequence() <= m.mark {
		t.Fatalf("report %d is sent again, and the welcome said %d", r.GetSequence(), m.mark)
	}
	m.mark = r.GetSequence()
	for row := range convert.Rows("", r) {
		id := int(row.RTT)
		if before, twice := m.stored[id]; twice {
			t.Fatalf("result %d is in report %d and in %d", id, before, r.GetSequence())
		}
		m.stored[id] = r.GetSequence()
	}
	for _, e := range r.GetRunEnds() {
		if m.ends[e.GetRun()] {
			t.Fatalf("%s ends twice", e.GetRun())
		}
		m.ends[e.GetRun()] = true
	}
}

func (m *model) acknowledge(*rapid.T) {
	if len(m.acks) == 0 {
		return
	}
	m.known = max(m.known, m.acks[0])
	m.spool.Acknowledge(m.acks[0])
	m.acks = m.acks[1:]
}

// reconnect loses all that is on its way, in both directions.
func (m *model) reconnect(*rapid.T) {
	m.wire, m.acks = nil, nil
	m.known, m.sent = m.mark, m.mark
	m.spool.Rewind(m.mark)
}

// check holds after every step: what was produced is acknowledged, held or dropped.
func (m *model) check(t *rapid.T) {
	acknowledged := 0
	for _, sequence := range m.stored {
		if sequence <= m.known {
			acknowledged++
		}
	}
	held, dropped := m.spool.Counts()
	if m.produced != acknowledged+held+int(dropped) {
		t.Fatalf("%d produced, but %d acknowledged, %d held and %d dropped", m.produced, acknowledged, held, dropped)
	}
	if held > m.spool.limit {
		t.Fatalf("%d are held; %d are allowed", held, m.spool.limit)
	}
}

func TestNothingIsLostUncountedNorStoredTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{spool: New(1), stored: make(map[int]uint64), ends: make(map[string]bool)}
		m.spool.limit = rapid.IntRange(1, 30).Draw(t, "limit")
		t.Repeat(map[string]func(*rapid.T){
			"add": m.add, "add again": m.add, "add once more": m.add, "end a run": m.endRun, "ripen": m.ripen, "send": m.send,
			"store": m.store, "acknowledge": m.acknowledge, "reconnect": m.reconnect, "": m.check,
		})
		m.settle(t)
	})
}

// settle reconnects, has all that is held sent and stored, and looks whether
// that is exactly what had not been stored before.
func (m *model) settle(t *rapid.T) {
	m.reconnect(t)
	before := len(m.stored)
	held, dropped := m.spool.Counts()
	for open := true; open; {
		m.ripen(t)
		m.send(t)
		open = len(m.wire) > 0
		m.store(t)
	}
	if resent := len(m.stored) - before; resent != held {
		t.Fatalf("%d results were held and %d sent", held, resent)
	}
	for len(m.acks) > 0 {
		m.acknowledge(t)
	}
	m.check(t)
	if held, _ := m.spool.Counts(); held != 0 || m.produced != len(m.stored)+int(dropped) {
		t.Fatalf("%d produced, but %d stored and %d dropped, with %d held", m.produced, len(m.stored), dropped, held)
	}
	if len(m.ends) != m.runs {
		t.Fatalf("%d runs ended and %d ends are stored", m.runs, len(m.ends))
	}
}

// A report that is sent again is the same to the last bit: the controller
// tells it by its number alone.
func TestRewindSendsTheSameReports(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := New(1)
		n := rapid.IntRange(1, 10).Draw(t, "reports")
		for i := range n {
			r := result(ofRun)
			r.RTT = time.Duration(i)
			s.Add(r)
			s.EndRun(&synmeshv1.RunEnd{Run: ofRun})
			soon(t, s)
		}
		stored := rapid.IntRange(0, n).Draw(t, "stored")
		s.Rewind(uint64(stored))
		var again []probe.Result
		for range n - stored {
			r := soon(t, s)
			if want := uint64(stored + 1 + len(again)); r.GetSequence() != want {
				t.Fatalf("got report %d, want %d", r.GetSequence(), want)
			}
			for row := range convert.Rows("", r) {
				again = append(again, *row)
			}
		}
		if !slices.IsSortedFunc(again, func(a, b probe.Result) int { return int(a.RTT - b.RTT) }) || len(again) != n-stored {
			t.Fatalf("got %d results, want the last %d in order", len(again), n-stored)
		}
	})
}
