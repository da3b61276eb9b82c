package spool

import (
	"context"
	"errors"
	"iter"
	"os"
	"path/filepath"
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
// may be lost at any time, as the process may. Every result is told by its round trip.
type model struct {
	spool *Spool
	cfg   Config

	produced int // results made

	runs int

	first int      // the result that this life of the process made first
	batch []parcel // being written

	shown    map[uint64]bool // by a preview of this session, and not stored yet
	seen     map[int]bool    // results of runs, in this session
	previews map[int]uint64  // result -> the number of its preview

	wire   []*synmeshv1.SessionRequest // sent, and not received yet
	waits  map[uint64]bool             // epochs of which the controller has rejected something
	acks   []*synmeshv1.Report         // acknowledgements sent, and not received yet
	sent   map[uint64]uint64           // epoch -> last sequence sent in this session
	known  map[uint64]uint64           // epoch -> the highest sequence that the spool knows to be stored
	marks  map[uint64]uint64           // epoch -> the highest sequence stored
	stored map[int]report              // result -> its report
	bad    map[report]bool             // reports that the controller refuses
	ends   map[string]int
}

type report struct{ epoch, sequence uint64 }

func newModel(t *rapid.T, dir string) *model {
	m := &model{cfg: Config{Dir: dir, Limit: int64(rapid.IntRange(600, 20_000).Draw(t, "limit"))},
		stored: make(map[int]report), marks: make(map[uint64]uint64), bad: make(map[report]bool), ends: make(map[string]int), previews: make(map[int]uint64)}
	m.open(t)
	return m
}

func (m *model) open(t *rapid.T) {
	var err error
	if m.spool, err = Open(m.cfg); err != nil {
		t.Fatal(err)
	}
	m.spool.segmentSize = 400
	m.wire, m.acks, m.known, m.sent = nil, nil, make(map[uint64]uint64), nil
	m.first, m.batch = m.produced+1, nil
}

func (m *model) add(t *rapid.T) {
	m.produced++
	r := result(rapid.SampledFrom([]string{ofRun, ofMeasurement}).Draw(t, "source"))
	r.RTT = time.Duration(m.produced)
	m.spool.Add(r)
	m.spool.due = time.Now().Add(time.Hour) // until late or flush
}

// late has the time come at which results are due, while the writer waits for the disk.
func (m *model) late(*rapid.T) {
	if !m.spool.due.IsZero() {
		m.spool.due = time.Unix(1, 0)
	}
}

// begin has the writer begin with what there is.
func (m *model) begin(*rapid.T) {
	if m.batch == nil {
		m.batch = m.spool.takeAll()
	}
}

func (m *model) endRun(*rapid.T) {
	m.runs++
	m.spool.EndRun(&synmeshv1.RunEnd{Run: RunPrefix + strconv.Itoa(m.runs)})
}

// flush has the time come at which results are written.
func (m *model) flush(t *rapid.T) {
	m.begin(t)
	batch := m.batch
	if m.batch = nil; len(batch) > 0 || m.spool.dirty() {
		if err := m.spool.write(batch); err != nil {
			t.Fatal(err)
		}
	}
}

// fail has the disk be full when results are written, unless that begins a segment.
func (m *model) fail(t *rapid.T) {
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if m.spool.active == nil {
		_ = full.Close()
		return
	}
	_ = m.spool.active.Close()
	m.spool.active = full
	m.begin(t)
	if err := m.spool.write(m.batch); err != nil {
		m.spool.giveBack(m.batch)
	}
	if m.batch = nil; m.spool.active == full {
		_ = m.spool.closeActive() // there was nothing to write, or no room
	}
}

// connect begins a session; all that is on its way is lost, in both directions.
func (m *model) connect(*rapid.T) {
	m.wire, m.acks = nil, nil
	m.waits = make(map[uint64]bool)
	m.sent = make(map[uint64]uint64)
	m.shown, m.seen = make(map[uint64]bool), make(map[int]bool)
	for epoch, sequence := range m.marks {
		m.known[epoch], m.sent[epoch] = sequence, sequence
	}
	m.spool.Begin(m.marks, 1500, true)
}

// send puts the next report on the wire, if there is one.
func (m *model) send(t *rapid.T) {
	if m.sent == nil {
		return
	}
	next := soon(t, m.spool)
	if next == nil {
		return
	}
	m.wire = append(m.wire, next)
	if p := next.GetPreview(); p != nil {
		m.preview(t, p)
	}
	r := next.GetReport()
	if r == nil {
		return
	}
	for row := range runRows(r.GetBlocks()) {
		if number, ok := m.previews[row]; ok && number != r.GetPreview() {
			t.Fatalf("result %d was in preview %d, and its report says %d", row, number, r.GetPreview())
		}
	}
	epoch, n := r.GetEpoch(), r.GetSequence()
	if n <= m.known[epoch] {
		t.Fatalf("report %d is sent, and the spool knows that %d is stored", n, m.known[epoch])
	}
	if n <= m.sent[epoch] {
		t.Fatalf("report %d is sent after %d", n, m.sent[epoch])
	}
	m.sent[epoch] = n
}

// preview takes in that a preview is sent.
func (m *model) preview(t *rapid.T, p *synmeshv1.Preview) {
	for row := range runRows(p.GetBlocks()) {
		if _, twice := m.previews[row]; twice {
			t.Fatalf("result %d is in two previews", row)
		}
		m.previews[row] = p.GetNumber()
	}
	if n := rows(&synmeshv1.Report{Blocks: p.GetBlocks()}); n == 0 || n != len(slices.Collect(runRows(p.GetBlocks()))) {
		t.Fatalf("preview %d has %d results; there should be some, all of runs", p.GetNumber(), n)
	}
}

// runRows are the results of runs in blocks.
func runRows(blocks []*synmeshv1.ResultBlock) iter.Seq[int] {
	return func(yield func(int) bool) {
		for row := range convert.Rows("", &synmeshv1.Report{Blocks: blocks}) {
			if ofRuns(row.Source) && !yield(int(row.RTT)) {
				return
			}
		}
	}
}

// show has somebody who waits see results, of a preview or of a report that is stored. Those
// of this life are seen once each.
func (m *model) show(t *rapid.T, number uint64, preview bool, blocks []*synmeshv1.ResultBlock) {
	shown := m.shown[number]
	for row := range runRows(blocks) {
		if row >= m.first && shown != m.seen[row] {
			t.Fatalf("result %d of preview %d: the number was shown %v, the result %v", row, number, shown, m.seen[row])
		}
		m.seen[row] = true
	}
	if delete(m.shown, number); preview {
		m.shown[number] = true
	}
}

// soon returns the next message, or nil if there is none.
func soon(t *rapid.T, s *Spool) *synmeshv1.SessionRequest {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r, err := decoded(s.Next(ctx))
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Fatalf("the next report: %v", err)
	}
	return r
}

