//go:build linux

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

const (
	// feederSource is what the results are of.
	feederSource = "measurements/ingest"
	// feederSeries is how many series an agent has, and so the results of a report.
	feederSeries = 1000
	// feederFlows is how many source ports they come from.
	feederFlows = 5
)

// feeder is an agent that makes its results up. Its report is encoded once; of each result that
// follows, a few bytes are written over, for the generator lives on the controller's cores.
type feeder struct {
	name   string
	next   uint64 // the sequence of the next report
	epoch  uint64
	start  int64 // when the first report's results were measured, nanoseconds since 1970
	random *rand.PCG
	head   []byte
	blocks []byte
	places []places
	sum    int64 // of the round trips acknowledged
	sent   int64 // of those in the report under way
}

// places is where in the blocks the bytes are that change.
type places struct {
	start, rtt, port, lateness, delay int
	usual                             int64 // the median of the round trips
	phase                             int64 // of the second, when it is due
}

// factors is what round trips are of their median: they are distributed lognormally.
var factors = func() (list [1 << 12]float32) {
	r := rand.New(rand.NewPCG(1, 2))
	for i := range list {
		list[i] = float32(math.Exp(0.15 * r.NormFloat64()))
	}
	return list
}()

func newFeeder(number int, start time.Time) *feeder {
	l := &feeder{name: fmt.Sprintf("load-%05d", number), next: 1, epoch: uint64(number) + 1, start: start.UnixNano(), random: rand.NewPCG(uint64(number), 7)}
	r := rand.New(l.random)
	for i := range feederSeries {
		p := places{usual: 4e6 + r.Int64N(60e6), phase: int64(i) * int64(time.Second) / feederSeries}
		l.blocks = append(l.blocks, l.block(feederTarget(number, i), &p)...)
		l.places = append(l.places, p)
	}
	return l
}

// feederTarget is what the i-th series of an agent is of.
func feederTarget(number, i int) netip.AddrPort {
	addr := [4]byte{byte(10 + number>>8), byte(number), byte(i >> 8), byte(i)}
	return netip.AddrPortFrom(netip.AddrFrom4(addr), 443)
}

// block returns an encoded block of one result, as an agent encodes it, with its tag.
func (l *feeder) block(remote netip.AddrPort, p *places) []byte {
	answer, err := proto.Marshal(&synmeshv1.SynAck{Window: 64240, Mss: 1460, WindowScale: proto.Uint32(7), SackPermitted: true, Timestamps: true, Ttl: 57})
	if err != nil {
		panic(err) // it is always the same
	}
	var b []byte
	bytes := func(field protowire.Number, v []byte) {
		b = protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), v)
	}
	column := func(field protowire.Number, v uint64) int {
		bytes(field, protowire.AppendVarint(nil, v))
		return len(b) - protowire.SizeVarint(v)
	}
	number := func(field protowire.Number, v uint64) {
		b = protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
	}
	bytes(1, []byte(feederSource))
	bytes(2, []byte(remote.String()))
	bytes(3, remote.Addr().AsSlice())
	number(4, uint64(remote.Port()))
	b = protowire.AppendFixed64(protowire.AppendTag(b, 5, protowire.Fixed64Type), 0)
	p.start = len(b) - 8
	column(6, 0)
	column(7, uint64(synmeshv1.Outcome_OUTCOME_OPEN))
	p.rtt = column(8, 1<<21)
	p.port = column(9, 1<<14)
	number(11, uint64(synmeshv1.Stamp_STAMP_KERNEL))
	p.lateness = column(12, 1<<14)
	p.delay = column(13, 1<<14)
	bytes(15, answer)
	column(16, 1)
	head := protowire.AppendVarint(protowire.AppendTag(nil, 3, protowire.BytesType), uint64(len(b)))
	for _, at := range []*int{&p.start, &p.rtt, &p.port, &p.lateness, &p.delay} {
		*at += len(l.blocks) + len(head)
	}
	return append(head, b...)
}

// second returns when the results of the next report are measured.
func (l *feeder) second() time.Time {
	return time.Unix(0, l.start).Add(time.Duration(l.next) * time.Second)
}

// draw makes a result up: each is due once a second, and some microseconds late.
func (l *feeder) draw(p *places) (late, rtt, delay int64) {
	r := l.random.Uint64()
	late = 1<<14 + int64(r&0xffff)
	rtt = min(max(int64(float32(p.usual)*factors[r>>16&(1<<12-1)])+int64(r>>28&0x3ff), 1<<21), 1<<28-1)
	return late, rtt, 1<<14 + int64(r>>38&0x7fff)
}

// measure writes the next second's results over those before.
func (l *feeder) measure() {
	second := l.second().UnixNano()
	l.sent = 0
	for i := range l.places {
		p := &l.places[i]
		late, rtt, delay := l.draw(p)
		binary.LittleEndian.PutUint64(l.blocks[p.start:], uint64(second+p.phase+late))
		putVarint4(l.blocks[p.rtt:p.rtt+4], rtt)
		putVarint3(l.blocks[p.port:p.port+3], 61000+int64(l.next%feederFlows))
		putVarint3(l.blocks[p.lateness:p.lateness+3], late)
		putVarint3(l.blocks[p.delay:p.delay+3], delay)
		l.sent += rtt
	}
	rest := protowire.AppendFixed64(protowire.AppendTag(nil, 1, protowire.Fixed64Type), l.epoch)
	rest = protowire.AppendVarint(protowire.AppendTag(rest, 2, protowire.VarintType), l.next)
	rest = protowire.AppendVarint(protowire.AppendTag(rest, 5, protowire.VarintType), l.next*feederSeries)
	l.head = protowire.AppendVarint(protowire.AppendTag(l.head[:0], 2, protowire.BytesType), uint64(len(rest)+len(l.blocks)))
	l.head = append(l.head, rest...)
}

