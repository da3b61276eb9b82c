package convert

import (
	"errors"
	"fmt"
	"net/netip"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// FromResult returns the message of a result.
func FromResult(r *probe.Result) *synmeshv1.Result {
	m := &synmeshv1.Result{
		Time: timestamppb.New(r.Time), Agent: r.Agent, Source: r.Source, Target: r.Target,
		LocalPort: uint32(r.LocalPort), Outcome: synmeshv1.Outcome(r.Outcome), Attempts: uint32(r.Attempts),
		Stamp: synmeshv1.Stamp(r.Stamp), Lateness: durationpb.New(r.Lateness), HostDelay: durationpb.New(r.HostDelay),
		Drops: uint32(r.Drops), Icmp: fromICMP(r.ICMP), Error: r.Err, SynSeq: r.SYN,
		Retry: fromRetry(r.Retry), Close: fromClose(r.Close),
	}
	if r.Remote.IsValid() {
		m.Remote = r.Remote.String()
	}
	if r.Timed() {
		m.Rtt = durationpb.New(r.RTT)
	}
	if r.SynAck != nil {
		m.SynAck = fromSynAck(r.SynAck)
		m.SynAck.Seq = r.SynAck.Seq
	}
	return m
}

// ToResult returns the result of a message.
func ToResult(m *synmeshv1.Result) (probe.Result, error) {
	if err := checkResult(m); err != nil {
		return probe.Result{}, err
	}
	r := probe.Result{
		Time: m.GetTime().AsTime(), Agent: m.GetAgent(), Source: m.GetSource(), Target: m.GetTarget(),
		LocalPort: uint16(m.GetLocalPort()), Outcome: probe.Outcome(m.GetOutcome()),
		Attempts: int(m.GetAttempts()), Stamp: probe.Stamp(m.GetStamp()), Lateness: m.GetLateness().AsDuration(),
		HostDelay: m.GetHostDelay().AsDuration(), Drops: int(m.GetDrops()), Err: m.GetError(), SYN: m.GetSynSeq(),
		Retry: toRetry(m.GetRetry()), Close: toClose(m.GetClose()),
	}
	if r.Timed() {
		r.RTT = m.GetRtt().AsDuration()
	}
	var err error
	if m.GetRemote() != "" {
		if r.Remote, err = netip.ParseAddrPort(m.GetRemote()); err != nil {
			return probe.Result{}, fmt.Errorf("remote %q is not address:port", m.GetRemote())
		}
	}
	if r.ICMP, err = toICMP(m.GetIcmp()); err != nil {
		return probe.Result{}, err
	}
	if s := m.GetSynAck(); s != nil {
		synAck := toSynAck(s)
		synAck.Seq = s.GetSeq()
		r.SynAck = &synAck
	}
	return r, nil
}

func checkResult(m *synmeshv1.Result) error {
	if !m.GetTime().IsValid() {
		return errors.New("time is missing or outside the years 1 to 9999")
	}
	if err := checkOutcome(m.GetOutcome()); err != nil {
		return fmt.Errorf("outcome: %w", err)
	}
	if timed := (&probe.Result{Outcome: probe.Outcome(m.GetOutcome()), Retry: toRetry(m.GetRetry())}).Timed(); timed && m.GetRtt() == nil {
		return fmt.Errorf("rtt is missing, and the outcome is %s", probe.Outcome(m.GetOutcome()))
	}
	if err := checkStamp(m.GetStamp()); err != nil {
		return err
	}
	if err := checkBits("local_port", 16, m.GetLocalPort()); err != nil {
		return err
	}
	if err := checkSynAck(m.GetSynAck()); err != nil {
		return fmt.Errorf("syn_ack.%w", err)
	}
	if err := checkRetry(m.GetRetry()); err != nil {
		return err
	}
	return checkClose(m.GetClose())
}

func checkOutcome(o synmeshv1.Outcome) error {
	if o <= 0 || o > synmeshv1.Outcome(probe.Error) {
		return fmt.Errorf("%d is no outcome", o)
	}
	return nil
}

func checkStamp(s synmeshv1.Stamp) error {
	if s <= 0 || s > synmeshv1.Stamp(probe.StampUser) {
		return fmt.Errorf("stamp: %d is none", s)
	}
	return nil
}

// checkBits refuses what does not fit a field of so many bits.
func checkBits(field string, bits int, v uint32) error {
	if v>>bits != 0 {
		return fmt.Errorf("%s %d is above %d", field, v, 1<<bits-1)
	}
	return nil
}

func checkSynAck(m *synmeshv1.SynAck) error {
	if err := checkBits("window", 16, m.GetWindow()); err != nil {
		return err
	}
	if err := checkBits("mss", 16, m.GetMss()); err != nil {
		return err
	}
	return checkBits("ttl", 8, m.GetTtl())
}

// fromSynAck leaves the sequence number out: blocks have it in a column of its own.
func fromSynAck(s *probe.SynAck) *synmeshv1.SynAck {
	m := &synmeshv1.SynAck{Window: uint32(s.Window), Mss: uint32(s.MSS),
		SackPermitted: s.SACKPermitted, Timestamps: s.Timestamps, Ecn: s.ECN, Ttl: uint32(s.TTL)}
	if s.WindowScale >= 0 {
		scale := uint32(s.WindowScale)
		m.WindowScale = &scale
	}
	return m
}

func toSynAck(m *synmeshv1.SynAck) probe.SynAck {
	s := probe.SynAck{Window: uint16(m.GetWindow()), MSS: uint16(m.GetMss()), WindowScale: -1,
		SACKPermitted: m.GetSackPermitted(), Timestamps: m.GetTimestamps(), ECN: m.GetEcn(), TTL: uint8(m.GetTtl())}
	if m.WindowScale != nil {
		s.WindowScale = int8(min(m.GetWindowScale(), 14)) // RFC 7323 section 2.3
	}
	return s
}

func fromICMP(i *probe.ICMP) *synmeshv1.Icmp {
	if i == nil {
		return nil
	}
	return &synmeshv1.Icmp{Type: uint32(i.Type), Code: uint32(i.Code), From: i.From.AsSlice()}
}

func toICMP(m *synmeshv1.Icmp) (*probe.ICMP, error) {
	if m == nil {
		return nil, nil
	}
	if err := checkBits("icmp.type", 8, m.GetType()); err != nil {
		return nil, err
	}
	if err := checkBits("icmp.code", 8, m.GetCode()); err != nil {
		return nil, err
	}
	from, ok := netip.AddrFromSlice(m.GetFrom())
	if !ok {
		return nil, fmt.Errorf("icmp.from has %d bytes; an address has 4 or 16", len(m.GetFrom()))
	}
	return &probe.ICMP{Type: uint8(m.GetType()), Code: uint8(m.GetCode()), From: from}, nil
}

func fromRetry(r *probe.Retry) *synmeshv1.Retry {
	if r == nil {
		return nil
	}
	return &synmeshv1.Retry{Answered: uint32(r.Answered), Lost: synmeshv1.Lost(r.Lost), Waited: durationpb.New(r.Waited)}
}

func checkRetry(m *synmeshv1.Retry) error {
	if l := m.GetLost(); l < 0 || l > synmeshv1.Lost(probe.LostSYNACK) {
		return fmt.Errorf("retry.lost: %d is none", l)
	}
	return nil
}

func toRetry(m *synmeshv1.Retry) *probe.Retry {
	if m == nil {
		return nil
	}
	return &probe.Retry{Answered: int(m.GetAnswered()), Lost: probe.Lost(m.GetLost()), Waited: m.GetWaited().AsDuration()}
}

func fromClose(c *probe.Close) *synmeshv1.Close {
	if c == nil {
		return nil
	}
	return &synmeshv1.Close{Ending: synmeshv1.Ending(c.Ending), Ack: durationpb.New(c.Ack), Fin: durationpb.New(c.Fin)}
}

func checkClose(m *synmeshv1.Close) error {
	if e := m.GetEnding(); m != nil && (e <= 0 || e > synmeshv1.Ending(probe.Unclosed)) {
		return fmt.Errorf("close.ending: %d is none", e)
	}
	return nil
}

func toClose(m *synmeshv1.Close) *probe.Close {
	if m == nil {
		return nil
	}
	return &probe.Close{Ending: probe.Ending(m.GetEnding()), Ack: m.GetAck().AsDuration(), Fin: m.GetFin().AsDuration()}
}