// store has the controller receive a report and acknowledge or refuse it.
func (m *model) store(t *rapid.T) {
	if len(m.wire) == 0 {
		return
	}
	r, resume, preview := m.wire[0].GetReport(), m.wire[0].GetResume(), m.wire[0].GetPreview()
	m.wire = m.wire[1:]
	if preview != nil {
		m.show(t, preview.GetNumber(), true, preview.GetBlocks())
		return
	}
	if resume != nil {
		delete(m.waits, resume.GetEpoch())
		return
	}
	if m.waits[r.GetEpoch()] {
		return
	}
	id := report{r.GetEpoch(), r.GetSequence()}
	m.acks = append(m.acks, r)
	if _, drawn := m.bad[id]; !drawn {
		m.bad[id] = rapid.IntRange(0, 9).Draw(t, "bad") == 0
	}
	if m.bad[id] {
		m.waits[id.epoch] = true
		return
	}
	if id.sequence <= m.marks[id.epoch] {
		t.Fatalf("report %d is sent again, and the welcome said %d", id.sequence, m.marks[id.epoch])
	}
	m.marks[id.epoch] = id.sequence
	m.show(t, r.GetPreview(), false, r.GetBlocks())
	for row := range convert.Rows("", r) {
		if before, twice := m.stored[int(row.RTT)]; twice {
			t.Fatalf("result %d is in report %v and in %v", row.RTT, before, id)
		}
		m.stored[int(row.RTT)] = id
	}
	for _, e := range r.GetRunEnds() {
		if m.ends[e.GetRun()]++; m.ends[e.GetRun()] > 1 {
			t.Fatalf("%s ends twice", e.GetRun())
		}
	}
}