// lines appends the next second's results as lines of the Influx protocol, each after its tags.
func (l *feeder) lines(b []byte, tags []string) []byte {
	second := l.second().UnixNano()
	for i := range l.places {
		p := &l.places[i]
		late, rtt, delay := l.draw(p)
		b = append(b, tags[i]...)
		b = append(b, " outcome=1i,rtt="...)
		b = strconv.AppendInt(b, rtt, 10)
		b = append(b, "i,lateness="...)
		b = strconv.AppendInt(b, late, 10)
		b = append(b, "i,host_delay="...)
		b = strconv.AppendInt(b, delay, 10)
		b = append(b, "i "...)
		b = strconv.AppendInt(b, second+p.phase+late, 10)
		b = append(b, '\n')
	}
	return b
}

// tags are those of an agent's series, with the measurement before them.
func (l *feeder) tags() []string {
	list := make([]string, feederSeries)
	for i := range list {
		at := feederTarget(int(l.epoch-1), i)
		list[i] = fmt.Sprintf("ingest,agent=%s,target=%s,port=%d", l.name, at.Addr(), at.Port())
	}
	return list
}

// putVarint4 writes a number from 2^21 to 2^28, and putVarint3 one from 2^14 to 2^21.
func putVarint4(b []byte, v int64) {
	b[0], b[1], b[2], b[3] = byte(v)|0x80, byte(v>>7)|0x80, byte(v>>14)|0x80, byte(v>>21)
}

func putVarint3(b []byte, v int64) { b[0], b[1], b[2] = byte(v)|0x80, byte(v>>7)|0x80, byte(v>>14) }

// encoded is a codec for messages that are encoded already.
type encoded struct{}

func (encoded) Name() string { return "proto" }

func (encoded) Marshal(v any) (mem.BufferSlice, error) {
	switch v := v.(type) {
	case [][]byte:
		var list mem.BufferSlice
		for _, b := range v {
			list = append(list, mem.SliceBuffer(b))
		}
		return list, nil
	case proto.Message:
		b, err := proto.Marshal(v)
		return mem.BufferSlice{mem.SliceBuffer(b)}, err
	}
	return nil, fmt.Errorf("a message of type %T", v)
}

func (encoded) Unmarshal(data mem.BufferSlice, v any) error {
	return proto.Unmarshal(data.Materialize(), v.(proto.Message))
}

// session opens the agent's, and is welcomed.
func (l *feeder) session(ctx context.Context, conn *grpc.ClientConn) (grpc.ClientStream, error) {
	st, err := conn.NewStream(ctx, &synmeshv1.AgentService_ServiceDesc.Streams[0], synmeshv1.AgentService_Session_FullMethodName)
	if err != nil {
		return nil, err
	}
	err = st.SendMsg(&synmeshv1.SessionRequest{Message: &synmeshv1.SessionRequest_Hello{Hello: &synmeshv1.Hello{
		Name: l.name, Labels: map[string]string{"dc": "load"}, Version: "bench", Epoch: l.epoch}}})
	if err != nil {
		return nil, err
	}
	for {
		var m synmeshv1.SessionResponse
		if err := st.RecvMsg(&m); err != nil {
			return nil, err
		}
		if m.GetWelcome() != nil {
			return st, nil
		}
	}
}

// pace says when an agent reports. The zero value is one report after the other, each when the one
// before is acknowledged.
type pace struct {
	first time.Time     // when the first report is due
	every time.Duration // 0: as fast as possible
	most  int           // reports; 0: without end
}

// wait waits until the n-th report is due, which may have been long ago, and returns when that was.
func (p pace) wait(ctx context.Context, n int) (due time.Time, ok bool) {
	if p.most > 0 && n >= p.most || ctx.Err() != nil {
		return due, false
	}
	if p.every == 0 {
		return time.Now(), true
	}
	due = p.first.Add(time.Duration(n) * p.every)
	select {
	case <-time.After(time.Until(due)):
		return due, true
	case <-ctx.Done():
		return due, false
	}
}

// report reports until the context ends, or it has done so often enough. The last report is waited
// for. With each, acknowledged gets how long ago it was due.
func (l *feeder) report(ctx context.Context, st grpc.ClientStream, p pace, acknowledged func(results int, after time.Duration)) error {
	for n := 0; ; n++ {
		due, ok := p.wait(ctx, n)
		if !ok {
			return nil
		}
		l.measure()
		if err := st.SendMsg([][]byte{l.head, l.blocks}); err != nil {
			return errors.Join(err, st.RecvMsg(&synmeshv1.SessionResponse{})) // which tells why
		}
		if err := l.acknowledged(st); err != nil {
			return err
		}
		acknowledged(feederSeries, time.Since(due))
	}
}

func (l *feeder) acknowledged(st grpc.ClientStream) error {
	for {
		var m synmeshv1.SessionResponse
		if err := st.RecvMsg(&m); err != nil {
			return err
		}
		if r := m.GetReject(); r != nil {
			return fmt.Errorf("report %d was rejected: %s", r.GetSequence(), r.GetReason())
		}
		if m.GetAcknowledge().GetSequence() == l.next {
			l.next++
			l.sum += l.sent
			return nil
		}
	}
}