func (m *model) acknowledge(*rapid.T) {
	if len(m.acks) == 0 {
		return
	}
	r := m.acks[0]
	m.acks = m.acks[1:]
	if m.bad[report{r.GetEpoch(), r.GetSequence()}] {
		m.spool.Reject(r.GetEpoch(), r.GetSequence())
		m.sent[r.GetEpoch()] = r.GetSequence()
	} else {
		m.spool.Acknowledge(r.GetEpoch(), r.GetSequence())
	}
	m.known[r.GetEpoch()] = r.GetSequence()
}

// die loses what is in memory, perhaps in the middle of a write.
func (m *model) die(t *rapid.T) {
	s := m.spool
	durable := s.end + s.unwritten
	_ = s.Close()
	if files, err := filepath.Glob(filepath.Join(m.cfg.Dir, "*.s*")); err == nil && len(files) > 0 && rapid.Bool().Draw(t, "torn") {
		torn := appendRecord(nil, header{kind: ofReport, epoch: s.fresh().epoch, sequence: s.fresh().last + 1, number: s.end, results: 0}, []byte("what was being written"))
		last := files[0]
		for _, f := range files {
			if filepath.Base(f)[:16] > filepath.Base(last)[:16] {
				last = f
			}
		}
		f, err := os.OpenFile(last, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(torn[:rapid.IntRange(0, len(torn)-1).Draw(t, "written")]); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	m.open(t)
	if got := m.spool.Status().Produced; got > durable {
		t.Fatalf("%d count as produced after a crash, and %d were durable", got, durable)
	}
}

// restart ends the process in good order.
func (m *model) restart(t *rapid.T) {
	m.flush(t)
	before := m.spool.Status()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.spool.Run(ctx); err != nil {
		t.Fatal(err)
	}
	after := m.spool.Status()
	m.open(t)
	if got := m.spool.Status(); got.Produced != before.Produced || got.Dropped != after.Dropped || got.Held < after.Held {
		t.Fatalf("before the restart %+v, after it %+v", after, got)
	}
}

// check holds after every step: what was produced is acknowledged, held or dropped.
func (m *model) check(t *rapid.T) {
	st := m.spool.Status()
	var left uint64
	for _, l := range m.spool.lanes {
		for _, g := range l.segments {
			left += g.left
		}
	}
	if left != m.spool.held {
		t.Fatalf("%d are held, and the segments have %d", m.spool.held, left)
	}
	if st.Produced > uint64(m.produced) {
		t.Fatalf("%d count as produced, and %d were", st.Produced, m.produced)
	}
	if st.Held+st.Dropped.Sum() > st.Produced {
		t.Fatalf("more is held and dropped than was produced: %+v", st)
	}
}

// settle has all that is held sent and stored; then nothing may be missing.
func (m *model) settle(t *rapid.T) {
	m.flush(t)
	m.connect(t)
	for open := true; open; {
		m.send(t)
		open = len(m.wire) > 0 || len(m.acks) > 0 || m.spool.dirty()
		m.store(t)
		m.acknowledge(t)
		m.flush(t)
	}
	st := m.spool.Status()
	if st.Held != 0 || st.Produced != uint64(len(m.stored))+st.Dropped.Sum() {
		t.Fatalf("stored are %d, and the spool counts %+v", len(m.stored), st)
	}
	if st.Dropped[Corrupt] != 0 || st.Dropped[Disk] != 0 {
		t.Fatalf("nothing was damaged: %+v", st)
	}
}

func TestNothingIsLostUncountedNorStoredTwice(t *testing.T) {
	root := t.TempDir()
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		m := newModel(t, filepath.Join(root, strconv.Itoa(n)))
		defer func() { _ = m.spool.Close() }()
		t.Repeat(map[string]func(*rapid.T){
			"add": m.add, "add again": m.add, "end a run": m.endRun, "flush": m.flush, "flush again": m.flush, "send": m.send, "send again": m.send,
			"store": m.store, "acknowledge": m.acknowledge, "connect": m.connect, "die": m.die, "restart": m.restart,
			"late": m.late, "begin to write": m.begin, "fail to write": m.fail, "": m.check,
		})
		m.settle(t)
	})
}

func result(source string) *probe.Result {
	return &probe.Result{
		Time: time.Now(), Source: source, Target: "db.fra:5432", Outcome: probe.Open, RTT: time.Millisecond,
		Attempts: 1, Stamp: probe.StampKernel, SynAck: &probe.SynAck{Seq: 7},
	}
}

const (
	ofRun         = "runs/abc"
	ofMeasurement = "measurements/web"
)
